"""Crops of classification images: random ones for training, the center for evaluation."""

import cv2
import numpy as np

# Crops between portrait 3:4 and landscape 4:3 (Szegedy et al. 2015, arXiv:1409.4842, §6).
_LOG_RATIO = float(np.log(4 / 3))


def random_crop(image_HWC: np.ndarray, size: int, smallest: float, rng: np.random.Generator) -> np.ndarray:
    """A random part of an image, resized to (size, size, 3), and mirrored half of the time.

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
    if rng.random() < 0.5:
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
