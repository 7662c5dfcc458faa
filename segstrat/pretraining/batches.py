"""Batches of classification images, prepared by threads in host memory that is ready to be copied."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
import torch

from segstrat.data.loading.batch import host_memory
from segstrat.parallel import parallel_map
from segstrat.pretraining.crops import center_crop, random_crop
from segstrat.pretraining.images import ImageFolder

_STREAM = 2
_BATCHES_AHEAD = 2
_CPU = torch.device("cpu")


def train_batches(
    images: ImageFolder,
    *,
    batch_size: int,
    crop_size: int,
    smallest_crop: float,
    seed: int,
    epoch: int,
    threads: int,
    device: torch.device = _CPU,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches of random crops, mirrored half of the time; a pure function of (seed, epoch).

    A last batch of a single image is dropped, because batch norm cannot train on it.

    Args:
        smallest_crop: smallest share of an image's area that a crop covers; the largest is all of it.
        device: where the batches will be copied to; for CUDA their memory is pinned.

    Yields:
        images (B, 3, crop_size, crop_size) uint8 RGB in channels-last order, and labels (B,) int64, both in
        host memory.
    """
    order = np.random.default_rng([seed, _STREAM, epoch]).permutation(len(images))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def crop(index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, _STREAM, epoch, index])
        return random_crop(images.read(index), crop_size, smallest_crop, rng)

    whole = [batch for batch in batches if len(batch) > 1]
    return _batches(images, whole, crop, crop_size, threads, device)


def eval_batches(
    images: ImageFolder,
    *,
    batch_size: int,
    crop_size: int,
    resize: int,
    threads: int,
    device: torch.device = _CPU,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every image once, in order: the short side resized to `resize`, then cropped at the center.

    Yields:
        as `train_batches`.
    """
    starts = range(0, len(images), batch_size)
    batches = [np.arange(start, min(start + batch_size, len(images))) for start in starts]

    def crop(index: int) -> np.ndarray:
        return center_crop(images.read(index), crop_size, resize)

    return _batches(images, batches, crop, crop_size, threads, device)


def _batches(
    images: ImageFolder,
    batches: Sequence[np.ndarray],
    crop: Callable[[int], np.ndarray],
    crop_size: int,
    threads: int,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in order; `threads` workers write their crops, at most `_BATCHES_AHEAD` batches early."""
    # The images are prepared in parallel already: OpenCV's own threads would compete for the same cores.
    cv2.setNumThreads(1)

    def slots() -> Iterator[tuple[torch.Tensor, int, int]]:
        for batch in batches:
            pixels_BHWC = host_memory((len(batch), crop_size, crop_size, 3), device)
            yield from ((pixels_BHWC, row, index) for row, index in enumerate(batch.tolist()))

    def fill(slot: tuple[torch.Tensor, int, int]) -> torch.Tensor:
        pixels_BHWC, row, index = slot
        pixels_BHWC.numpy()[row] = crop(index)
        return pixels_BHWC

    ahead = _BATCHES_AHEAD * max(map(len, batches), default=1)
    with closing(parallel_map(fill, slots(), threads, ahead=ahead)) as filled:
        for batch in batches:
            pixels_BHWC, *_ = islice(filled, len(batch))
            labels_B = host_memory((len(batch),), device, torch.int64)
            labels_B.numpy()[:] = images.labels[batch]
            yield pixels_BHWC.permute(0, 3, 1, 2), labels_B
