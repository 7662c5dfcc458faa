"""Training batches from a decoded training set in device memory, augmented there: only placements are copied.

The placements and the meaning of every step are those of `segstrat.data.loading.augment`. The pixels differ
by rounding and at the edges of the images, so that a trial is comparable with, but not bit-identical to, one
that reads from the host.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from segstrat.data.dataset import VOID, Dataset
from segstrat.data.loading.augment import Placement, low_pass
from segstrat.data.loading.batch import Batch, make_batch
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.errors import UserError
from segstrat.parallel import parallel_map

_AHEAD = 3


class DeviceTrainLoader(TrainLoader):
    """Like `TrainLoader`, with the whole training set in device memory.

    Every image is stored at the size of the largest, which suits data sets of similar image sizes.

    Args:
        free_share: most of the memory that this process may still allocate that the images may take.

    Raises:
        UserError: if the images need more.
    """

    def __init__(self, dataset: Dataset, *, free_share: float = 0.5, **arguments: Any) -> None:
        super().__init__(dataset, **arguments)
        self._sizes = [dataset.image_size(index) for index in range(len(dataset))]
        self._labelled = [dataset.tasks_of(index) for index in range(len(dataset))]
        height, width = (max(sides) for sides in zip(*self._sizes, strict=True))
        shape = (len(dataset), 3 + len(self.tasks), height, width)
        _check_fit(math.prod(shape), self.device, free_share)
        # Channels: RGB, then VOID − label of each task; so 0 is black, and void.
        self._pixels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        for index, (rows, columns) in enumerate(self._sizes):
            sample = dataset.read(index)
            pixels = self._pixels[index, :, :rows, :columns]
            pixels[:3] = torch.tensor(sample.image, device=self.device).permute(2, 0, 1)
            for channel, task in enumerate(self.tasks, start=3):
                if task in sample.labels:
                    pixels[channel] = VOID - torch.tensor(sample.labels[task], device=self.device)
        self._tables = {
            task: torch.from_numpy(table).to(self.device)
            for task, table in self.mirrored.items()
            if table is not None
        }
        self._taps = len(low_pass(0.5**self.augmentation)) if self.augmentation else 1

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; each in new memory."""
        self.wait_seconds = 0.0
        batches = self.share(epoch)

        def plan(indices: np.ndarray) -> _Warp:
            return self._plan(indices.tolist(), epoch)

        with closing(parallel_map(plan, batches, threads=1, ahead=_AHEAD)) as warps:
            for indices in batches:
                start = perf_counter()
                warp = next(warps)
                self.wait_seconds += perf_counter() - start
                images, labels = self._crops(warp)
                labelled = [self._labelled[index] for index in indices]
                yield make_batch(images, labels, labelled, [self.dataset.ids[i] for i in indices])

    def _plan(self, indices: list[int], epoch: int) -> "_Warp":
        """Everything about a batch that is computed on the host."""
        placements = [self.placement(index, self._sizes[index], epoch) for index in indices]
        kernels = np.zeros((len(indices), self._taps), np.float32)
        maps = np.empty((len(indices), 2, 3), np.float32)
        stored = (self._pixels.shape[2], self._pixels.shape[3])
        for row, (index, placement) in enumerate(zip(indices, placements, strict=True)):
            size = self._sizes[index]
            scale = placement.scale(size)
            kernel = low_pass(scale) if scale < 1 else np.ones(1, np.float32)
            margin = (self._taps - len(kernel)) // 2
            kernels[row, margin : margin + len(kernel)] = kernel
            maps[row] = _sampling_map(placement, size, stored, self.crop_size)
        angles = np.radians([placement.degrees for placement in placements])
        return _Warp(
            indices=self._send(np.array(indices)),
            kernels=self._send(kernels),
            maps=self._send(maps),
            cosines=self._send(np.cos(angles).astype(np.float32)),
            sines=self._send(np.sin(angles).astype(np.float32)),
            flips=self._send(np.array([placement.flip for placement in placements])),
        )

    def _send(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _crops(self, warp: "_Warp") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Images (B, 3, S, S) and label maps (B, S, S) of a batch."""
        pixels = self._pixels[warp.indices].float()
        shape = [len(pixels), pixels.shape[1], self.crop_size, self.crop_size]
        grid = F.affine_grid(warp.maps, shape, align_corners=False)
        covered = _covered(warp, self.crop_size)[:, None]
        smooth = _smoothed(pixels[:, :3], warp.kernels)
        images = F.grid_sample(smooth, grid, mode="bilinear", align_corners=False)
        images = (images * covered + 0.5).to(torch.uint8)
        maps = F.grid_sample(pixels[:, 3:], grid, mode="nearest", align_corners=False)
        maps = (VOID - maps * covered).to(torch.uint8)
        labels = dict(zip(self.tasks, maps.unbind(1), strict=True))
        for task, table in self._tables.items():
            renamed = table[labels[task].long()]
            labels[task] = torch.where(warp.flips[:, None, None], renamed, labels[task])
        return images.contiguous(memory_format=torch.channels_last), labels


@dataclass(frozen=True)
class _Warp:
    """Placements of a batch, on the device.

    Args:
        indices: (B,) of the images.
        kernels: (B, taps) smoothing along either axis.
        maps: (B, 2, 3) crop to stored image, in the coordinates of `F.affine_grid`.
        cosines: (B,) of the rotations.
        sines: (B,).
        flips: (B,) bool.
    """

    indices: torch.Tensor
    kernels: torch.Tensor
    maps: torch.Tensor
    cosines: torch.Tensor
    sines: torch.Tensor
    flips: torch.Tensor


def _sampling_map(
    placement: Placement, size: tuple[int, int], stored: tuple[int, int], crop_size: int
) -> np.ndarray:
    """Affine map (2, 3) from the crop to the stored image; the edges of both have coordinates −1 and 1."""
    last = [0.0, 0.0, 1.0]
    to_crop = np.vstack([placement.matrix(size, crop_size), last])
    half, centre = crop_size / 2, (crop_size - 1) / 2
    pixels = np.array([[half, 0, centre], [0, half, centre], last])
    height, width = stored
    units = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], last])
    return (units @ np.linalg.inv(to_crop) @ pixels)[:2]


def _smoothed(images_BCHW: torch.Tensor, kernels_BK: torch.Tensor) -> torch.Tensor:
    """Each image (C, H, W) smoothed with its own kernel along both axes."""
    batch, channels, height, width = images_BCHW.shape
    taps = kernels_BK.shape[1]
    if taps == 1:
        return images_BCHW
    planes = images_BCHW.reshape(1, batch * channels, height, width)
    weights = kernels_BK.repeat_interleave(channels, 0)
    groups, margin = batch * channels, taps // 2
    planes = F.pad(planes, (margin, margin, margin, margin), mode="reflect")
    planes = F.conv2d(planes, weights.view(groups, 1, taps, 1), groups=groups)
    planes = F.conv2d(planes, weights.view(groups, 1, 1, taps), groups=groups)
    return planes.view(batch, channels, height, width)


def _covered(warp: _Warp, crop_size: int) -> torch.Tensor:
    """(B, S, S) bool: pixels that the rotated crop covers."""
    axis = torch.arange(crop_size, device=warp.cosines.device) - (crop_size - 1) / 2
    x, y = axis[None, None, :], axis[None, :, None]
    cosines, sines = warp.cosines[:, None, None], warp.sines[:, None, None]
    half = crop_size / 2
    return ((cosines * x - sines * y).abs() <= half) & ((sines * x + cosines * y).abs() <= half)


def _check_fit(needed: int, device: torch.device, share: float) -> None:
    if device.type != "cuda":
        return
    # What an earlier trial of this process left in torch's allocator counts as used until it is given back.
    torch.cuda.empty_cache()
    on_device, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total) - reserved
    free = min(on_device, allowed) + reserved - torch.cuda.memory_allocated(device)
    if needed > share * free:
        raise UserError(
            f"the training set takes {needed / 1e9:.1f} GB, more than {share:.0%} of the "
            f"{free / 1e9:.1f} GB that this process may still allocate on {device}; run without the device "
            "cache"
        )
