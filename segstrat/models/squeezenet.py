"""SqueezeNet 1.1 backbone (Iandola et al. 2016, arXiv:1602.07360) on torchvision's Fire modules and names."""

import torch
from torch import nn
from torchvision.models.squeezenet import Fire

from segstrat.models.backbone import Backbone, scaled


class SqueezeNet(Backbone):
    """The last map at each of the strides 4, 8 and 16, where the network ends.

    Args:
        name: `squeezenet1_1`.
        width: multiplier on every channel count.
    """

    taps = (4, 7, 12)

    def __init__(self, name: str, width: float = 1.0) -> None:
        stem = scaled(64, width)
        expanded = [scaled(count, width) for count in (64, 64, 128, 128, 192, 192, 256, 256)]
        squeezed = [scaled(count, width) for count in (16, 16, 32, 32, 48, 48, 64, 64)]
        inputs = [stem, *(2 * count for count in expanded[:-1])]
        fires = [Fire(*counts, counts[2]) for counts in zip(inputs, squeezed, expanded, strict=True)]
        super().__init__(
            name,
            width,
            channels=(2 * expanded[1], 2 * expanded[3], 2 * expanded[7]),
            strides=(4, 8, 16),
            centers=(3, 7, 15),
            min_size=17,
        )
        self.features = nn.Sequential(
            nn.Conv2d(3, stem, kernel_size=3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
            *fires[:2],
            nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
            *fires[2:4],
            nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True),
            *fires[4:],
        )

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of the tapped layers."""
        x = images_BCHW
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps
