"""PASCAL-Person-Part (Chen et al. 2014, 2016): six body parts of people in VOC images, as index PNGs."""

from pathlib import Path

from segstrat.data.files import LabelFile
from segstrat.data.labels import IndexPng
from segstrat.tasks import Task

PARTS = Task(
    "parts",
    ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
)
LABELS = IndexPng(values=tuple(range(PARTS.num_classes)))


def label(folder: Path, name: str) -> LabelFile:
    """The `parts` label of an image, in a folder of index PNGs."""
    return LabelFile(folder / f"{name}.png", LABELS)
