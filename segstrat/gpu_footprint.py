"""What a training step takes of a GPU, measured, so that trials can be packed onto it."""

import time
from collections.abc import Mapping

import torch

from segstrat.config import TrialConfig
from segstrat.data.loading.batch import Batch
from segstrat.footprint import Footprint
from segstrat.machine import CONTEXT_GIB, Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, make_parameter_groups
from segstrat.tasks import Task
from segstrat.train import evaluate, train_one_epoch
from segstrat.trial import EVAL_BATCH

WARM_UP_STEPS = 3
STEPS = 5


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
    model = build_model(config, tasks).to(device).to(memory_format=torch.channels_last)
    objective = Objective(model, tasks, machine, config.label_smoothing)
    counts = dict.fromkeys((COMMON, *tasks), config.batch_size)
    update = SummedUpdate(make_parameter_groups(model, config, counts, fused=True), total_steps=10**6)
    batch = noise_batch(config.batch_size, config.crop_size, tasks, device)
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
