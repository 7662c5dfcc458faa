import pytest

from segstrat.config import TrialConfig
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.step_time import measure_step
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 3)}


def test_a_larger_crop_takes_longer_and_a_wider_model_more_disk():
    def measure(**fields):
        config = TrialConfig(model="fcn8s", batch_size=2, **fields)
        return measure_step(config, TASKS, Machine())

    small = measure(width=0.25, crop_size=64)
    large = measure(width=0.25, crop_size=320)
    assert 0 < small.train_seconds < large.train_seconds
    assert 0 < small.val_seconds < large.val_seconds
    assert small.checkpoint_bytes == large.checkpoint_bytes
    model = build_model(TrialConfig(model="fcn8s", width=0.25), TASKS)
    assert small.checkpoint_bytes == 8 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.gpu
def test_on_a_gpu_the_device_is_waited_for():
    """Shows that times are those of the kernels and not of queueing them."""
    small, large = (
        measure_step(TrialConfig(model="fcn8s", batch_size=8, crop_size=size), TASKS, Machine(device="cuda"))
        for size in (64, 512)
    )
    assert large.train_seconds > 3 * small.train_seconds
