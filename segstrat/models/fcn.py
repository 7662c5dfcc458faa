"""Fully convolutional head (Long et al. 2015, arXiv:1411.4038; thesis §4.2): FCN-32s, -16s and -8s."""

from collections.abc import Sequence

import torch
from torch import nn

from segstrat.errors import UserError
from segstrat.models.backbone import Backbone
from segstrat.models.initialize import ScoreLayer
from segstrat.models.upsample import LearnableUpsample


class FCNHead(nn.Module):
    """Scores the coarsest map, adds the scores of finer ones on the way up, and upsamples to pixels.

    Args:
        backbone: provides maps at strides 8, 16 and 32, or up to 16; or a single map, which is used alone.
        num_classes: of the task.
        stride: of the finest map that is used: 32, 16 or 8.
        dropout: probability before the coarsest score layer; 0 builds no dropout.
    """

    def __init__(self, backbone: Backbone, num_classes: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        maps = list(zip(backbone.strides, backbone.centers, backbone.channels, strict=True))
        self.pool = None
        if len(maps) > 1 and backbone.strides[-1] == 16:
            # SqueezeNet ends at stride 16: one more pool of the same kind gives the coarsest map.
            self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            maps.append((32, backbone.centers[-1], backbone.channels[-1]))
        self.levels = [level for level in reversed(range(len(maps))) if maps[level][0] >= stride] or [0]
        strides, centers, channels = zip(*(maps[level] for level in self.levels), strict=True)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.score = nn.ModuleList(ScoreLayer(count, num_classes) for count in channels)
        self.fuse = nn.ModuleList()
        for index in range(1, len(self.levels)):
            # Cells of the coarse map are centered on cells of the finer one, or halfway between them.
            center = (centers[index - 1] - centers[index]) / strides[index]
            if 2 * center != int(2 * center):
                raise UserError(
                    f"{backbone.name}: cells at strides {strides[index - 1]} and {strides[index]} are not "
                    f"aligned with each other, so that their scores cannot be added; choose fcn32s"
                )
            kernel_size = 3 if center == int(center) else 4
            self.fuse.append(LearnableUpsample(num_classes, 2, center, kernel_size))
        self.upsample = LearnableUpsample(num_classes, strides[-1], centers[-1])

    def forward(self, features: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits (B, num_classes, *size) from the backbone's maps."""
        if self.pool is not None:
            features = [*features, self.pool(features[-1])]
        scores = self.score[0](self.dropout(features[self.levels[0]]))
        for level, score, fuse in zip(self.levels[1:], self.score[1:], self.fuse, strict=True):
            finer = score(features[level])
            scores = finer + fuse(scores, tuple(finer.shape[-2:]))
        return self.upsample(scores, size)
