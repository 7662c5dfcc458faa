"""Networks: backbones, heads, and the two tables that name them."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from segstrat.config import TrialConfig
from segstrat.errors import UserError, unknown_name
from segstrat.models.backbone import Backbone
from segstrat.models.fcn import FCNHead
from segstrat.models.initialize import initialize
from segstrat.models.resnet import ResNet
from segstrat.models.segmenter import Segmenter
from segstrat.tasks import Task

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet18": partial(ResNet, "resnet18"),
    "resnet34": partial(ResNet, "resnet34"),
    "resnet50": partial(ResNet, "resnet50"),
    "resnet101": partial(ResNet, "resnet101"),
}


def build_backbone(
    name: str,
    width: float = 1.0,
    dropout: float = 0.0,  # noqa: ARG001 - of VGG and SUNet
    stochastic_depth: float = 0.0,
    output_stride: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Builds and initializes a backbone by name."""
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    if output_stride is not None:
        raise UserError(f"output_stride={output_stride}: {name} has a fixed stride of 32")
    backbone = BACKBONES[name](width=width, stochastic_depth=stochastic_depth)
    initialize(backbone, seed, prefix="backbone")
    return backbone


MODELS: dict[str, Callable[..., nn.Module]] = {
    "fcn32s": partial(FCNHead, stride=32),
    "fcn16s": partial(FCNHead, stride=16),
    "fcn8s": partial(FCNHead, stride=8),
}


def build_model(config: TrialConfig, tasks: Mapping[str, Task]) -> Segmenter:
    """Builds the model of a trial, initialized from `config.seed`; loads no weights."""
    if config.model not in MODELS:
        raise unknown_name("model", config.model, MODELS)
    assert config.backbone is not None
    backbone = build_backbone(
        config.backbone,
        width=config.width,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        output_stride=config.output_stride,
        seed=config.seed,
    )
    if config.freeze_batch_norm:
        backbone.freeze_batch_norm()
    heads = {
        name: MODELS[config.model](backbone, task.num_classes, dropout=config.dropout)
        for name, task in tasks.items()
    }
    for name, head in heads.items():
        initialize(head, config.seed, prefix=f"heads.{name}")
    return Segmenter(backbone, heads)
