"""ResNet backbones (He et al. 2016) on torchvision's blocks and parameter names."""

from collections.abc import Iterator

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1
from torchvision.ops import StochasticDepth

from segstrat.models.backbone import Backbone, linear_drop_rates, scaled


class ResidualBlock(BasicBlock):
    """torchvision's two-layer block, whose residual branch can be dropped for an image."""

    def __init__(
        self, inputs: int, planes: int, stride: int, shortcut: nn.Module | None, rate: float
    ) -> None:
        super().__init__(inputs, planes, stride, shortcut)
        self.stochastic_depth = StochasticDepth(rate, mode="row") if rate > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, planes, H / stride, W / stride)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.stochastic_depth(self.bn2(self.conv2(branch)))
        return self.relu(branch + (x if self.downsample is None else self.downsample(x)))


class BottleneckBlock(Bottleneck):
    """torchvision's three-layer block, whose residual branch can be dropped for an image."""

    def __init__(
        self, inputs: int, planes: int, stride: int, shortcut: nn.Module | None, rate: float
    ) -> None:
        super().__init__(inputs, planes, stride, shortcut)
        self.stochastic_depth = StochasticDepth(rate, mode="row") if rate > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, 4 · planes, H / stride, W / stride)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.stochastic_depth(self.bn3(self.conv3(branch)))
        return self.relu(branch + (x if self.downsample is None else self.downsample(x)))


DEPTHS: dict[str, tuple[type[ResidualBlock] | type[BottleneckBlock], tuple[int, ...]]] = {
    "resnet18": (ResidualBlock, (2, 2, 2, 2)),
    "resnet34": (ResidualBlock, (3, 4, 6, 3)),
    "resnet50": (BottleneckBlock, (3, 4, 6, 3)),
    "resnet101": (BottleneckBlock, (3, 4, 23, 3)),
}


class ResNet(Backbone):
    """Maps of the four stages, at strides 4, 8, 16 and 32; no pooling after the last.

    Args:
        name: key of `DEPTHS`.
        width: multiplier on every channel count.
        stochastic_depth: drop probability of the last residual branch; 0 builds no such module.
    """

    classifier = "fc."
    options = ("stochastic_depth",)

    def __init__(self, name: str, width: float = 1.0, stochastic_depth: float = 0.0) -> None:
        block, counts = DEPTHS[name]
        planes = [scaled(64 * 2**stage, width) for stage in range(4)]
        channels = tuple(count * block.expansion for count in planes)
        super().__init__(name, width, channels, strides=(4, 8, 16, 32), centers=(0, 0, 0, 0))
        self.conv1 = nn.Conv2d(3, planes[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        rates = iter(linear_drop_rates(stochastic_depth, sum(counts)))
        self.layer1 = _stage(block, planes[0], planes[0], counts[0], 1, rates)
        self.layer2 = _stage(block, channels[0], planes[1], counts[1], 2, rates)
        self.layer3 = _stage(block, channels[1], planes[2], counts[2], 2, rates)
        self.layer4 = _stage(block, channels[2], planes[3], counts[3], 2, rates)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of the four stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images_BCHW))))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


def _stage(
    block: type[ResidualBlock] | type[BottleneckBlock],
    inputs: int,
    planes: int,
    count: int,
    stride: int,
    rates: Iterator[float],
) -> nn.Sequential:
    outputs = planes * block.expansion
    shortcut = None
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    blocks = [block(inputs, planes, stride, shortcut, next(rates))]
    blocks += [block(outputs, planes, 1, None, next(rates)) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
