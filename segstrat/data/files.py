"""A dataset of image and label files, decoded when they are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from segstrat.data.dataset import Dataset, Sample, hash_strings
from segstrat.data.labels import Decoder, open_image
from segstrat.errors import UserError

READER_VERSION = 1
"""Raised whenever a reader gives other pixels for the same files; old caches are then left alone."""

IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".JPEG", ".PNG")


@dataclass(frozen=True)
class LabelFile:
    """A label map on disk and how it is decoded."""

    path: Path
    decode: Decoder


@dataclass(frozen=True)
class Item:
    """An image file and its label files, by task."""

    id: str
    image: Path
    labels: Mapping[str, LabelFile] = field(default_factory=dict)


class FileDataset(Dataset):
    """Items decoded from their files at every read; only labels of `tasks` are touched.

    Items that are labelled for none of the tasks are left out.
    """

    def __init__(self, items: Sequence[Item], tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self.items = tuple(item for item in items if any(task in item.labels for task in self.tasks))
        self.ids = tuple(item.id for item in self.items)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""
        labels = self.items[index].labels
        return tuple(task for task in self.tasks if task in labels)

    def read(self, index: int) -> Sample:
        """The image and its labels."""
        labels = {task: self.label(index, task) for task in self.tasks_of(index)}
        return Sample(self.ids[index], self.image(index), labels)

    def image(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB, as it is stored: an orientation tag turns no label, so no image.

        Raises:
            UserError: if the file is missing, truncated or no image.
        """
        path = self.items[index].image
        with open_image(path) as image:
            try:
                return np.array(image.convert("RGB"))
            except (OSError, SyntaxError, ValueError) as error:
                raise UserError(f"{path} is damaged ({error}); fetch it again") from error

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image, from the header of its file alone."""
        with open_image(self.items[index].image) as image:
            return image.height, image.width

    def label(self, index: int, task: str) -> np.ndarray:
        """A label map, (H, W) uint8.

        Raises:
            UserError: if the file is missing or damaged, a value is no class, or its size is not the image's.
        """
        item = self.items[index]
        path = item.labels[task].path
        try:
            labels_HW = item.labels[task].decode(path)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); fetch it again") from error
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
        return hash_strings([self.part_digest("image"), *map(self.part_digest, self.tasks)])

    def part_digest(self, part: str) -> str:
        """Digest of one part of every item: `image`, or the labels of a task.

        Raises:
            UserError: if a file is missing; the first is named, the others are counted.
        """
        return hash_strings([f"reader {READER_VERSION}, {part}", *self._fingerprints(part)])

    def _fingerprints(self, part: str) -> Iterator[str]:
        for item in self.items:
            label = item.labels.get(part)
            path = item.image if part == "image" else label.path if label else None
            if path is None:
                yield f"{item.id} unlabelled"
                continue
            decode = label.decode if label else ""
            try:
                yield f"{item.id} {path.stat().st_size} {decode}"
            except OSError as error:
                raise UserError(
                    f"{path} cannot be read ({error.strerror}), but the list of ids names it; fetch the file or "
                    "take the id off the list"
                ) from error


def read_ids(path: Path) -> tuple[str, ...]:
    """Ids of a split list, one a line.

    Raises:
        UserError: if the list is missing, empty, holds an id twice or more than an id in a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"split list {path} cannot be read ({error}); it holds one image id a line"
        ) from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1:
            raise UserError(f"{path} line {number}: expected one image id, found {name!r}; keep the id alone")
        if name in seen:
            raise UserError(
                f"{path} line {number}: id {name} stands there twice (line {seen[name]}); keep one"
            )
        seen[name] = number
    if not seen:
        raise UserError(f"split list {path} is empty; it holds one image id a line")
    return tuple(seen)


def find_image(folder: Path, name: str) -> Path:
    """The image file of an id, whatever its suffix; `<id>.jpg` where there is none, to be named as missing."""
    candidates = [folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])
