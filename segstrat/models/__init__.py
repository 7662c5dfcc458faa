"""Networks: backbones, heads, and the two tables that name them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.errors import UserError, unknown_name
from segstrat.models.backbone import Backbone
from segstrat.models.fcn import FCNHead
from segstrat.models.initialize import initialize
from segstrat.models.resnet import ResNet
from segstrat.models.segmenter import Segmenter
from segstrat.models.squeezenet import SqueezeNet
from segstrat.models.sunet import DegriddingHead, SUNet
from segstrat.models.vgg import VGG, AlexNet
from segstrat.tasks import Task

BACKBONES: dict[str, type[Backbone]] = {
    "resnet18": ResNet,
    "resnet34": ResNet,
    "resnet50": ResNet,
    "resnet101": ResNet,
    "vgg16": VGG,
    "vgg16_bn": VGG,
    "alexnet": AlexNet,
    "squeezenet1_1": SqueezeNet,
    "sunet64": SUNet,
    "sunet128": SUNet,
    "sunet7128": SUNet,
}


def fcn_head(stride: int, backbone: Backbone, num_classes: int, dropout: float) -> nn.Module:
    """FCN head of a stride; see `FCNHead`."""
    return FCNHead(backbone, num_classes, stride, dropout)


def degridding_head(backbone: Backbone, num_classes: int, dropout: float) -> nn.Module:  # noqa: ARG001
    """Head of a SUNet; the dropout of the model is all in its backbone."""
    return DegriddingHead(backbone, num_classes)


MODELS: dict[str, Callable[[Backbone, int, float], nn.Module]] = {
    "fcn32s": partial(fcn_head, 32),
    "fcn16s": partial(fcn_head, 16),
    "fcn8s": partial(fcn_head, 8),
    "sunet64": degridding_head,
    "sunet128": degridding_head,
    "sunet7128": degridding_head,
}
"""The head that makes a backbone a model of that name; a SUNet is its own backbone."""


def build_model(config: TrialConfig, tasks: Mapping[str, Task]) -> Segmenter:
    """Builds and initializes the model of a trial; weights are loaded after, by `load_pretrained`.

    Every parameter starts from a value that only `config.seed` and its name decide.

    Args:
        config: its model, backbone and regularizer fields count.
        tasks: a head is built for each.

    Raises:
        UserError: for a combination that would leave a field without effect.
    """
    with torch.device("meta"):
        model = assemble_model(config, tasks)
    model.to_empty(device="cpu")
    initialize(model, config.seed)
    return model


def assemble_model(config: TrialConfig, tasks: Mapping[str, Task]) -> Segmenter:
    """The modules of `build_model`, to be built on the meta device: their values are left open."""
    if config.model not in MODELS:
        raise unknown_name("model", config.model, MODELS)
    backbone = assemble_backbone(
        config.backbone or "",
        config.width,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        output_stride=config.output_stride,
    )
    if config.freeze_batch_norm:
        backbone.freeze_batch_norm()
    make_head = MODELS[config.model]
    heads = {name: make_head(backbone, task.num_classes, config.dropout) for name, task in tasks.items()}
    return Segmenter(backbone, heads)


def build_backbone(
    name: str,
    width: float = 1.0,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    output_stride: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Builds and initializes a backbone alone, with the values that it has in a model of that seed.

    Args:
        name: key of `BACKBONES`.
        width: multiplier on its channel counts.
        dropout: probability inside the backbone; of VGG, AlexNet and SUNet. Others have theirs in the head.
        stochastic_depth: drop probability of the last residual branch; of ResNet and SUNet.
        output_stride: of SUNet: 8, 16 or 32.
        seed: of the initial values.

    Raises:
        UserError: for an unknown name, or an option that the backbone does not have.
    """
    with torch.device("meta"):
        backbone = assemble_backbone(
            name, width, dropout=dropout, stochastic_depth=stochastic_depth, output_stride=output_stride
        )
    backbone.to_empty(device="cpu")
    initialize(backbone, seed, prefix="backbone")
    return backbone


def assemble_backbone(
    name: str,
    width: float = 1.0,
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    output_stride: int | None = None,
) -> Backbone:
    """The modules of `build_backbone`, to be built on the meta device: their values are left open."""
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    kind = BACKBONES[name]
    given: dict[str, Any] = {
        "dropout": dropout,
        "stochastic_depth": stochastic_depth,
        "output_stride": output_stride,
    }
    for option, value in given.items():
        # Where a backbone has no dropout, its head has.
        if value and option not in kind.options and option != "dropout":
            able = ", ".join(key for key, other in BACKBONES.items() if option in other.options)
            raise UserError(f"{option}={value}: {name} has none; leave it out or choose one of {able}")
    return kind(name, width, **{option: given[option] for option in kind.options})
