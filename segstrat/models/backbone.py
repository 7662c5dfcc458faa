"""`Backbone`: a convolutional network that gives feature maps and their positions in the image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segstrat.data.loading.batch import IMAGENET, Standardization
from segstrat.errors import UserError


class Backbone(nn.Module, ABC):
    """Base of all backbones; `forward` takes normalized images and gives maps from fine to coarse.

    A subclass sets, before its modules, through `__init__`:

    Args:
        name: key in `BACKBONES`.
        width: multiplier that scaled its channel counts.
        channels: channels of each map.
        strides: input pixels per cell of each map.
        centers: pixel index on which the first cell of each map is centered. It is 0 where every layer pads
            by half its kernel, (stride − 1) / 2 where 2×2 pools tile the image. Upsampling needs it.
        min_size: smallest input side for which every map has a cell.
        multiple: pixels that a side must be a multiple of, for the centers to be as stated.
        standardization: mean and deviation of the images.
    """

    classifier = "classifier."
    """Prefix of the names of the published network's classifier."""
    options: tuple[str, ...] = ()
    """Arguments of its constructor besides name and width."""
    keeps_constructed_values = False
    """Whether `initialize` leaves all its values as the constructor draws them, from (seed, `backbone`)."""

    def __init__(
        self,
        name: str,
        width: float,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        centers: tuple[float, ...],
        min_size: int = 1,
        multiple: int = 1,
        standardization: Standardization = IMAGENET,
    ) -> None:
        super().__init__()
        self.name = name
        self.width = width
        self.channels = channels
        self.strides = strides
        self.centers = centers
        self.min_size = min_size
        self.multiple = multiple
        self.standardization = standardization
        self._batch_norm_frozen = False

    @abstractmethod
    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps (B, channels[i], ~H / strides[i], ~W / strides[i]), the coarsest last."""

    def padded(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalized images, padded right and below with the mean color to a size that it takes."""
        sides = [max(side, self.min_size) for side in images_BCHW.shape[-2:]]
        below, right = (
            -(-wanted // self.multiple) * self.multiple - side
            for wanted, side in zip(sides, images_BCHW.shape[-2:], strict=True)
        )
        return F.pad(images_BCHW, (0, right, 0, below)) if below or right else images_BCHW

    def translate(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A published state dict in this backbone's names and shapes, without the published classifier."""
        return {name: value for name, value in state.items() if not name.startswith(self.classifier)}

    def batch_norms(self) -> Iterator[nn.Module]:
        """Its batch-norm layers of any kind, in order; on several GPUs they are `SyncBatchNorm`."""
        return (module for module in self.modules() if isinstance(module, _BatchNorm))

    def freeze_batch_norm(self) -> None:
        """Keeps statistics and affine parameters of every batch norm as they are, also in train mode.

        Raises:
            UserError: if the backbone has no batch norm, so that freezing it would have no effect.
        """
        if not any(True for _ in self.batch_norms()):
            raise UserError(f"freeze_batch_norm: {self.name} has no batch normalization; leave it false")
        self._batch_norm_frozen = True
        for norm in self.batch_norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self._batch_norm_frozen:
            for norm in self.batch_norms():
                norm.eval()
        return self


def scaled(channels: int, width: float) -> int:
    """A channel count times the width multiplier, rounded, at least 1."""
    return max(1, round(channels * width))


def linear_drop_rates(last: float, count: int) -> list[float]:
    """Drop probability of each residual branch: l/L · `last` (Huang et al. 2016, arXiv:1603.09382, Eq. 4)."""
    return [last * (index + 1) / count for index in range(count)]
