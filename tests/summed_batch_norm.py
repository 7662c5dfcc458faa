"""Batch norm over several processes on CPUs, where torch's `SyncBatchNorm` does not run."""

import torch
import torch.distributed.nn.functional as autograd_dist
from torch import nn

from segstrat.models.segmenter import Segmenter


def synchronized(model: Segmenter) -> Segmenter:
    """The model, with the class of its batch norms changed in place."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SummedBatchNorm
    return model


class SummedBatchNorm(nn.SyncBatchNorm):
    """Normalizes by the moments of the whole batch, summed over all processes."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        count = torch.tensor([x_BCHW.shape[0] * x_BCHW.shape[2] * x_BCHW.shape[3]])
        total = autograd_dist.all_reduce(torch.cat([x_BCHW.sum((0, 2, 3)), count]))
        n = total[-1].detach()
        mean_C = total[:-1] / n
        centered = x_BCHW - mean_C[:, None, None]
        var_C = autograd_dist.all_reduce(centered.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean_C.detach(), self.momentum)
            self.running_var.lerp_(var_C.detach() * n / (n - 1), self.momentum)
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return centered * scale_C[:, None, None] + self.bias[:, None, None]
