"""PASCAL VOC 2012 segmentation (Everingham et al. 2010): JPEG images, palette PNG labels, split lists."""

from collections.abc import Collection
from pathlib import Path

from segstrat.data.files import Item, LabelFile, find_image, read_ids
from segstrat.data.labels import IndexPng
from segstrat.tasks import Task

SEMSEG = Task(
    "semseg",
    (
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
        *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        *("train", "tvmonitor"),
    ),
)
LABELS = IndexPng(values=tuple(range(SEMSEG.num_classes)))


def ids(folder: Path, split: str) -> tuple[str, ...]:
    """Ids of a segmentation split (`train`, `val`, `test`) of a `VOC2012` folder."""
    return read_ids(folder / "ImageSets" / "Segmentation" / f"{split}.txt")


def items(folder: Path, names: Collection[str]) -> list[Item]:
    """Items of a `VOC2012` folder with their `semseg` labels."""
    return [
        Item(
            name,
            find_image(folder / "JPEGImages", name),
            {"semseg": LabelFile(folder / "SegmentationClass" / f"{name}.png", LABELS)},
        )
        for name in names
    ]
