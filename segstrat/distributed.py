"""One trial on several processes: each takes its share of every batch, and the update is that of the whole.

Processes are started by the caller (`torchrun`, Ray Train), who also initializes `torch.distributed`. Nothing
here does anything in a single process.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as autograd_dist
from torch import nn

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
    """Lets every batch norm see the whole batch; changes the model in place where it can, and returns it."""
    if world_size() == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = _SummedBatchNorm2d
                setattr(module, name, child)
    return model


class _SummedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes by summed moments; torch's own `SyncBatchNorm` runs on CUDA only."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        ones = torch.ones(1, device=x_BCHW.device)
        count = x_BCHW.shape[0] * x_BCHW.shape[2] * x_BCHW.shape[3]
        total = autograd_dist.all_reduce(torch.cat([x_BCHW.sum((0, 2, 3)), ones * count]))
        n = total[-1].detach()
        mean_C = total[:-1] / n
        centred = x_BCHW - mean_C[:, None, None]
        var_C = autograd_dist.all_reduce(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            assert self.running_mean is not None
            assert self.running_var is not None
            self.running_mean.lerp_(mean_C.detach(), momentum)
            self.running_var.lerp_(var_C.detach() * n / (n - 1), momentum)
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return centred * scale_C[:, None, None] + self.bias[:, None, None]
