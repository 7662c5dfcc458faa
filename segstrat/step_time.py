"""How long this machine takes for a training image and a validation image of a config, by trying."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from segstrat.config import TrialConfig
from segstrat.gpu_footprint import noise_batch
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, make_parameter_groups
from segstrat.tasks import Task
from segstrat.train import evaluate, train_one_epoch

# Images of a step that is only tried; two, because batch norm cannot train on one pixel of one image.
CPU_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds per image, without reading it, and the size of a checkpoint in bytes."""

    train_seconds: float
    val_seconds: float
    checkpoint_bytes: int


def measure_step(config: TrialConfig, tasks: Mapping[str, Task], machine: Machine) -> StepTime:
    """Trains two steps on noise of the config's crop and times the second; the same for validation."""
    machine.apply()
    device = machine.torch_device
    count = config.batch_size if device.type == "cuda" else CPU_BATCH
    model = build_model(config, tasks).to(device).to(memory_format=torch.channels_last)
    objective = Objective(model, tasks, machine, config.label_smoothing)
    counts = dict.fromkeys((COMMON, *tasks), count)
    update = SummedUpdate(make_parameter_groups(model, config, counts, fused=True), total_steps=10**6)
    batch = noise_batch(count, config.crop_size, tasks, machine.device)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    # The first step loads kernels and allocates memory.
    _, train = (seconds(lambda: train_one_epoch(objective, [batch], update, count)) for _ in range(2))
    val = seconds(lambda: evaluate(objective, [batch]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return StepTime(
        train_seconds=train / count,
        val_seconds=val / count,
        # Each parameter with its momentum, in float32.
        checkpoint_bytes=8 * parameters,
    )
