"""The network that is pre-trained: a backbone under a linear classifier."""

import torch
from torch import nn

from segstrat.errors import UserError
from segstrat.models import build_backbone
from segstrat.models.backbone import Backbone
from segstrat.models.initialize import initialize
from segstrat.pretraining.recipe import Recipe


class Classifier(nn.Module):
    """A backbone, the mean over its coarsest map, and a linear layer."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes)."""
        return self.linear(self.backbone(images_BCHW)[-1].mean((2, 3)))


def build_classifier(backbone: str, width: float, num_classes: int, recipe: Recipe) -> Classifier:
    """A classifier; each parameter is initialized from (recipe.seed, its name).

    A SUNet is trained at output stride 32, without dilation, as published; its weights are valid for every
    stride.

    Raises:
        UserError: for an unknown backbone, or a width out of range.
    """
    if not 0 < width <= 4:
        raise UserError(f"width {width:g}: expected a number in (0, 4]; 1 is the published network")
    stride = 32 if backbone.startswith("sunet") else None
    network = build_backbone(backbone, width, dropout=recipe.dropout, output_stride=stride, seed=recipe.seed)
    model = Classifier(network, num_classes)
    initialize(model.linear, recipe.seed, prefix="linear")
    return model
