"""Networks: builds the models and backbones that `segstrat.config` names."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from segstrat.config import BACKBONES, FCN_STRIDES, MODELS, TIMM_PREFIX, TrialConfig
from segstrat.errors import UserError, unknown_name
from segstrat.models.backbone import Backbone
from segstrat.models.fcn import FCNHead
from segstrat.models.initialize import constructing, initialize
from segstrat.models.resnet import ResNet
from segstrat.models.segmenter import Segmenter
from segstrat.models.squeezenet import SqueezeNet
from segstrat.models.sunet import DegriddingHead, SUNet
from segstrat.models.timm_backbone import TimmBackbone
from segstrat.models.vgg import VGG, AlexNet
from segstrat.tasks import Task

FAMILIES: dict[str, type[Backbone]] = {
    "resnet": ResNet,
    "vgg": VGG,
    "alexnet": AlexNet,
    "squeezenet": SqueezeNet,
    "sunet": SUNet,
}
"""Class of each family of backbones in `segstrat.config.BACKBONES`."""


def make_head(model: str, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> nn.Module:
    """The head that makes a backbone a model of that name.

    Args:
        model: one of `segstrat.config.MODELS`.
        dropout: of an FCN head; a SUNet has all its dropout in the backbone.
    """
    if model in FCN_STRIDES:
        if len(backbone.strides) == 1 and (fitting := _fcn_of_one_map(backbone.strides[0])) != model:
            raise UserError(
                f"{backbone.name} has one map, of stride {backbone.strides[0]}, and {model} cannot use it; "
                f"choose the model {fitting}"
            )
        return FCNHead(backbone, num_classes, FCN_STRIDES[model], dropout)
    return DegriddingHead(backbone, num_classes)


def _fcn_of_one_map(stride: int) -> str:
    """The FCN of the next larger stride: FCN-16s for the usual 14 and 16 of a vision transformer."""
    return min(FCN_STRIDES, key=lambda model: (FCN_STRIDES[model] < stride, FCN_STRIDES[model]))


def build_model(config: TrialConfig, tasks: Mapping[str, Task]) -> Segmenter:
    """Builds and initializes the model of a trial; weights are loaded afterwards, by `load_pretrained`.

    The initial value of every parameter depends on `config.seed` and its name alone, see `initialize`.

    Args:
        config: its model, backbone and regularizer fields are used.
        tasks: a head is built for each.

    Raises:
        UserError: for a combination that would leave a field without effect, or a layer that does not set
            all of its values.
    """
    model = assemble_model(config, tasks)
    initialize(model, config.seed)
    return model


def assemble_model(config: TrialConfig, tasks: Mapping[str, Task]) -> Segmenter:
    """The modules of `build_model` before `initialize`; on the meta device, their shapes alone."""
    if config.model not in MODELS:
        raise unknown_name("model", config.model, MODELS)
    with constructing(config.seed, "backbone"):
        backbone = assemble_backbone(
            config.backbone or "",
            config.width,
            dropout=config.dropout,
            stochastic_depth=config.stochastic_depth,
            output_stride=config.output_stride,
        )
    if config.freeze_batch_norm:
        backbone.freeze_batch_norm()
    heads = {}
    for name, task in tasks.items():
        with constructing(config.seed, f"heads.{name}"):
            heads[name] = make_head(config.model, backbone, task.num_classes, config.dropout)
    return Segmenter(backbone, heads)


def build_backbone(
    name: str,
    width: float = 1.0,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    output_stride: int | None = None,
    seed: int = 0,
) -> Backbone:
    """Builds and initializes a backbone alone, with its values in a model of that seed.

    Args:
        name: key of `BACKBONES`, or `timm/<name>`.
        width: multiplier on its channel counts.
        dropout: probability inside the backbone; of VGG, AlexNet and SUNet. Others have theirs in the head.
        stochastic_depth: drop probability of the last residual branch; of ResNet, SUNet and timm.
        output_stride: of SUNet: 8, 16 or 32.
        seed: of the initial values.

    Raises:
        UserError: for an unknown name, an option that the backbone does not have, or a layer that does not
            set all of its values.
    """
    with constructing(seed, "backbone"):
        backbone = assemble_backbone(
            name, width, dropout=dropout, stochastic_depth=stochastic_depth, output_stride=output_stride
        )
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
    """The modules of `build_backbone` before `initialize`; on the meta device, their shapes alone."""
    if name not in BACKBONES and not name.startswith(TIMM_PREFIX):
        raise unknown_name("backbone", name, (*BACKBONES, f"{TIMM_PREFIX}<name>"))
    kind = TimmBackbone if name not in BACKBONES else FAMILIES[BACKBONES[name]]
    given: dict[str, Any] = {
        "dropout": dropout,
        "stochastic_depth": stochastic_depth,
        "output_stride": output_stride,
    }
    for option, value in given.items():
        # Where a backbone has no dropout, its head has.
        if value and option not in kind.options and option != "dropout":
            others = [key for key, family in BACKBONES.items() if option in FAMILIES[family].options]
            raise UserError(
                f"{option}={value}: {name} has none; leave it out or choose one of {', '.join(others)}"
            )
    return kind(name, width, **{option: given[option] for option in kind.options})
