import math

import pytest
import torch

from segstrat import step_cost
from segstrat.config import TrialConfig
from segstrat.machine import CONTEXT_GIB, Machine
from segstrat.models import build_model
from segstrat.step_cost import Footprint, busy_share, measure_footprint, measure_step, noise_batch
from segstrat.tasks import Task
from segstrat.training_state import EVAL_BATCH, _eval_loader

TASKS = {"semseg": Task("semseg", 5), "parts": Task("parts", 3)}
SEMSEG = {"semseg": TASKS["semseg"]}


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


@pytest.mark.parametrize("batch_size", [4, 20])
def test_validation_on_a_gpu_takes_no_larger_batches_than_were_measured(
    monkeypatch, tiny_protocol, batch_size
):
    """Images of 16 times the crop's area, 16 of them at once, would not fit where the probe did."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    settings = TrialConfig(tasks=("semseg",), crop_size=32, batch_size=batch_size)
    dataset = tiny_protocol(val=40).val
    on_gpu = Machine(device="cuda", precision="float32")
    tasks = {"semseg": Task("semseg", 3)}
    most = max(batch_size, EVAL_BATCH) * 32**2
    sizes = [
        sum(math.prod(dataset.image_size(index)) for index in batch)
        for batch in _eval_loader(settings, on_gpu, tasks, dataset).batches
    ]
    assert most / 2 < max(sizes) <= most
    on_cpu = _eval_loader(settings, Machine(), tasks, dataset).batches
    assert max(map(len, on_cpu)) == max(batch_size, EVAL_BATCH)


@pytest.mark.gpu
def test_on_a_gpu_larger_crops_take_more_memory():
    small = measure_footprint(config(), TASKS)
    torch.cuda.reset_peak_memory_stats()
    large = measure_footprint(config().__class__(**config().to_dict() | {"crop_size": 256}), TASKS)
    assert CONTEXT_GIB < small.memory_gib < large.memory_gib
    assert 0 < small.busy <= 1


def test_a_larger_crop_takes_longer_and_a_wider_model_more_disk():
    def measure(**fields):
        config = TrialConfig(model="fcn8s", batch_size=2, **fields)
        return measure_step(config, SEMSEG, Machine())

    small = measure(width=0.25, crop_size=64)
    large = measure(width=0.25, crop_size=320)
    assert 0 < small.train_seconds < large.train_seconds
    assert 0 < small.val_seconds < large.val_seconds
    assert small.checkpoint_bytes == large.checkpoint_bytes
    model = build_model(TrialConfig(model="fcn8s", width=0.25), SEMSEG)
    assert small.checkpoint_bytes == 8 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.gpu
def test_on_a_gpu_the_device_is_waited_for():
    """Shows that times are those of the kernels and not of queueing them."""
    small, large = (
        measure_step(TrialConfig(model="fcn8s", batch_size=8, crop_size=size), SEMSEG, Machine(device="cuda"))
        for size in (64, 512)
    )
    assert large.train_seconds > 3 * small.train_seconds


def test_both_precisions_are_timed_in_turn(monkeypatch):
    order = []
    plain = step_cost.train_one_epoch

    def noted(objective, batches, *arguments):
        order.append((objective.machine.precision, len(batches[0])))
        return plain(objective, batches, *arguments)

    monkeypatch.setattr(step_cost, "train_one_epoch", noted)
    settings = TrialConfig(model="fcn8s", width=0.25, crop_size=64, batch_size=30)
    found = step_cost.measure_precisions(settings, SEMSEG)
    assert found.keys() == {"float32", "bfloat16"}
    assert all(seconds > 0 for seconds in found.values())
    assert order == [("float32", 18), ("bfloat16", 18)] * 8, "eight images of 96 pixels are 18 of 64"
