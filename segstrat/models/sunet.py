"""Stacked U-Nets (Shah et al. 2018, arXiv:1804.10343; thesis §4.3): SUNet-64, -128 and -7-128."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from segstrat.errors import UserError
from segstrat.models.backbone import Backbone, linear_drop_rates, scaled
from segstrat.models.upsample import bilinear_upsample

BATCH_NORM_MOMENTUM = 0.01


@dataclass(frozen=True)
class Layout:
    """Modules per stage, inner width N of a module, and output channels per stage."""

    counts: tuple[int, int, int, int]
    inner: int
    outputs: tuple[int, int, int, int]


# Table 4.1 of the thesis prints 4 modules for the last stage; the parameter counts, the 112 layers and the
# name of the authors' checkpoint (2441) say 1.
LAYOUTS = {
    "sunet64": Layout((2, 4, 4, 1), 64, (256, 512, 768, 1024)),
    "sunet128": Layout((2, 4, 4, 1), 128, (512, 1024, 1536, 2048)),
    "sunet7128": Layout((2, 7, 7, 1), 128, (512, 1280, 2048, 2304)),
}
LEVELS = (2, 2, 2, 1)  # encoder/decoder levels of a stage's modules
STRIDE_CENTERS = {8: 2, 16: 6, 32: 14}  # each 2×2 pool moves the first cell by half a cell


class SUNet(Backbone):
    """Stem, a residual block, four stages of U-Net modules, then batch norm and ReLU: one map.

    Args:
        name: key of `LAYOUTS`.
        width: multiplier on every channel count.
        dropout: probability after every convolution of the residual block and the modules, but not after the
            stem and the 1×1 projections of shortcuts, as published; 0 builds none.
        stochastic_depth: drop probability of the last module's residual branch; 0 builds none.
        output_stride: 8, 16 (default) or 32. Pools and strides beyond it are replaced by dilation.
    """

    classifier = "linear."
    options = ("dropout", "stochastic_depth", "output_stride")

    def __init__(
        self,
        name: str,
        width: float = 1.0,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        output_stride: int | None = None,
    ) -> None:
        layout = LAYOUTS[name]
        stride = output_stride or 16
        if stride not in STRIDE_CENTERS:
            raise UserError(f"output_stride={stride}: {name} has 8, 16 or 32")
        inner = scaled(layout.inner, width)
        outputs = [scaled(count, width) for count in layout.outputs]
        super().__init__(
            name, width, channels=(outputs[-1],), strides=(stride,), centers=(STRIDE_CENTERS[stride],)
        )
        rates = linear_drop_rates(stochastic_depth, 1 + sum(layout.counts))
        channels = scaled(64, width)
        self.stem = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3)
        self.residual = ResidualBlock(channels, 2 * channels, dropout, rates.pop(0))
        channels *= 2
        self.stages = nn.ModuleList()
        reached = 4
        dilation = 1
        for count, levels, output in zip(layout.counts, LEVELS, outputs, strict=True):
            stage = nn.Sequential()
            for _ in range(count):
                stage.append(UNetModule(channels, inner, output, levels, dilation, dropout, rates.pop(0)))
                channels = output
            self.stages.append(stage)
            if reached < stride:
                reached *= 2
            else:
                dilation *= 2
        self.pool = nn.AvgPool2d(2)
        self.pools = (stride // 4).bit_length() - 1
        self.norm = _batch_norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """The one feature map."""
        x = self.residual(self.stem(images_BCHW))
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index < self.pools:
                x = self.pool(x)
        return [self.relu(self.norm(x))]

    def translate(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict of the authors' ImageNet network in the names used here, without its linear layer."""
        state = super().translate(state)
        return {
            _own_name(name) if name.startswith("features.") else name: value for name, value in state.items()
        }


