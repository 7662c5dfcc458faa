"""A dataset of image and label files, decoded when they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from segstrat.data.dataset import Dataset, Sample, hash_strings
from segstrat.data.images import (
    STORED,
    SUFFIXES,
    TRANSPOSED,
    ImageFormat,
    header,
    open_image,
    orientation,
    other_formats,
    rgb_pixels,
    stored_size,
    turned,
)
from segstrat.data.labels import SUFFIXES as LABEL_SUFFIXES
from segstrat.data.labels import Decoder, check_range
from segstrat.errors import UserError

READER_VERSION = 2
"""Increased whenever a reader returns other pixels for the same files, so that older caches are not used."""


@dataclass(frozen=True)
class LabelFile:
    """A label map on disk and how it is decoded."""

    path: Path
    decode: Decoder


@dataclass(frozen=True)
class Item:
    """An image file, its label files by task, and how the image is read."""

    id: str
    image: Path
    labels: Mapping[str, LabelFile] = field(default_factory=dict)
    format: ImageFormat = STORED


class FileDataset(Dataset):
    """Items decoded from their files at every read; only labels of `tasks` are read.

    Items that are labelled for none of the tasks are left out, and so are tasks that no item has.

    Args:
        num_classes: task -> number of classes, to which labels are held; other tasks are not checked.
    """

    def __init__(
        self, items: Sequence[Item], tasks: Sequence[str], num_classes: Mapping[str, int] | None = None
    ) -> None:
        self.num_classes = dict(num_classes or {})
        self.tasks = tuple(task for task in tasks if any(task in item.labels for item in items))
        self.items = tuple(item for item in items if any(task in item.labels for task in self.tasks))
        self.ids = tuple(item.id for item in self.items)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""
        labels = self.items[index].labels
        return tuple(task for task in self.tasks if task in labels)

    def read(self, index: int) -> Sample:
        """The image and its labels."""
        return Sample(self.ids[index], self.image(index), self.labels(index))

    def labels(self, index: int) -> dict[str, np.ndarray]:
        """The labels alone."""
        return {task: self.label(index, task) for task in self.tasks_of(index)}

    def image(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB, see `read_image`."""
        return read_image(self.items[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image, from the header of its file alone."""
        item = self.items[index]
        with open_image(item.image) as image:
            size = stored_size(image)
            return size[::-1] if _turn(item, image) in TRANSPOSED else size

    def label(self, index: int, task: str) -> np.ndarray:
        """A label map, (H, W) uint8.

        Raises:
            UserError: if the file is missing or damaged, contains a value of no class, or differs in
                size from its image.
        """
        item = self.items[index]
        path = item.labels[task].path
        labels_HW = item.labels[task].decode(path)
        if task in self.num_classes:
            check_range(labels_HW, self.num_classes[task], task, path)
        height, width = self.image_size(index)
        if labels_HW.shape != (height, width):
            raise UserError(
                f"{path} is {labels_HW.shape[1]}×{labels_HW.shape[0]} pixels, its image {item.image.name} is "
                f"{width}×{height}; a label map must have the size of its image"
            )
        return labels_HW

    @cached_property
    def digest(self) -> str:
        """Digest of the images and of the labels of every task."""
        return hash_strings(self.parts.values())

    @cached_property
    def parts(self) -> dict[str, str]:
        """Digest of each part that is decoded separately: `image`, and the labels of every task.

        Raises:
            UserError: if files are missing; it names the first and counts the others.
        """
        return {part: self._part_digest(part) for part in ("image", *self.tasks)}

    def _part_digest(self, part: str) -> str:
        fingerprints = [f"reader {READER_VERSION}, {part}"]
        missing: list[tuple[Path, OSError]] = []
        for item in self.items:
            label = item.labels.get(part)
            path = item.image if part == "image" else label.path if label else None
            try:
                size = path.stat().st_size if path else None
            except OSError as error:
                missing.append((path or item.image, error))
                continue
            fingerprints.append(f"{item.id} {size} {_how_read(item, part)}")
        if missing:
            path, problem = missing[0]
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            known = ", ".join(SUFFIXES if part == "image" else LABEL_SUFFIXES)
            found = other_formats(path)
            hint = f"{found}; the formats that can be read are {known}; or " if found else ""
            raise UserError(
                f"{path} ({problem.strerror}){others}: listed among {len(self)} ids, but cannot be read; "
                f"{hint}fetch the files again, or remove their ids from the split list"
            )
        return hash_strings(fingerprints)


def read_image(item: Item) -> np.ndarray:
    """The image of an item, (H, W, 3) uint8 RGB, turned as its `ImageFormat` says.

    Raises:
        UserError: if the file is missing, truncated or not an image.
    """
    with open_image(item.image) as image:
        turn = _turn(item, image)
        return turned(rgb_pixels(image, item.image, item.format.maximum), turn)


def read_ids(path: Path, is_file: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Ids of a split list, one per line.

    Args:
        is_file: whether there is an image of a name; where there is one, an id may contain blanks and dots.

    Raises:
        UserError: if the list is missing, empty, contains an id twice or more than one id in a line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"split list {path} cannot be read ({error}); it must contain one image id per line"
        ) from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if is_file is None or not is_file(name):
            _check_id(name, f"{path} line {number}", is_file)
        if name in seen:
            raise UserError(
                f"{path} line {number}: id {name} is listed twice (first in line {seen[name]}); keep one"
            )
        seen[name] = number
    if not seen:
        raise UserError(f"split list {path} is empty; it must contain one image id per line")
    return tuple(seen)


def _check_id(name: str, where: str, is_file: Callable[[str], bool] | None) -> None:
    stem, _, suffix = name.rpartition(".")
    known = len(name.split()) == 1 if is_file is None else is_file(stem)
    if stem and known and f".{suffix.lower()}" in SUFFIXES:
        raise UserError(
            f"{where}: an id is the name of an image without its suffix; write {stem}, not {name}"
        )
    if len(name.split()) > 1:
        raise UserError(
            f"{where}: expected one image id, found {name!r}; an id is the name of an image without its "
            "suffix, and it may contain blanks only if there is an image of that name"
        )


def _how_read(item: Item, part: str) -> str:
    """How a part of an item becomes pixels, and what else they depend on."""
    if part != "image":
        return str(item.labels[part].decode) if part in item.labels else ""
    if item.format.orientation != "auto":
        return str(item.format)
    # The size of the label decides whether the picture is turned.
    labels = [label.path.stat().st_size for label in item.labels.values() if label.path.exists()]
    return f"{item.format} {labels}"


def _turn(item: Item, image: Image.Image) -> int:
    """The orientation to turn an opened image by; 1 leaves it as it is.

    An annotation tool that ignores the tag gives labels of the stored size. Where the size does not tell,
    because the picture is square or only mirrored or upside down, the tag is obeyed, as viewers do.
    """
    if item.format.orientation == "stored" or (tag := orientation(image)) == 1:
        return 1
    size = stored_size(image)
    if item.format.orientation == "auto" and tag in TRANSPOSED and size[0] != size[1]:
        label = next((label.path for label in item.labels.values()), None)
        if label is not None and label.exists() and header(label).size == size:
            return 1
    return tag
