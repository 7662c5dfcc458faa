"""What a training step costs, by trying: time and disk of a trial, and the share of a GPU that it needs."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch

from segstrat.config import TrialConfig
from segstrat.data.loading.batch import Batch
from segstrat.machine import CONTEXT_GIB, Machine, Precision
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, Update, make_parameter_groups
from segstrat.tasks import Task
from segstrat.train import evaluate, train_one_epoch
from segstrat.training_state import EVAL_BATCH, listed_weights

WARM_UP_STEPS = 3
STEPS = 5
# Images of a step that is only tried; two, because batch norm cannot train on one pixel of one image.
CPU_BATCH = 2
# Of a step that compares precisions on a CPU.
PIXELS = 8 * 96**2


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds per image, without reading it, and the size of a checkpoint in bytes."""

    train_seconds: float
    val_seconds: float
    checkpoint_bytes: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory that a trial's process needs on its GPU, and the share of a step that the GPU is busy."""

    memory_gib: float
    busy: float


def measure_step(config: TrialConfig, tasks: Mapping[str, Task], machine: Machine) -> StepTime:
    """Trains two steps on noise of the config's crop and times the second; the same for validation."""
    machine.apply()
    device = machine.torch_device
    count = config.batch_size if device.type == "cuda" else CPU_BATCH
    objective, update, batch = _trial_on_noise(config, tasks, machine, count)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    # The first step loads kernels and allocates memory.
    _, train = (seconds(lambda: train_one_epoch(objective, [batch], update, count)) for _ in range(2))
    val = seconds(lambda: evaluate(objective, [batch]))
    parameters = sum(parameter.numel() for parameter in objective.model.parameters())
    return StepTime(
        train_seconds=train / count,
        val_seconds=val / count,
        # Each parameter with its momentum, and with its second moment for AdamW, in float32.
        checkpoint_bytes=4 * parameters * (3 if config.optimizer == "adamw" else 2),
    )


def measure_precisions(
    config: TrialConfig, tasks: Mapping[str, Task], *, device: str = "cpu", threads: int = 1
) -> dict[str, float]:
    """Seconds of a training step in each precision, on noise; the median of several, taken in turn.

    On a CPU a batch has as many images as `PIXELS` hold, at most that of the config.
    """
    count = config.batch_size
    if device == "cpu":
        count = min(count, max(CPU_BATCH, PIXELS // config.crop_size**2))
    steps: dict[str, Callable[[], object]] = {}
    for precision in get_args(Precision):
        machine = Machine(device=device, threads=threads, precision=precision)
        machine.apply()
        objective, update, batch = _trial_on_noise(config, tasks, machine, count)
        steps[precision] = partial(train_one_epoch, objective, [batch], update, count)

    def seconds(step: Callable[[], object]) -> float:
        start = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    rounds = [{name: seconds(step) for name, step in steps.items()} for _ in range(WARM_UP_STEPS + STEPS)]
    return {name: statistics.median(each[name] for each in rounds[WARM_UP_STEPS:]) for name in steps}


def measure_footprint(
    config: TrialConfig, tasks: Mapping[str, Task], *, device: str = "cuda", precision: str = "float32"
) -> Footprint:
    """Trains a few steps and evaluates the largest batch, on noise.

    The memory is the sum of what training and evaluation take at most: where steps run as CUDA graphs, the
    graphs keep their memory during evaluation. The images that the device cache keeps are not included.

    Args:
        config: its model, crop and batch size are used; accumulated batches come one after the other.
        device: on the CPU nothing is packed, and memory and busy share are 0.
    """
    machine = Machine(device=device, precision=precision)  # type: ignore[arg-type]
    objective, update, batch = _trial_on_noise(config, tasks, machine, config.batch_size)
    eval_images = max(config.batch_size, EVAL_BATCH)

    def train(steps: int) -> None:
        train_one_epoch(objective, [batch] * steps, update, config.batch_size)

    train(WARM_UP_STEPS)
    if machine.torch_device.type != "cuda":
        evaluate(objective, [noise_batch(eval_images, config.crop_size, tasks, device)])
        return Footprint(memory_gib=0.0, busy=0.0)
    train_bytes = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    evaluate(objective, [noise_batch(eval_images, config.crop_size, tasks, device)])
    # The weights are counted twice, as an allowance for fragmentation.
    eval_bytes = torch.cuda.max_memory_reserved()
    train(1)
    torch.cuda.synchronize()
    start = time.perf_counter()
    train(STEPS)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    # The profiler slows down the host and not the kernels: their time is from it, the total from above.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        train(STEPS)
        torch.cuda.synchronize()
    kernel_seconds = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    memory = (train_bytes + eval_bytes) / 2**30 + CONTEXT_GIB
    return Footprint(memory_gib=memory, busy=busy_share(kernel_seconds, seconds))


def _trial_on_noise(
    config: TrialConfig, tasks: Mapping[str, Task], machine: Machine, images: int
) -> tuple[Objective, Update, Batch]:
    model = build_model(config, tasks).to(machine.device).to(memory_format=torch.channels_last)
    counts = dict.fromkeys((COMMON, *tasks), images)
    groups = make_parameter_groups(model, config, counts, fused=True)
    update = SummedUpdate(groups, total_steps=10**6, clip=config.clip_gradient)
    batch = noise_batch(images, config.crop_size, tasks, machine.device)
    weights = listed_weights(config, tasks)
    if isinstance(config.class_weights, str) and config.class_weights != "none":
        # They cost the same, whatever their values.
        weights = {name: [1.0] * task.num_classes for name, task in tasks.items()}
    objective = Objective(
        model, tasks, machine, config.label_smoothing, losses=config.losses, class_weights=weights
    )
    return objective, update, batch


def busy_share(kernel_seconds: float, seconds: float) -> float:
    """Share of the time that kernels ran; 1 where the profiler recorded none, so that nothing is packed."""
    return min(1.0, kernel_seconds / seconds) if kernel_seconds > 0 else 1.0


def noise_batch(count: int, side: int, tasks: Mapping[str, Task], device: str) -> Batch:
    """`count` images of `side` pixels of noise, labelled for every task.

    Noise, because a GPU computes faster on constant values, whose bits do not change.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator, dtype=torch.uint8).to(device)

    return Batch(
        noise(256, count, side, side, 3).permute(0, 3, 1, 2),
        {name: noise(task.num_classes, count, side, side) for name, task in tasks.items()},
        {name: list(range(count)) for name in tasks},
        [str(row) for row in range(count)],
    )
