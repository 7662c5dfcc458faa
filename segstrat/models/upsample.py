"""Upsampling of score maps to pixels, with every cell at its position in the image."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class LearnableUpsample(nn.Module):
    """A transposed convolution between all pairs of channels, aligned with the image.

    It is computed as a 2×2 convolution and a pixel shuffle: an output block of stride × stride pixels sees
    only the 2×2 cells around it, each through its own quarter of the kernel. The map is that of
    `conv_transpose2d` with the same weight, up to rounding. The border cells are replicated outwards, so that
    scores do not fade towards the edge of the image.

    Args:
        channels: of both the input and the output.
        stride: output pixels per cell.
        center: output pixel on which the first cell is centered; by default cells tile the output. Accurate
            to half a pixel, since the crop is a whole number.
        kernel_size: 2·stride, or 2·stride − 1 for cells that are centered on a pixel.

    Attributes:
        weight: (channels, channels, kernel_size, kernel_size), in the order of `nn.ConvTranspose2d`; starts
            as bilinear interpolation (Long et al. 2015, arXiv:1411.4038, §3.3), see `bilinear_kernel`.
    """

    def __init__(
        self, channels: int, stride: int, center: float | None = None, kernel_size: int | None = None
    ) -> None:
        super().__init__()
        self.stride = stride
        self.kernel_size = kernel_size or 2 * stride
        if self.kernel_size not in (2 * stride, 2 * stride - 1):
            raise ValueError(f"kernel_size {kernel_size}: expected {2 * stride} or {2 * stride - 1}")
        self.weight = nn.Parameter(torch.empty(channels, channels, self.kernel_size, self.kernel_size))
        center = (stride - 1) / 2 if center is None else center
        # Uncropped, the transposed convolution centers its first cell on pixel (kernel_size − 1) / 2.
        self.crop = math.ceil((self.kernel_size - 1) / 2 - center)
        if not 0 <= self.crop <= stride:
            raise ValueError(f"center {center} is more than a cell away from the first pixel")

    def forward(self, scores_BChw: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Scores (B, C, *size) of pixels from those of cells; `size` is the region from pixel 0 on."""
        stride, channels = self.stride, self.weight.shape[1]
        # Where a whole block would be cropped away, no cells are needed before the first.
        before = 0 if self.crop == stride else 1
        crop = self.crop % stride
        total = _cells_for(size, crop, stride)
        rows, columns = total[0] - 1, total[1] - 1
        around: torch.Tensor = _Surroundings.apply(scores_BChw, before, total)
        blocks = around @ self._quarters()
        # (B, row, column, C, y in block, x in block) -> (B, C, H, W)
        blocks = blocks.unflatten(-1, (channels, stride, stride)).permute(0, 3, 1, 4, 2, 5)
        pixels = blocks.reshape(-1, channels, rows * stride, columns * stride)
        if pixels.shape[-2:] == size:
            return pixels
        return pixels[..., crop : crop + size[0], crop : crop + size[1]]

    def _quarters(self) -> torch.Tensor:
        """The kernel as a matrix (C_in · 4 quarters, C_out · stride · stride)."""
        stride = self.stride
        weight: torch.Tensor = self.weight
        missing = 2 * stride - self.kernel_size
        if missing:
            weight = F.pad(weight, (0, missing, 0, missing))
        halves = weight.unflatten(3, (2, stride)).unflatten(2, (2, stride))
        return halves.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).flatten(1)

    def extra_repr(self) -> str:
        """Shown in `repr`."""
        return (
            f"{self.weight.shape[0]}, stride={self.stride}, kernel_size={self.kernel_size}, crop={self.crop}"
        )


def bilinear_kernel(channels: int, kernel_size: int) -> torch.Tensor:
    """Weight (channels, channels, kernel_size, kernel_size) that interpolates each channel by itself."""
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 else factor - 0.5
    line = 1 - (torch.arange(kernel_size) - center).abs() / factor
    return torch.eye(channels)[:, :, None, None] * torch.outer(line, line)


