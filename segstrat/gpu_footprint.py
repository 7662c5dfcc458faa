"""What a training step takes of a GPU, measured, so that trials can be packed onto it."""

import time
from collections.abc import Mapping

import torch

from segstrat.config import TrialConfig
from segstrat.data.loading.batch import Batch
from segstrat.footprint import Footprint
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, make_parameter_groups
from segstrat.tasks import Task
from segstrat.train import evaluate, train_one_epoch
from segstrat.trial import EVAL_BATCH

# Memory that CUDA itself takes for a process that has loaded its kernels, besides torch's allocations.
CONTEXT_GIB = 0.6
WARM_UP_STEPS = 3
STEPS = 5


def measure_footprint(
    config: TrialConfig, tasks: Mapping[str, Task], *, device: str = "cuda", precision: str = "float32"
) -> Footprint:
    """Trains a few steps and evaluates the largest batch, on black images.

    Args:
        config: its model, crop and batch size are used; accumulated batches come one after the other.
        device: on the CPU nothing is packed, and memory and busy share are 0.
    """
    machine = Machine(device=device, precision=precision)  # type: ignore[arg-type]
    model = build_model(config, tasks).to(device).to(memory_format=torch.channels_last)
    objective = Objective(model, tasks, machine, config.label_smoothing)
    counts = dict.fromkeys((COMMON, *tasks), config.batch_size)
    update = SummedUpdate(make_parameter_groups(model, config, counts, fused=True), total_steps=10**6)
    batch = black_batch(config.batch_size, config.crop_size, tasks, device)

    def train(steps: int) -> None:
        train_one_epoch(objective, [batch] * steps, update, config.batch_size)

    train(WARM_UP_STEPS)
    evaluate(objective, [black_batch(EVAL_BATCH, config.crop_size, tasks, device)])
    if machine.torch_device.type != "cuda":
        return Footprint(memory_gib=0.0, busy=0.0)
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
    memory = torch.cuda.max_memory_reserved() / 2**30 + CONTEXT_GIB
    return Footprint(memory_gib=memory, busy=busy_share(kernel_seconds, seconds))


def busy_share(kernel_seconds: float, seconds: float) -> float:
    """Share of the time that kernels ran; 1 where the profiler recorded none, so that nothing is packed."""
    return min(1.0, kernel_seconds / seconds) if kernel_seconds > 0 else 1.0


def black_batch(count: int, side: int, tasks: Mapping[str, Task], device: str) -> Batch:
    """`count` black images of `side` pixels, labelled for every task."""
    images = torch.zeros(count, side, side, 3, dtype=torch.uint8, device=device)
    return Batch(
        images.permute(0, 3, 1, 2),
        {task: torch.zeros(count, side, side, dtype=torch.uint8, device=device) for task in tasks},
        {task: list(range(count)) for task in tasks},
        [str(row) for row in range(count)],
    )
