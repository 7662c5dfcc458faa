"""Images of pre-training: classification sets in the ImageFolder layout, and images without labels."""

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segstrat.data.dataset import hash_strings, nested_indices
from segstrat.data.files import Item, read_image
from segstrat.data.images import SUFFIXES as IMAGE_SUFFIXES
from segstrat.data.images import ImageFormat, read_rgb
from segstrat.data.sources import PROTOCOLS, Source
from segstrat.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
KEPT_BYTES = 1 << 30
# Of images without labels, so many are not learned from: the error of their reconstruction is reported.
HELD_OUT_SHARE, FEWEST_HELD_OUT, MOST_HELD_OUT = 0.05, 8, 200
FEWEST_IMAGES = 8
SMALLEST_SIDE = 32
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
_JPEG_END = b"\xff\xd9"


class Images:
    """Images and a class of each; decoded ones are kept in memory up to `KEPT_BYTES` in all.

    Args:
        read: an item -> its pixels, (H, W, 3) uint8 RGB.

    Attributes:
        labels: (N,) int64 class of each image; all 0 without classes.
        mirror: whether training may mirror them.
    """

    def __init__(
        self, items: Sequence[Any], read: Callable[[Any], np.ndarray], labels: Sequence[int] | None = None
    ) -> None:
        self.items = list(items)
        self.labels = np.array(labels or [0] * len(items), dtype=np.int64)
        self.mirror = True
        self._decode = read
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEPT_BYTES
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.items)

    def first(self, count: int) -> "Images":
        """The first images alone."""
        part = copy.copy(self)
        part.items, part.labels = self.items[:count], self.labels[:count]
        return part

    def read(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB.

        Raises:
            UserError: if the file cannot be decoded.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels_HWC = self._decode(self.items[index])
        with self._lock:
            if self._room >= pixels_HWC.nbytes:
                self._room -= pixels_HWC.nbytes
                self._kept[index] = pixels_HWC
        return pixels_HWC

    def short_side(self) -> int:
        """Median length of the shorter side, in pixels, of up to 64 images, evenly spaced in the list."""
        chosen = np.linspace(0, len(self) - 1, min(64, len(self))).astype(int)
        return int(np.median([min(self.read(index).shape[:2]) for index in chosen.tolist()]))


class ImageFolder(Images):
    """The images of one split of a classification set.

    Args:
        folder: contains one folder per class.
        classes: names of those folders, in label order.

    Raises:
        UserError: if the folder or a class folder is missing, or a class has no image.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = _images(folder / name)
            if not found:
                raise UserError(
                    f"{folder / name} contains no images; every class needs some, in train/ and in val/"
                )
            self.paths += found
            labels += [label] * len(found)
        super().__init__(self.paths, decode, labels)


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


@dataclass(frozen=True)
class UnlabelledData:
    """Images without labels, and what self-supervision is judged by.

    Args:
        train: images that it learns from.
        val: a few others of the same source, whose reconstruction is scored.
        digest: of names, sizes and how the images are read.
        probe: images with classes, for a linear probe of the features; they are not learned from.
    """

    name: str
    train: Images
    val: Images
    digest: str
    probe: ClassificationData | None = None

    classes: tuple[str, ...] = ()


def open_unlabelled(
    protocol: str, root: Path | None, folder: Path | None, cache: Path | None
) -> UnlabelledData:
    """The training images of a protocol, and every image in a folder, without opening any label.

    Validation images, test images and label maps of the protocol are left out of the folder, wherever in it
    they are: the same files, and copies with the same name and size.

    Args:
        protocol: one of `PROTOCOLS`, or '' for the folder alone.
        root: the data root of the protocol.
        folder: searched recursively. Of a classification set (`train/<class>`, `val/<class>`) the training
            images are used, and all of it becomes the probe.

    Raises:
        UserError: for a folder that is missing, or too few or too small images.
    """
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one with images, at any depth")
    source = PROTOCOLS[protocol](root, cache) if protocol else None
    items = _training_items(source) if source else []
    names = [(source.name or protocol) if source else ""]
    probe = None
    if folder is not None:
        names.append(folder.name)
        probe = _classes_of(folder)
        maximum = items[0].format.maximum if items else None
        items += _folder_items(folder / "train" if probe else folder, maximum, source)
    name = "+".join(filter(None, names))
    if len(items) < FEWEST_IMAGES:
        where = folder or f"the training split of {name}"
        raise UserError(
            f"{where} has {len(items)} image{'s' * (len(items) != 1)} to learn from; self-supervision needs "
            f"at least {FEWEST_IMAGES}, give a folder with more (formats: {', '.join(IMAGE_SUFFIXES)})"
        )
    share = max(HELD_OUT_SHARE, min(0.2, FEWEST_HELD_OUT / len(items)))
    share = min(share, MOST_HELD_OUT / len(items))
    held = set(nested_indices([item.id for item in items], share, seed=0))
    train = Images([item for index, item in enumerate(items) if index not in held], read_image)
    train.mirror = source is None or source.flip
    val = Images([items[index] for index in sorted(held)], read_image)
    if (side := train.short_side()) < SMALLEST_SIDE:
        raise UserError(
            f"{folder or name}: the shorter side of the images is {side} pixels; self-supervision needs at "
            f"least {SMALLEST_SIDE}, give larger images"
        )
    facts = [f"{item.id} {item.image.stat().st_size} {item.format}" for item in items]
    return UnlabelledData(name, train, val, hash_strings([*facts, f"mirror {train.mirror}"]), probe)


def _classes_of(folder: Path) -> ClassificationData | None:
    try:
        return open_classification(folder)
    except UserError:
        return None


def _training_items(source: Source) -> list[Item]:
    """The training images of a protocol, without their labels."""
    items = [item for group in source.train for item in group]
    chosen = nested_indices([item.id for item in items], source.portion, seed=0)
    return [_without_labels(items[index]) for index in chosen]


def _without_labels(item: Item) -> Item:
    # With `auto`, the label's size would decide how the image is turned.
    upright = "upright" if item.format.orientation == "auto" else item.format.orientation
    return replace(item, labels={}, format=replace(item.format, orientation=upright))


def _folder_items(folder: Path, maximum: float | None, source: Source | None) -> Iterator[Item]:
    """The images in a folder, at any depth, that are no image and no label map of a protocol."""
    splits = (source.train, source.val, source.test) if source else ()
    items = [item for split in splits for group in split for item in group]
    paths = {*(item.image for item in items), *(each.path for item in items for each in item.labels.values())}
    known = {fact for path in paths if path.exists() for fact in _identities(path)}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not known & {*_identities(path)}:
            form = ImageFormat(maximum=maximum, orientation="upright")
            yield Item(id=path.relative_to(folder).as_posix(), image=path, format=form)


def _identities(path: Path) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """What tells whether a file is another one, or its copy: device and number, name and size."""
    facts = path.stat()
    return (facts.st_dev, facts.st_ino), (path.name, facts.st_size)


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
