"""A dataset of image and label files, decoded when they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from segstrat.data.dataset import Dataset, Sample, hash_strings
from segstrat.data.labels import Decoder, check_range, load_pixels, open_image
from segstrat.errors import UserError

READER_VERSION = 1
"""Increased whenever a reader returns other pixels for the same files, so that older caches are not used."""

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
        labels = {task: self.label(index, task) for task in self.tasks_of(index)}
        return Sample(self.ids[index], self.image(index), labels)

    def image(self, index: int) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB, as stored: an orientation tag is ignored.

        Raises:
            UserError: if the file is missing, truncated or not an image.
        """
        path = self.items[index].image
        with open_image(path) as image:
            return np.array(load_pixels(image, path).convert("RGB"))

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image, from the header of its file alone."""
        with open_image(self.items[index].image) as image:
            return image.height, image.width

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
        missing = []
        for item in self.items:
            label = item.labels.get(part)
            path = item.image if part == "image" else label.path if label else None
            try:
                size = path.stat().st_size if path else None
            except OSError as error:
                missing.append(f"{path} ({error.strerror})")
                continue
            fingerprints.append(f"{item.id} {size} {label.decode if label else ''}")
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{missing[0]}{others}: listed among {len(self)} ids, but cannot be read; fetch the files "
                "again, or remove their ids from the split list"
            )
        return hash_strings(fingerprints)


def read_ids(path: Path) -> tuple[str, ...]:
    """Ids of a split list, one per line.

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
        if len(name.split()) > 1:
            raise UserError(f"{path} line {number}: expected one image id, found {name!r}; keep only the id")
        if name in seen:
            raise UserError(
                f"{path} line {number}: id {name} is listed twice (first in line {seen[name]}); keep one"
            )
        seen[name] = number
    if not seen:
        raise UserError(f"split list {path} is empty; it must contain one image id per line")
    return tuple(seen)


def find_image(folder: Path, name: str) -> Path:
    """The image file of an id, whatever its suffix; `<id>.jpg` if there is none, to report it."""
    candidates = (folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in candidates if path.exists()), folder / f"{name}{IMAGE_SUFFIXES[0]}")
