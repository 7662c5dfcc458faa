"""Backbones of timm as `timm/<name>`, where that package is installed; no other name imports it.

What timm leaves to its users is settled here: where the cells of a map lie, which mean and deviation the
images of a network have, and how its published weights are called inside its feature extractor.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import math
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from segstrat.config import TIMM_PREFIX
from segstrat.data.loading.batch import IMAGENET, Standardization
from segstrat.errors import UserError
from segstrat.models.backbone import Backbone

LARGEST_STRIDE = 32
# Images on which positions are measured, in cells of the coarsest map: odd and even numbers.
MEASURED_CELLS = (5, 6, 5)
TOLERANCE = 0.5
"""Pixels by which the measured position of a cell may differ from the one that is used."""


class TimmBackbone(Backbone):
    """A network of timm, through its `features_only` form: the last map at each stride up to 32.

    Images are padded right and below to whole cells of the coarsest map, because some networks place their
    cells differently at other sizes. Initial values are those that timm's constructor draws.

    Args:
        name: `timm/<architecture>` or `timm/<architecture>.<tag>`; the tag decides the mean and deviation of
            the images, and which published weights `imagenet` are.
        width: 1; timm's networks have no other.
        stochastic_depth: drop probability of the last residual branch; of networks that have it.

    Raises:
        UserError: if timm is not installed, or if the network does not fit.
    """

    options = ("stochastic_depth",)
    keeps_constructed_values = True

    def __init__(self, name: str, width: float = 1.0, stochastic_depth: float = 0.0) -> None:
        architecture = _architecture(name)
        if width != 1:
            raise UserError(f"width={width:g}: {name} has the width of timm's network; leave width at 1")
        target = torch.get_default_device()
        # Buffers and positions need real values, also where only shapes are asked for.
        with torch.device("cpu"):
            network = _create(name, architecture, stochastic_depth)
            strides, centers = _positions(architecture)
        super().__init__(
            name,
            width,
            channels=tuple(_feature_info(network).channels()),
            strides=strides,
            centers=centers,
            multiple=strides[-1],
            standardization=_standardization(name),
        )
        self.network = network.to(target)
        self._channels_last = _gives_channels_last(network)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of timm's extractor, as (B, C, H, W)."""
        return [
            values.permute(0, 3, 1, 2) if self._channels_last else values
            for values in self.network(images_BCHW)
        ]

    def translate(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights in timm's names under those of the feature extractor, without the layers after its maps."""
        own = self.state_dict().keys()
        published = _published_names(_architecture(self.name))
        translated = {}
        for name, value in state.items():
            # Extractors take the first level of containers apart (`stages.0` to `stages_0`), or wrap all.
            forms = (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")
            found = next((f"network.{form}" for form in forms if f"network.{form}" in own), None)
            if name in own or found:
                translated[found or name] = value
            elif name not in published:
                translated[name] = value
        return translated


def has_batch_norm(name: str) -> bool:
    """Whether the network of that name has batch normalization."""
    with torch.device("meta"):
        network = _import_timm().create_model(_architecture(name))
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def published_weights(name: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of a network under timm's names, from timm's hub or its cache.

    Raises:
        UserError: if none are published under the tag.
        Exception: of the hub's client, where they cannot be fetched.
    """
    published_tag(name)
    with torch.device("cpu"):
        network = _import_timm().create_model(name.removeprefix(TIMM_PREFIX), pretrained=True)
    return {key: value.clone().contiguous() for key, value in network.state_dict().items()}


def published_tag(name: str) -> str:
    """`<architecture>.<tag>` of a network's ImageNet weights.

    Raises:
        UserError: if there are none, or if they were trained on something else.
    """
    pretrained = _import_timm().get_pretrained_cfg(name.removeprefix(TIMM_PREFIX))
    if pretrained is None or not pretrained.has_weights:
        raise UserError(f"timm has no published weights of {name}; give the path of a file, or choose a tag")
    tag = pretrained.tag or ""
    # The parts of ImageNet, as tags name them.
    if not re.search(r"(^|_)in(1k|12k|21k|22k)", tag):
        raise UserError(
            f"timm's weights of {name} have the tag {tag!r}, which does not say ImageNet; choose another, "
            "or give the path of a file"
        )
    return f"{_architecture(name)}.{tag}"


@functools.cache
def _import_timm() -> ModuleType:
    if importlib.util.find_spec("timm") is None:
        raise UserError("backbones timm/<name> need the package timm; install it with `uv sync --extra timm`")
    return importlib.import_module("timm")


def _architecture(name: str) -> str:
    """The name without prefix and tag, if timm knows both."""
    timm = _import_timm()
    given = name.removeprefix(TIMM_PREFIX)
    architecture, _, tag = given.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"timm {timm.__version__} has no network {architecture!r}: {hint}timm.list_models() names all"
        )
    if tag and given not in timm.list_pretrained(f"{architecture}.*"):
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
        raise UserError(f"{architecture} has no tag {tag!r} in timm; it has {', '.join(tags) or 'none'}")
    return architecture


def _standardization(name: str) -> Standardization:
    pretrained = _import_timm().get_pretrained_cfg(name.removeprefix(TIMM_PREFIX))
    return Standardization(tuple(pretrained.mean), tuple(pretrained.std)) if pretrained else IMAGENET


def _create(name: str, architecture: str, stochastic_depth: float = 0.0) -> nn.Module:
    """timm's feature extractor, on the CPU.

    Raises:
        UserError: if the network has none, or no stochastic depth where that is asked for.
    """
    timm = _import_timm()
    options: dict[str, Any] = {"features_only": True}
    if stochastic_depth:
        options["drop_path_rate"] = stochastic_depth
    pretrained = timm.get_pretrained_cfg(architecture)
    if pretrained is not None and pretrained.fixed_input_size:
        # A network that does not know the option raises; what it does with other sizes is measured.
        with contextlib.suppress(TypeError):
            return _last_maps(name, architecture, options | {"dynamic_img_size": True}, stochastic_depth)
    try:
        return _last_maps(name, architecture, options, stochastic_depth)
    except TypeError as error:
        if stochastic_depth:
            raise _no_stochastic_depth(name, stochastic_depth) from error
        raise UserError(f"{name} gives no feature maps in timm ({error}); choose another network") from error


def _last_maps(
    name: str, architecture: str, options: Mapping[str, Any], stochastic_depth: float
) -> nn.Module:
    """The extractor of the last map at each stride up to `LARGEST_STRIDE`."""
    timm = _import_timm()
    try:
        network = timm.create_model(architecture, **options)
        info = _feature_info(network)
        last = dict(zip(info.reduction(), info.out_indices, strict=True))
        wanted = [index for stride, index in last.items() if stride <= LARGEST_STRIDE]
        if wanted != list(info.out_indices):
            network = timm.create_model(architecture, **options, out_indices=wanted)
    except (AttributeError, RuntimeError, AssertionError, IndexError, ValueError) as error:
        raise UserError(f"{name} gives no feature maps in timm ({error}); choose another network") from error
    rates = [getattr(module, "drop_prob", 0.0) or 0.0 for module in network.modules()]
    if stochastic_depth and not any(rates):
        raise _no_stochastic_depth(name, stochastic_depth)
    return network


def _no_stochastic_depth(name: str, stochastic_depth: float) -> UserError:
    return UserError(f"stochastic_depth={stochastic_depth}: {name} has none; leave it out")


def _feature_info(network: nn.Module) -> Any:
    """timm's list of the maps of an extractor."""
    return network.feature_info


def _gives_channels_last(network: nn.Module) -> bool:
    return str(getattr(network, "output_fmt", "")).upper().endswith("NHWC")


@functools.cache
def _published_names(architecture: str) -> frozenset[str]:
    with torch.device("meta"):
        network = _import_timm().create_model(architecture)
    return frozenset(network.state_dict()) | frozenset(name for name, _ in network.named_buffers())


@functools.cache
def _positions(architecture: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Stride of each map, and the pixel on which its first cell is centered, to half a pixel.

    The position is that of the gradient of a cell on an image, in a network whose kernels are symmetric bumps
    of random strength. If it depends on the strengths, branches of the network disagree (as where a shortcut
    averages 2×2 cells and its branch takes every second); if it depends on the size of the image, padding
    does.

    Raises:
        UserError: if no position is within half a pixel of all that were measured.
    """
    name = f"{TIMM_PREFIX}{architecture}"
    with torch.random.fork_rng(devices=[]):
        network = _create(name, architecture).eval()
    strides = tuple(_feature_info(network).reduction())
    measured = [
        _measure(name, network, cells * strides[-1], strides, seed)
        for seed, cells in enumerate(MEASURED_CELLS)
    ]
    centers = []
    for stride, values in zip(strides, zip(*measured, strict=True), strict=True):
        found = [value for pair in values for value in pair]
        center = round(sum(found) / len(found) * 2) / 2
        if max(abs(value - center) for value in found) > TOLERANCE or not -0.5 <= center < stride:
            low, high = min(found), max(found)
            raise UserError(
                f"{name} cannot be aligned with the image: the first cell at stride {stride} is centered "
                f"between pixel {low:.1f} and {high:.1f}, depending on its weights or on the image's size; "
                "choose another network"
            )
        centers.append(center)
    return strides, tuple(centers)


@torch.inference_mode(False)
@torch.enable_grad()
def _measure(
    name: str, network: nn.Module, side: int, strides: tuple[int, ...], seed: int
) -> list[tuple[float, float]]:
    """Row and column on which the first cell of each map is centered, from a cell in the middle."""
    # So faint that products of two signals vanish: gates do not blur the position.
    images_BCHW = torch.full((1, 3, side, side), 1e-15, requires_grad=True)
    weights = _symmetric_weights(network, seed)
    try:
        with _Geometry():
            maps = torch.func.functional_call(network, weights, (images_BCHW,))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{name} does not take images of {side}×{side} pixels ({reason}); choose a network that takes any"
        ) from error
    centers = []
    for values, stride in zip(maps, strides, strict=True):
        feature_BChw = values.permute(0, 3, 1, 2) if _gives_channels_last(network) else values
        if feature_BChw.shape[2:] != (side // stride, side // stride):
            raise UserError(
                f"{name} gives {feature_BChw.shape[2]}×{feature_BChw.shape[3]} cells for an image of {side} "
                f"pixels, which is no map of stride {stride}; choose another network"
            )
        middle = side // stride // 2
        cell = feature_BChw[0, :, middle, middle].sum()
        (gradient_BCHW,) = torch.autograd.grad(cell, images_BCHW, retain_graph=True)
        weight_HW = gradient_BCHW[0].sum(0).double()
        row, column = (_center_of_mass(weight_HW.sum(axis)) - middle * stride for axis in (1, 0))
        if math.isnan(row + column):
            raise UserError(
                f"{name} cannot be aligned with the image: cells at stride {stride} have no position that "
                "can be measured; choose another network"
            )
        centers.append((row, column))
    return centers


def _center_of_mass(weights: torch.Tensor) -> float:
    # What all pixels contribute alike, as through a global mean, has no position.
    weights = weights - weights.median()
    return float((weights * torch.arange(len(weights))).sum() / weights.sum())


def _symmetric_weights(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Values of all parameters, without memory of their own: positive kernels around their middle."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for prefix, module in network.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            value = torch.zeros(())
            if own_name == "weight" and isinstance(module, nn.Conv2d | nn.Linear):
                strength = torch.empty(()).uniform_(-1, 1, generator=generator).exp()
                value = strength / parameter.shape[1]
                if isinstance(module, nn.Conv2d):
                    value = value * torch.outer(_bump(parameter.shape[2]), _bump(parameter.shape[3]))
            elif not own_name.endswith("bias") and parameter.numel() == max(parameter.shape, default=1):
                value = torch.ones(())  # scales of norms and branches
            weights[f"{prefix}.{own_name}" if prefix else own_name] = value.expand(parameter.shape)
    return weights


def _bump(size: int) -> torch.Tensor:
    """A kernel of one dimension, symmetric and narrow, so that small images suffice."""
    distance = (torch.arange(size) - (size - 1) / 2).abs()
    values = torch.exp(-(((distance - distance.min()) / 0.4) ** 2))
    return values / values.sum()


class _Geometry(TorchFunctionMode):
    """Leaves of a network what moves signals across the image, and takes away what is no matter of place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"):
            return args[0]
        if name == "scaled_dot_product_attention":
            query, _, value = args[:3]
            return query.new_zeros((*query.shape[:-1], value.shape[-1]))
        if name == "softmax":
            dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            # Over the last dimension it is attention, which looks everywhere; over others it weighs branches.
            attends = dim in (-1, args[0].ndim - 1)
            return torch.full_like(args[0], 0.0 if attends else 1 / args[0].shape[dim])
        if name == "max_pool2d":
            # Of equal values the first would win; their mean has the same center.
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
            given = dict(zip(names, args[1:], strict=False)) | kwargs
            options = {key: given[key] for key in ("stride", "padding", "ceil_mode") if key in given}
            return F.avg_pool2d(args[0], given["kernel_size"], **options)
        return func(*args, **kwargs)
