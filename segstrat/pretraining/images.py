"""Image classification sets in the ImageFolder layout: `root/<split>/<class>/<image>`."""

import copy
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segstrat.data.images import read_rgb
from segstrat.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
KEPT_BYTES = 1 << 30
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_JPEG_END = b"\xff\xd9"


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

    def first(self, count: int) -> "ImageFolder":
        """The first images alone."""
        part = copy.copy(self)
        part.paths, part.labels = self.paths[:count], self.labels[:count]
        return part

    def read(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UserError: if the file cannot be decoded.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels_HWC = decode(self.paths[index])
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

    def short_side(self) -> int:
        """Median length of the shorter side of training images, in pixels.

        Up to 64 images are read, evenly spaced in the sorted list.
        """
        chosen = np.linspace(0, len(self.train) - 1, min(64, len(self.train))).astype(int)
        return int(np.median([min(self.train.read(index).shape[:2]) for index in chosen.tolist()]))

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


def decode(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Complete JPEG files are decoded by OpenCV, faster than by Pillow and to the same pixels (both use
    libjpeg-turbo); Pillow reads the others, and names what is wrong with damaged ones.

    Raises:
        UserError: if the file cannot be decoded.
    """
    if path.suffix.lower() in _JPEG_SUFFIXES and path.is_file():
        content = np.fromfile(path, dtype=np.uint8)
        # OpenCV decodes a truncated file without an error.
        if content[-2:].tobytes() == _JPEG_END:
            pixels_HWC = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if pixels_HWC is not None:
                return cv2.cvtColor(pixels_HWC, cv2.COLOR_BGR2RGB, dst=pixels_HWC)
    return read_rgb(path, upright=False)


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
