import pytest
import torch

from segstrat.config import TrialConfig
from segstrat.footprint import Footprint
from segstrat.gpu_footprint import busy_share, measure_footprint, noise_batch
from segstrat.machine import CONTEXT_GIB
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 5), "parts": Task("parts", 3)}


def config(**fields) -> TrialConfig:
    return TrialConfig(tasks=("semseg", "parts"), width=0.25, crop_size=64, batch_size=4, **fields)


def test_on_the_cpu_the_steps_run_and_nothing_is_claimed():
    assert measure_footprint(config(), TASKS, device="cpu") == Footprint(memory_gib=0.0, busy=0.0)


def test_noise_has_every_class_and_no_other():
    batch = noise_batch(2, 32, TASKS, "cpu")
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.float().std() > 70
    assert {name: batch.labels[name].unique().tolist() for name in TASKS} == {
        "semseg": [0, 1, 2, 3, 4],
        "parts": [0, 1, 2],
    }


def test_a_profiler_that_records_nothing_does_not_make_the_gpu_look_idle():
    assert busy_share(0.0, 1.0) == 1.0
    assert busy_share(0.25, 1.0) == 0.25
    assert busy_share(1.2, 1.0) == 1.0


@pytest.mark.gpu
def test_on_a_gpu_larger_crops_take_more_memory():
    small = measure_footprint(config(), TASKS)
    torch.cuda.reset_peak_memory_stats()
    large = measure_footprint(config().__class__(**config().to_dict() | {"crop_size": 256}), TASKS)
    assert CONTEXT_GIB < small.memory_gib < large.memory_gib
    assert 0 < small.busy <= 1
