"""Image classification sets in the ImageFolder layout: `root/<split>/<class>/<image>`."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from segstrat.data.labels import load_pixels, open_image
from segstrat.errors import UserError
from segstrat.parallel import parallel_map

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
KEPT_BYTES = 1 << 30
_STREAM = 2
_BATCHES_AHEAD = 2
# Crops between portrait 3:4 and landscape 4:3 (Szegedy et al. 2015, arXiv:1409.4842, §6).
_LOG_RATIO = float(np.log(4 / 3))


class ImageFolder:
    """The images of one split; decoded ones are kept in memory up to `KEPT_BYTES` in all.

    Args:
        folder: contains one folder per class.
        classes: names of those folders, in label order.

    Attributes:
        labels: (N,) int64 class of each image.

    Raises:
        UserError: if the folder or a class folder is missing, or a class has no image.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.folder = folder
        self.classes = classes
        self.paths: list[Path] = []
        labels = []
        for label, name in enumerate(classes):
            found = _images(folder / name)
            if not found:
                raise UserError(
                    f"{folder / name} contains no images; every class needs some, in train/ and in val/"
                )
            self.paths += found
            labels += [label] * len(found)
        self.labels = np.array(labels, dtype=np.int64)
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEPT_BYTES
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UserError: if the file cannot be decoded.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        path = self.paths[index]
        with open_image(path) as image:
            pixels_HWC = np.array(load_pixels(image, path).convert("RGB"))
        with self._lock:
            if self._room >= pixels_HWC.nbytes:
                self._room -= pixels_HWC.nbytes
                self._kept[index] = pixels_HWC
        return pixels_HWC


@dataclass(frozen=True)
class ClassificationData:
    """A classification data set: its name, its two splits, and a digest of its content."""

    name: str
    train: ImageFolder
    val: ImageFolder
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return self.train.classes


def open_classification(
    root: Path, *, name: str | None = None, digest: str | None = None
) -> ClassificationData:
    """Opens `root/train/<class>/*` and `root/val/<class>/*`; the classes are the folders of `train`, sorted.

    Args:
        name: name of the data set; the folder's name if not given.
        digest: of its content, if known; else one of all file names and sizes is computed.

    Raises:
        UserError: if a folder is missing, or there are fewer than two classes.
    """
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise UserError(
                f"{root} has no folder {split}; a classification data set has the layout "
                "train/<class>/<image> and val/<class>/<image>"
            )
    classes = tuple(sorted(path.name for path in (root / "train").iterdir() if path.is_dir()))
    if len(classes) < 2:
        raise UserError(
            f"{root / 'train'} has {len(classes)} class folder{'s' * (len(classes) != 1)}; "
            "a classifier needs at least two"
        )
    train, val = (ImageFolder(root / split, classes) for split in ("train", "val"))
    return ClassificationData(name or root.name, train, val, digest or _digest(root, train, val))


def train_batches(
    images: ImageFolder,
    *,
    batch_size: int,
    crop_size: int,
    smallest_crop: float,
    seed: int,
    epoch: int,
    threads: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches of random crops, mirrored half of the time; a pure function of (seed, epoch).

    A last batch of a single image is dropped, because batch norm cannot train on it.

    Args:
        smallest_crop: smallest share of an image's area that a crop covers; the largest is all of it.

    Yields:
        images (B, 3, crop_size, crop_size) uint8 RGB in channels-last order, and labels (B,) int64.
    """
    order = np.random.default_rng([seed, _STREAM, epoch]).permutation(len(images))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def crop(index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, _STREAM, epoch, index])
        return random_crop(images.read(index), crop_size, smallest_crop, rng)

    return _batches(images, [batch for batch in batches if len(batch) > 1], crop, threads)


def eval_batches(
    images: ImageFolder, *, batch_size: int, crop_size: int, resize: int, threads: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every image once, in order: the short side resized to `resize`, the middle cropped.

    Yields:
        as `train_batches`.
    """
    batches = [
        np.arange(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)
    ]
    return _batches(
        images, batches, lambda index: center_crop(images.read(index), crop_size, resize), threads
    )


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


def _batches(
    images: ImageFolder,
    batches: Sequence[np.ndarray],
    prepare: Callable[[int], np.ndarray],
    threads: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in order; `threads` workers prepare their images, at most `_BATCHES_AHEAD` batches early."""
    # The images are prepared in parallel already: OpenCV's own threads would compete for the same cores.
    cv2.setNumThreads(1)
    indices = [index for batch in batches for index in batch.tolist()]
    ahead = _BATCHES_AHEAD * max(map(len, batches), default=1)
    with closing(parallel_map(prepare, indices, threads, ahead=ahead)) as prepared:
        for batch in batches:
            pixels_BHWC = np.stack(list(islice(prepared, len(batch))))
            labels_B = torch.from_numpy(images.labels[batch])
            yield torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2), labels_B


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _digest(root: Path, *splits: ImageFolder) -> str:
    hasher = hashlib.sha256()
    for split in splits:
        for path in split.paths:
            hasher.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
    return hasher.hexdigest()
