"""Initial values: each parameter is a pure function of (seed, its name), whatever else the model contains.

So arms that share a part (raw and pre-trained, single-task and multi-task) start from the same values of it.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from segstrat.errors import UserError
from segstrat.models.backbone import Backbone
from segstrat.models.upsample import LearnableUpsample, bilinear_kernel


class ScoreLayer(nn.Conv2d):
    """A 1×1 convolution to class scores; it starts at zero (Long et al. 2015, §4.1)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, kernel_size=1)


@contextmanager
def constructing(seed: int, part: str) -> Iterator[None]:
    """Within it, a part of a model is constructed: what its layers draw depends on (seed, part) alone.

    Buffers, and parameters that `initialize` has no rule for, keep the values of their constructors. Memory
    that a constructor allocates and does not set is NaN, so that `initialize` finds it.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed_of(seed, part))
        # This mode fills new memory with NaN.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@torch.no_grad()
def initialize(module: nn.Module, seed: int, prefix: str = "") -> None:
    """Sets the parameters of `module`, which was built within `constructing`.

    Convolutions and linear layers draw He normal values (He et al. 2015, arXiv:1502.01852, Eq. 10: variance
    2 / fan-in) and zero biases; score layers are zero, learnable upsampling is bilinear, batch norms are the
    identity. Every other parameter and every buffer keeps the value that its constructor gave it, and so does
    all of a backbone with `keeps_constructed_values`.

    Args:
        module: changed in place.
        seed: of the trial.
        prefix: name of the module in the whole model, such as `backbone`; it begins each parameter's name.

    Raises:
        UserError: for a parameter or buffer that no constructor has set.
    """
    kept = {
        inner
        for part in module.modules()
        if isinstance(part, Backbone) and part.keeps_constructed_values
        for inner in part.modules()
    }
    for name, part in module.named_modules(prefix=prefix):
        if part not in kept:
            _set_values(part, name, seed)
        _check_set(part, name)


def _set_values(part: nn.Module, name: str, seed: int) -> None:
    if isinstance(part, ScoreLayer):
        part.weight.zero_()
    elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        _he_normal(part, torch.Generator().manual_seed(_seed_of(seed, f"{name}.weight")))
    elif isinstance(part, LearnableUpsample):
        part.weight.copy_(bilinear_kernel(part.weight.shape[0], part.kernel_size))
    elif isinstance(part, nn.BatchNorm2d):
        part.reset_parameters()
    if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and part.bias is not None:
        part.bias.zero_()


def _check_set(part: nn.Module, name: str) -> None:
    values = (*part.named_parameters(name, recurse=False), *part.named_buffers(name, recurse=False))
    for own_name, value in values:
        # The minimum of values of which one is NaN is NaN; ten times as fast as asking each.
        if is_lazy(value) or (value.is_floating_point() and value.numel() and value.min().isnan()):
            raise UserError(
                f"{own_name} has no value once {type(part).__name__} is built; set every parameter and "
                "buffer in the constructor"
            )


def _he_normal(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, generator: torch.Generator) -> None:
    weight = layer.weight
    fan_in = weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        # Its weight is (C_in, C_out / groups, k, k), and an output pixel meets one in stride² of its cells.
        fan_in = max(1, weight[:, 0].numel() // (layer.groups * math.prod(layer.stride)))
    weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