class ResidualBlock(nn.Module):
    """Pre-activation block of stride 2, whose shortcut is a 1×1 convolution of the activated input."""

    def __init__(self, inputs: int, outputs: int, dropout: float, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = _batch_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)
        self.norm2 = _batch_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)
        self.projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = _dropout(dropout)
        self.stochastic_depth = _stochastic_depth(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, ⌈H/2⌉, ⌈W/2⌉)."""
        x = self.relu(self.norm1(x))
        branch = self.dropout(self.conv1(x))
        branch = self.dropout(self.conv2(self.relu(self.norm2(branch))))
        return self.stochastic_depth(branch) + self.projection(x)


class UNetModule(nn.Module):
    """A small U-Net on a residual branch: 1×1 reduce, encoder, decoder with skips, 1×1 expand.

    Args:
        inputs: channels of the input.
        inner: channels within the module.
        outputs: channels of the output; where they differ from `inputs`, the shortcut is a 1×1 projection
            of the activated input.
        levels: encoder/decoder pairs.
        dilation: 1 for strided levels; otherwise the factor by which the map is finer than that of the
            strided module, and no level is strided.
        dropout: probability after every convolution of the branch.
        drop_rate: probability of dropping the branch.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        levels: int,
        dilation: int,
        dropout: float,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.norm = _batch_norm(inputs)
        self.reduce = nn.Conv2d(inputs, inner, kernel_size=1)
        # Each strided level would double the spacing of its cells.
        spacings = [dilation * 2**level if dilation > 1 else 0 for level in range(levels)]
        self.down = nn.ModuleList(Down(inner, spacing, dropout) for spacing in spacings)
        self.up = nn.ModuleList(
            Up(inner if level == levels - 1 else 2 * inner, inner, spacing, dropout)
            for level, spacing in enumerate(spacings)
        )
        self.norm_out = _batch_norm(inner)
        self.expand = nn.Conv2d(inner, outputs, kernel_size=1)
        self.projection = nn.Conv2d(inputs, outputs, kernel_size=1) if inputs != outputs else None
        self.relu = nn.ReLU(inplace=True)
        self.dropout = _dropout(dropout)
        self.stochastic_depth = _stochastic_depth(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        active = self.relu(self.norm(x))
        branch = self.dropout(self.reduce(active))
        sizes, skips = [], []
        for down in self.down:
            sizes.append(branch.shape[-2:])
            branch = down(branch)
            skips.append(branch)
        skips.pop()
        for up, size in zip(reversed(self.up), reversed(sizes), strict=True):
            branch = up(branch, size)
            if skips:
                branch = torch.cat([branch, skips.pop()], 1)
        branch = self.dropout(self.expand(self.relu(self.norm_out(branch))))
        return self.stochastic_depth(branch) + (x if self.projection is None else self.projection(active))


class Down(nn.Module):
    """Encoder level: a 3×3 convolution of stride 2, then one of stride 1; both dilated if `spacing` > 0."""

    def __init__(self, channels: int, spacing: int, dropout: float) -> None:
        super().__init__()
        stride, first, second = (1, spacing, 2 * spacing) if spacing else (2, 1, 1)
        self.norm1 = _batch_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=first, dilation=first)
        self.norm2 = _batch_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=second, dilation=second)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = _dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C, ⌈H/2⌉, ⌈W/2⌉), or to the same size where it is dilated."""
        x = self.dropout(self.conv1(self.relu(self.norm1(x))))
        return self.dropout(self.conv2(self.relu(self.norm2(x))))


class Up(nn.Module):
    """Decoder level: a 3×3 transposed convolution of stride 2, then a 3×3 convolution; or both dilated."""

    def __init__(self, inputs: int, channels: int, spacing: int, dropout: float) -> None:
        super().__init__()
        stride, first, second = (1, 2 * spacing, spacing) if spacing else (2, 1, 1)
        self.norm1 = _batch_norm(inputs)
        self.conv1 = nn.ConvTranspose2d(inputs, channels, 3, stride, padding=first, dilation=first)
        self.norm2 = _batch_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=second, dilation=second)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = _dropout(dropout)

    def forward(self, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """(B, inputs, h, w) to (B, channels, *size), the size before the matching encoder level."""
        x = self.dropout(self.conv1(self.relu(self.norm1(x)), output_size=list(size)))
        return self.dropout(self.conv2(self.relu(self.norm2(x))))


class DegriddingHead(nn.Module):
    """Two 3×3 convolutions, the first dilated, smooth the grid artifacts of dilation (Yu et al. 2017).

    Args:
        backbone: provides the map.
        num_classes: of the task.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        hidden = scaled(512, backbone.width)
        self.stride, self.center = backbone.strides[-1], backbone.centers[-1]
        self.layers = nn.Sequential(
            nn.Conv2d(backbone.channels[-1], hidden, kernel_size=3, padding=2, dilation=2),
            _batch_norm(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, kernel_size=3, padding=1),
            _batch_norm(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, num_classes, kernel_size=1),
        )

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits (B, num_classes, *size) from the backbone's map, bilinearly interpolated."""
        return bilinear_upsample(self.layers(features[-1]), size, self.stride, self.center)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=BATCH_NORM_MOMENTUM)


def _dropout(rate: float) -> nn.Module:
    return nn.Dropout(rate) if rate > 0 else nn.Identity()


def _stochastic_depth(rate: float) -> nn.Module:
    return StochasticDepth(rate, mode="row") if rate > 0 else nn.Identity()


# The authors' names, in the order in which they are tried, and the names used here.
_RENAMED = [
    (r"features\.conv1\.", "stem."),
    (r"features\.residual1\.bn\.0\.", "residual.norm1."),
    (r"features\.residual1\.conv\.0\.", "residual.conv1."),
    (r"features\.residual1\.conv\.2\.", "residual.norm2."),
    (r"features\.residual1\.conv\.4\.", "residual.conv2."),
    (r"features\.residual1\.shortcut\.0\.", "residual.projection."),
    (r"features\.bn2\.", "norm."),
    (r"\.(bn|down\.0)\.bn0\.", ".norm."),
    (r"\.upsample\.conv0\.", ".projection."),
    (r"\.down\.0\.conv0\.", ".reduce."),
    (r"\.up\.0\.bn2\.", ".norm_out."),
    (r"\.up\.0\.conv2\.", ".expand."),
    (r"(\.down\.\d)\.bn(\d)\.", r"\1.norm\2."),
    (r"(\.up\.\d)\.bn0\.", r"\1.norm1."),
    (r"(\.up\.\d)\.bn1\.", r"\1.norm2."),
    (r"(\.up\.\d)\.deconv0\.", r"\1.conv1."),
    (r"(\.up\.\d)\.deconv1\.", r"\1.conv2."),
]


def _own_name(name: str) -> str:
    """The name used here of a parameter of the authors' network; an unknown name is kept."""
    for pattern, replacement in _RENAMED:
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return re.sub(r"features\.unet(\d)_(\d)\.", lambda match: f"stages.{int(match[1]) - 1}.{match[2]}.", name)
