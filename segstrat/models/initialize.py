"""Initial values: each parameter is a pure function of (seed, its name), whatever else the model contains.

So arms that share a part (raw and pre-trained, single-task and multi-task) start from the same values of it.
"""

import hashlib
import math

import torch
from torch import nn

from segstrat.models.upsample import LearnableUpsample, bilinear_kernel


class ScoreLayer(nn.Conv2d):
    """A 1×1 convolution to class scores; it starts at zero (Long et al. 2015, §4.1)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, kernel_size=1)


@torch.no_grad()
def initialize(module: nn.Module, seed: int, prefix: str = "") -> None:
    """Sets every parameter and batch-norm statistic of `module`.

    Convolutions and linear layers draw He normal values (He et al. 2015, arXiv:1502.01852, Eq. 10: variance
    2 / fan-in) and zero biases; score layers are zero, learnable upsampling is bilinear, batch norms are the
    identity.

    Args:
        module: changed in place.
        seed: of the trial.
        prefix: name of the module in the whole model, such as `backbone`; it begins each parameter's name.

    Raises:
        TypeError: for a parameter of a module that has no rule here.
    """
    for name, part in module.named_modules(prefix=prefix):
        if isinstance(part, ScoreLayer):
            nn.init.zeros_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _he_normal(part, torch.Generator().manual_seed(_seed_of(seed, f"{name}.weight")))
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, LearnableUpsample):
            part.weight.copy_(bilinear_kernel(part.weight.shape[0], part.kernel_size))
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif any(True for _ in part.parameters(recurse=False)):
            raise TypeError(f"no initialization rule for {type(part).__name__} at {name}")


def _he_normal(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, generator: torch.Generator) -> None:
    weight = layer.weight
    fan_in = weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        # Its weight is (C_in, C_out, k, k), and an output pixel meets one in stride² of the kernel's cells.
        fan_in = weight[:, 0].numel() // math.prod(layer.stride)
    values = torch.empty(weight.shape).normal_(0, math.sqrt(2 / fan_in), generator=generator)
    weight.copy_(values)


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
