"""One trial on several processes: each gets its share of every batch, and the update is that of the whole.

The caller (`torchrun`, Ray Train) starts the processes and initializes `torch.distributed`. In a single
process nothing here has an effect.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

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


def summed_counts(counts: Mapping[str, int], device: torch.device) -> dict[str, int]:
    """Counts by name, summed over all processes, which must have the same names in the same order."""
    if world_size() == 1:
        return dict(counts)
    total = summed(torch.tensor(list(counts.values()), dtype=torch.int64, device=device))
    return dict(zip(counts, total.tolist(), strict=True))


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
    if world_size() == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    # One message instead of hundreds.
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def synchronize_batch_norm(model: Model, device: torch.device) -> Model:
    """Lets every batch norm see the whole batch; changes the model in place and returns it.

    Raises:
        UserError: on a CPU, where torch has no synchronized batch norm.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise UserError(
            "batch normalization over several processes runs on CUDA only; give the trial one process, or "
            "choose a model without it (vgg16, alexnet, squeezenet1_1)"
        )
    return model
