"""VGG-16 and AlexNet backbones, whose fully connected layers fc6 and fc7 are convolutions.

They use torchvision's names and indices; `translate` reshapes its linear fc6 and fc7.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from segstrat.models.backbone import Backbone, scaled


class FullyConvolutional(Backbone):
    """Convolutional features, then fc6 and fc7 as convolutions (Long et al. 2015, §3.1).

    fc6 is padded so that its cells tile the image; a cell whose window is inside the image has the value
    that the classifier gives for that window. `dropout` is applied after fc6; the dropout after fc7 is that
    of the head, just before its score layer. 0 builds none.

    A subclass sets `features`, the indices `taps` of the layers whose output is a map, the kernel size of
    fc6, and which entries of torchvision's `classifier` are fc6 and fc7.
    """

    options = ("dropout",)
    features: nn.Sequential
    taps: tuple[int, ...]
    linear_layers: Mapping[str, str]

    def _add_fully_connected(self, inputs: int, kernel_size: int, dropout: float) -> None:
        hidden = self.channels[-1]
        self.fc6 = nn.Conv2d(inputs, hidden, kernel_size, padding=3)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of the tapped layers, then that of fc7."""
        x = images_BCHW
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        x = self.dropout(self.relu(self.fc6(x)))
        return [*maps, self.relu(self.fc7(x))]

    def translate(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A torchvision state dict with fc6 and fc7 as convolutions, without the last linear layer."""
        own = super().translate(state)
        for published, name in self.linear_layers.items():
            for kind in ("weight", "bias"):
                if (value := state.get(f"{published}.{kind}")) is not None:
                    target = getattr(getattr(self, name), kind)
                    # A row of the linear weight is the flattened (channel, row, column) window.
                    own[f"{name}.{kind}"] = (
                        value.reshape(target.shape) if value.numel() == target.numel() else value
                    )
        return own


class VGG(FullyConvolutional):
    """VGG-16 (Simonyan & Zisserman 2015), maps after its pools and after fc7: strides 2, 4, 8, 16, 32.

    Args:
        name: `vgg16` or `vgg16_bn`.
        width: multiplier on every channel count.
        dropout: probability after fc6.
    """

    linear_layers = {"classifier.0": "fc6", "classifier.3": "fc7"}  # noqa: RUF012 - a constant

    def __init__(self, name: str, width: float = 1.0, dropout: float = 0.0) -> None:
        layers = [value if value == "M" else scaled(int(value), width) for value in cfgs["D"]]
        pooled = [int(layers[index - 1]) for index, value in enumerate(layers) if value == "M"]
        super().__init__(
            name,
            width,
            channels=(*pooled[:4], scaled(4096, width)),
            strides=(2, 4, 8, 16, 32),
            centers=(0.5, 1.5, 3.5, 7.5, 15.5),
            min_size=32,
        )
        self.features = make_layers(layers, batch_norm=name == "vgg16_bn")
        pools = [index for index, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.taps = tuple(pools[:4])
        self._add_fully_connected(pooled[4], kernel_size=7, dropout=dropout)


class AlexNet(FullyConvolutional):
    """AlexNet (Krizhevsky 2014, arXiv:1404.5997), the last map at each of the strides 8, 16 and 32.

    Args:
        name: `alexnet`.
        width: multiplier on every channel count.
        dropout: probability after fc6.
    """

    linear_layers = {"classifier.1": "fc6", "classifier.4": "fc7"}  # noqa: RUF012 - a constant
    taps = (4, 11)

    def __init__(self, name: str, width: float = 1.0, dropout: float = 0.0) -> None:
        first, second, third, fourth, last = (scaled(count, width) for count in (64, 192, 384, 256, 256))
        super().__init__(
            name,
            width,
            channels=(second, last, scaled(4096, width)),
            strides=(8, 16, 32),
            centers=(7, 15, 15),
            min_size=63,
        )
        self.features = nn.Sequential(
            nn.Conv2d(3, first, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(first, second, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(second, third, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(third, fourth, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(fourth, last, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self._add_fully_connected(last, kernel_size=6, dropout=dropout)