def bilinear_upsample(
    scores_BChw: torch.Tensor, size: tuple[int, int], stride: int, center: float
) -> torch.Tensor:
    """Fixed bilinear interpolation to (B, C, *size); `stride` and `center` as for `LearnableUpsample`."""
    # `interpolate` centers its first cell on pixel (stride − 1) / 2; one more cell precedes it.
    crop = stride + math.ceil((stride - 1) / 2 - center)
    # Classes outermost: the loss over channels-last logits takes more than twice the time on a CPU.
    cells = _extend(scores_BChw, 1, _cells_for(size, crop, stride)).contiguous()
    pixels = F.interpolate(cells, scale_factor=stride, mode="bilinear", align_corners=False)
    return pixels[..., crop : crop + size[0], crop : crop + size[1]]


class _Surroundings(torch.autograd.Function):
    """The 2×2 cells around each block, as rows of a matrix; cells beyond the border repeat those at it.

    Automatic differentiation would fill a whole map with zeros for each of the dozen slices, and add them up.
    The sums here have the same order.
    """

    @staticmethod
    def forward(ctx: Any, scores_BChw: torch.Tensor, before: int, total: tuple[int, int]) -> torch.Tensor:
        """(B, rows, columns, C · 4 quarters), of `total` − 1 rows and columns; arguments as of `_extend`."""
        ctx.size, ctx.before = scores_BChw.shape[2:], before
        cells = _extend(scores_BChw, before, total)
        around = cells.new_empty(len(cells), total[0] - 1, total[1] - 1, cells.shape[1], 4)
        for quarter, (rows, columns) in enumerate(_taps(total)):
            around[..., quarter] = cells[:, :, rows, columns].permute(0, 2, 3, 1)
        return around.flatten(3)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient of the scores."""
        images, rows, columns = gradient.shape[:3]
        total = (rows + 1, columns + 1)
        around = gradient.unflatten(3, (-1, 4)).permute(0, 3, 1, 2, 4)
        cells = around.new_zeros(images, around.shape[1], *total)
        for quarter, (in_rows, in_columns) in reversed(list(enumerate(_taps(total)))):
            cells[:, :, in_rows, in_columns] += around[..., quarter]
        for axis, count in ((3, ctx.size[1]), (2, ctx.size[0])):
            cells = _folded(cells, axis, count, ctx.before)
        return cells, None, None


def _taps(total: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of the cells in each quarter of the kernel.

    Block m meets cell m with the second half of the kernel, and cell m + 1 with the first.
    """
    halves = [[slice(1, count), slice(0, count - 1)] for count in total]
    return list(itertools.product(*halves))


def _folded(gradient: torch.Tensor, axis: int, count: int, before: int) -> torch.Tensor:
    """The gradient of `count` cells from that of the extended map; the reverse of `_extend`."""
    behind = gradient.shape[axis] - before - count
    if behind < 0:  # the last cells were cropped
        shape = list(gradient.shape)
        shape[axis] = -behind
        gradient = torch.cat([gradient, gradient.new_zeros(shape)], axis)
    if not before and behind <= 0:
        return gradient
    parts = gradient.split([before, count, max(behind, 0)], axis)
    own = parts[1].clone(memory_format=torch.contiguous_format)
    if behind > 0:
        last, *others = parts[2].unbind(axis)
        for other in others:
            last = last + other
        own.select(axis, count - 1).add_(last)
    for first in parts[0].unbind(axis):
        own.select(axis, 0).add_(first)
    return own


def _cells_for(size: tuple[int, int], crop: int, stride: int) -> tuple[int, int]:
    """Rows and columns of cells that surround `size` pixels, of which the first is pixel `crop`."""
    return math.ceil((crop + size[0]) / stride) + 1, math.ceil((crop + size[1]) / stride) + 1


def _extend(maps_BChw: torch.Tensor, before: int, total: tuple[int, int]) -> torch.Tensor:
    """Replicates border cells: `before` cells before, the rest of `total` after; crops the excess."""
    # Concatenation, as the gradient of replication padding is not deterministic on CUDA.
    for axis, count in enumerate(total, start=2):
        behind = count - before - maps_BChw.shape[axis]
        first, last = maps_BChw.narrow(axis, 0, 1), maps_BChw.narrow(axis, maps_BChw.shape[axis] - 1, 1)
        parts = [first] * before + [maps_BChw] + [last] * max(behind, 0)
        if len(parts) > 1:
            maps_BChw = torch.cat(parts, axis)
        maps_BChw = maps_BChw.narrow(axis, 0, count)
    return maps_BChw
