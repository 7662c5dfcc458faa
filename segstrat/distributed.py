"""One trial on several processes: each gets its share of every batch, and the update is that of the whole.

The caller (`torchrun`, Ray Train) starts the processes and initializes `torch.distributed`. In a single
process nothing here has an effect.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segstrat.config import WITHOUT_BATCH_NORM
from segstrat.errors import UserError

Model = TypeVar("Model", bound=nn.Module)


def rank() -> int:
    """Number of this process, 0 in a single one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train one trial together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def summed(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum over all processes; `values` itself in a single one."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def summed_with_gradient(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, whose gradient reaches the values of this process."""
    if world_size() == 1:
        return values
    return values + (summed(values.detach()) - values.detach())


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process; all of them must ask."""
    if world_size() == 1:
        return flag
    return bool(summed(torch.tensor(int(flag), device=device)))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by the sum over all processes; a process without one contributes zero.

    The sum, not the mean: every process has already divided its losses by the valid pixels of the whole
    batch.
    """
    if world_size() > 1:
        _start_sum(parameters).finish()


@dataclass
class _Sum:
    """A sum that is on its way: gradients are sent as one message instead of hundreds."""

    gradients: list[torch.Tensor]
    flat: torch.Tensor
    work: dist.Work | None

    def finish(self) -> None:
        """Waits for the sum and puts it into the gradients."""
        if self.work is not None:
            self.work.wait()
        parts = self.flat.split([gradient.numel() for gradient in self.gradients])
        for gradient, part in zip(self.gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _start_sum(parameters: Iterable[nn.Parameter]) -> _Sum:
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    return _Sum(gradients, flat, dist.all_reduce(flat, async_op=True))


class OverlappedSum:
    """Sums gradients over all processes while the backward pass still computes others.

    Parameters are grouped into buckets from last to first, the order in which their gradients are ready. Each
    bucket is sent once it and all before it are complete, so that all processes send in the same order.

    Args:
        parameters: all of them get a gradient in every step, in one backward pass.
        bucket_bytes: a bucket is complete with the parameter that reaches this size.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], bucket_bytes: int = 25 << 20) -> None:
        self._buckets: list[list[nn.Parameter]] = [[]]
        size = 0
        for parameter in reversed(parameters):
            if size >= bucket_bytes:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
            parameter.register_post_accumulate_grad_hook(self._note)
        self._ready: set[nn.Parameter] = set()
        self._sums: list[_Sum] = []

    def _note(self, parameter: torch.Tensor) -> None:
        self._ready.add(parameter)  # type: ignore[arg-type]
        while len(self._sums) < len(self._buckets) and self._ready.issuperset(self._buckets[len(self._sums)]):
            self._sums.append(_start_sum(self._buckets[len(self._sums)]))

    def finish(self) -> None:
        """Waits until the gradients of the last backward pass are their sums."""
        for bucket in self._buckets[len(self._sums) :]:
            self._sums.append(_start_sum(bucket))
        for started in self._sums:
            started.finish()
        self._ready, self._sums = set(), []


def synchronize_batch_norm(model: Model, device: torch.device) -> Model:
    """Lets every batch norm see the whole batch; changes the model in place and returns it.

    Raises:
        UserError: on a CPU, where torch has no synchronized batch norm; for a batch norm with a `forward` of
            its own, which torch would replace by a plain one, unless timm's conversion keeps it.
    """
    if world_size() == 1:
        return model
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    ]
    if norms and device.type != "cuda":
        raise UserError(
            "batch normalization over several processes runs on CUDA only; give the trial one process, or "
            f"choose a backbone without it ({', '.join(WITHOUT_BATCH_NORM)})"
        )
    own = [norm for norm in norms if type(norm).forward is not _BatchNorm.forward]
    if any(type(norm).__module__.startswith("timm.") for norm in own):
        from timm.layers import BatchNormAct2d, convert_sync_batchnorm

        # Activation and dropout are part of timm's layer; torch's conversion would drop them.
        own = [norm for norm in own if type(norm) is not BatchNormAct2d]
        convert = convert_sync_batchnorm
    else:
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
    for norm in own:
        raise UserError(
            f"{type(norm).__name__} computes more than batch normalization, which is dropped when the layer "
            "is synchronized over several processes; give the trial a single GPU"
        )
    return convert(model) if norms else model
