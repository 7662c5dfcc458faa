"""Crops of classification images, and batches of them that threads prepare in host memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
import torch

from segstrat.data.loading.batch import host_memory
from segstrat.parallel import parallel_map
from segstrat.pretraining.images import Images

# Streams 1 and 2 are those of training. The order has another than the crops: NumPy drops trailing zeros of a
# seed, so that [seed, stream, epoch] and [seed, stream, epoch, 0] are one generator.
_ORDER_STREAM, _CROP_STREAM = 3, 4
_BATCHES_AHEAD = 2
_CPU = torch.device("cpu")
# Crops between portrait 3:4 and landscape 4:3 (Szegedy et al. 2015, arXiv:1409.4842, §6).
_LOG_RATIO = float(np.log(4 / 3))


def train_batches(
    images: Images,
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
    order = np.random.default_rng([seed, _ORDER_STREAM, epoch]).permutation(len(images))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def crop(index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, _CROP_STREAM, epoch, index])
        return random_crop(images.read(index), crop_size, smallest_crop, rng, mirror=images.mirror)

    whole = [batch for batch in batches if len(batch) > 1]
    return _batches(images, whole, crop, crop_size, threads, device)


def eval_batches(
    images: Images,
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
    images: Images,
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


def random_crop(
    image_HWC: np.ndarray, size: int, smallest: float, rng: np.random.Generator, *, mirror: bool = True
) -> np.ndarray:
    """A random part of an image, resized to (size, size, 3), and mirrored half of the time unless forbidden.

    Its share of the area is uniform in [smallest, 1], the logarithm of its aspect ratio uniform between 3:4
    and 4:3; what does not fit the image is cut off.
    """
    height, width = image_HWC.shape[:2]
    area = height * width * float(rng.uniform(smallest, 1.0))
    ratio = float(np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO)))
    h = int(np.clip(round((area / ratio) ** 0.5), 1, height))
    w = int(np.clip(round((area * ratio) ** 0.5), 1, width))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = image_HWC[top : top + h, left : left + w]
    if rng.random() < 0.5 and mirror:
        part = part[:, ::-1]
    return _resized(part, size, size)


def center_crop(image_HWC: np.ndarray, size: int, resize: int) -> np.ndarray:
    """The central (size, size, 3) crop of an image whose short side was resized to `resize` ≥ `size`."""
    height, width = image_HWC.shape[:2]
    short = min(height, width)
    height, width = round(height * resize / short), round(width * resize / short)
    resized = _resized(image_HWC, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


def _resized(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    if image_HWC.shape[:2] == (height, width):
        return image_HWC
    # Area averaging does not alias where the image shrinks; it only repeats pixels where it grows.
    shrinks = image_HWC.shape[0] > height
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image_HWC), (width, height), interpolation=interpolation)
