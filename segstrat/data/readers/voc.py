"""PASCAL VOC 2012 segmentation (Everingham et al. 2010): images, palette PNG labels, split lists."""

from collections.abc import Iterable
from pathlib import Path

from segstrat.data.files import Item, LabelFile, find_image, read_ids
from segstrat.data.labels import IndexPng
from segstrat.data.readers import contains, find_folder
from segstrat.tasks import Task

NAME = "VOC 2012"
SEMSEG = Task(
    "semseg",
    (
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
        *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        *("train", "tvmonitor"),
    ),
)
FOLDER = "VOC2012"
_LISTS = "ImageSets/Segmentation"

fits = contains("JPEGImages", "SegmentationClass", f"{_LISTS}/train.txt")
"""Whether a folder has VOC's layout."""


def find(root: Path | None) -> Path:
    """The folder with VOC 2012 under the data root, `VOCdevkit/VOC2012` in the official archive."""
    expected = f"JPEGImages/, SegmentationClass/ and {_LISTS}/train.txt"
    return find_folder(root, NAME, fits, expected, prefer=FOLDER)


def ids(folder: Path, split: str) -> tuple[str, ...]:
    """Ids of a segmentation split, such as `train` and `val`."""
    return read_ids(folder / _LISTS / f"{split}.txt")


def items(folder: Path, names: Iterable[str], task: Task = SEMSEG) -> list[Item]:
    """Items of a folder in VOC's layout with their `semseg` labels."""
    decode = IndexPng(values=tuple(range(task.num_classes)))
    return [
        Item(
            name,
            find_image(folder / "JPEGImages", name),
            {"semseg": LabelFile(folder / "SegmentationClass" / f"{name}.png", decode)},
        )
        for name in names
    ]
