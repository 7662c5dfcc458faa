"""GPU memory and time of a training step, measured, so that trials can be packed onto it."""

import time
from collections.abc import Mapping

import torch

from segstrat.config import TrialConfig
from segstrat.data.loading.batch import normalize
from segstrat.footprint import Footprint
from segstrat.losses import pixel_losses
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.optim import make_parameter_groups
from segstrat.tasks import Task

# What CUDA itself keeps for a process that has loaded its kernels, besides torch's own allocations.
CONTEXT_GIB = 0.6
WARM_UP_STEPS = 3
EVAL_BATCH = 16
STEPS = 5


def measure_footprint(
    config: TrialConfig, tasks: Mapping[str, Task], *, device: str = "cuda", precision: str = "float32"
) -> Footprint:
    """Trains a few steps on noise, without reading data.

    Args:
        config: only model, crop and batch matter; accumulation steps run one after the other.
        device: on the CPU nothing is packed, and memory and busy share are 0.
    """
    machine = Machine(device=device, precision=precision)  # type: ignore[arg-type]
    where = machine.torch_device
    model = build_model(config, tasks).to(where).to(memory_format=torch.channels_last).train()
    images = torch.zeros(config.batch_size, 3, config.crop_size, config.crop_size, dtype=torch.uint8)
    images = images.to(where).to(memory_format=torch.channels_last)
    labels = torch.zeros(config.batch_size, config.crop_size, config.crop_size, dtype=torch.uint8)
    labels = labels.to(where)
    counts = dict.fromkeys(("common", *tasks), config.batch_size)
    groups = make_parameter_groups(model, config, counts, fused=True)

    def step() -> None:
        with machine.autocast():
            logits = model(normalize(images), tasks=list(tasks))
        losses = [
            pixel_losses(logits[name], labels, task.ignore_index)[0].mean() for name, task in tasks.items()
        ]
        torch.stack(losses).sum().backward()
        for group in groups:
            group.optimizer.step()
            group.optimizer.zero_grad(set_to_none=True)

    for _ in range(WARM_UP_STEPS):
        step()
    with torch.inference_mode():
        model.eval()
        model(normalize(images.repeat(-(-EVAL_BATCH // len(images)), 1, 1, 1)), tasks=list(tasks))
        model.train()
    if where.type != "cuda":
        return Footprint(memory_gib=0.0, busy=0.0)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    # The profiler slows down the host, not the kernels: their time is taken from it, `seconds` is not.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    kernels = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    memory = torch.cuda.max_memory_reserved() / 2**30 + CONTEXT_GIB
    return Footprint(memory_gib=memory, busy=min(1.0, kernels / seconds))
