"""Whole epochs from files to scores, against torchvision's recipe on the same cores; and validation."""

from collections.abc import Callable

from benchmarks.epoch import plain_epoch
from benchmarks.input import Files, torchvision_v2
from benchmarks.on_gpu.setting import Row, Rows, Setting, release, seconds_of
from segstrat.data import DataProtocol
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.machine import Machine
from segstrat.train import evaluate, train_one_epoch
from segstrat.training_state import build_training

RATE_GOAL, RECIPE_GOAL, WAIT_GOAL = 3500, 4, 0.05


def epoch_rows(setting: Setting) -> Rows:
    """Images per second of each way to train an epoch, and the share of the time that it waits for data."""
    data, device = setting.data(), setting.torch_device
    images = len(data.train)
    workers = 0 if setting.tiny else setting.cores
    recipe = Files(setting.root, torchvision_v2(setting.crop_size))
    plain = images / seconds_of(plain_epoch(recipe, setting.device, workers), device, min(2, setting.repeats))
    yield Row(name="torchvision's recipe", value=plain, unit="images/s", note=f"{setting.cores} cores")
    machines = {
        "host loader": setting.machine(),
        "device cache": setting.machine(device_cache=True),
        "host loader, compiled": setting.machine(compile=True),
        "device cache, compiled": setting.machine(compile=True, device_cache=True),
    }
    for name, machine in machines.items():
        release(device)
        epoch, loader = trial_epoch(setting, data, machine)
        seconds = seconds_of(epoch, device, setting.repeats)
        rate, wait = images / seconds, loader.wait_seconds / seconds
        yield Row(
            name=f"segstrat, {name}",
            value=rate,
            unit="images/s",
            note=f"{rate / plain:.1f} × torchvision's (goal {RECIPE_GOAL}); data wait {wait:.1%} of the last "
            f"(goal below {WAIT_GOAL:.0%}); goal {RATE_GOAL} images/s on an H100 when compiled",
        )


def trial_epoch(
    setting: Setting, data: DataProtocol, machine: Machine
) -> tuple[Callable[[], object], TrainLoader]:
    """An epoch of a trial, and the loader that feeds it."""
    machine.apply()
    config = setting.config()
    trial = build_training(config, machine, data)

    def epoch() -> None:
        train_one_epoch(trial.objective, trial.train_loader.epoch(0), trial.update, config.batch_size)

    return epoch, trial.train_loader


def validation_rows(setting: Setting) -> Rows:
    """Whole images at native size, in batches of one size."""
    data, device = setting.data(), setting.torch_device
    machine = setting.machine()
    machine.apply()
    trial = build_training(setting.config(), machine, data)
    seconds = seconds_of(lambda: evaluate(trial.objective, trial.val_loader), device, setting.repeats)
    yield Row(
        name="validation",
        value=len(data.val) / seconds,
        unit="images/s",
        note=f"{len(data.val)} images in {len(trial.val_loader.batches)} batches, {seconds:.2f} s a pass",
    )
