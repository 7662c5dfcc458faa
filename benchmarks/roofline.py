"""The least time that a step could take: each of its operations at the device's measured limits.

An operation that is run moves its inputs and outputs through memory once, and makes the floating-point
operations of its formula; it cannot take less than the longer of the two at the measured copy bandwidth and
matrix rate. The roof of a step is the sum over its operations. Fusing operations could still lower it.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Limits:
    """What a device was measured to do.

    Args:
        bytes_per_second: read plus written, when copying.
        flops_per_second: of a large matrix product, by type.
    """

    bytes_per_second: float
    flops_per_second: dict[torch.dtype, float]


class Roof(TorchDispatchMode):
    """Adds up the roof of all operations that run under it.

    Attributes:
        seconds: the roof.
        flops: floating-point operations of matrix products and convolutions.
        bytes: moved by all operations.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.seconds = 0.0
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and torch.Tag.inplace_view not in func.tags:
            self._add(func, args, kwargs or {}, result)
        return result

    def _add(self, func: Any, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count else 0
        rate = self.limits.flops_per_second.get(tensors[0].dtype, math.inf) if tensors else math.inf
        self.flops += flops
        self.bytes += moved
        self.seconds += max(moved / self.limits.bytes_per_second, flops / rate)


def measure_limits(device: torch.device, *, quick: bool) -> Limits:
    """Copy bandwidth and matrix rates of a device."""
    large = device.type == "cuda"
    megabytes, side = (1024, 8192) if large else (64, 1024)
    if quick:
        megabytes, side = 4, 128
    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source), device)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        # Random values: a GPU multiplies constant matrices faster, because fewer bits change.
        left = torch.randn(side, side, device=device).to(dtype)
        right = torch.randn(side, side, device=device).to(dtype)
        rates[dtype] = 2 * side**3 / best_seconds(lambda a=left, b=right: a @ b, device)
    return Limits(2 * source.numel() / copy, rates)


def call_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Wall-clock seconds of each call, the device waited for; one call before is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return times[1:]


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """The shortest of some calls, see `call_seconds`."""
    return min(call_seconds(work, device, repeats))


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
