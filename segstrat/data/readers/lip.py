"""The multi-person portion of Look into Person, published as CIHP (Gong et al. 2018): 19 parts, as PNGs."""

from pathlib import Path

from segstrat.data.files import Item, LabelFile, find_image, read_ids
from segstrat.data.labels import IndexPng
from segstrat.data.readers import contains, find_folder
from segstrat.tasks import Task

NAME = "LIP multi-person (CIHP)"
PARTS = Task(
    "parts",
    (
        *("background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat", "socks"),
        *("pants", "torso skin", "scarf", "skirt", "face", "left arm", "right arm", "left leg"),
        *("right leg", "left shoe", "right shoe"),
    ),
)
LABELS = IndexPng(values=tuple(range(PARTS.num_classes)))
_FOLDERS = {"train": "Training", "val": "Validation"}
_PARTS = [f"{folder}/{kind}" for folder in _FOLDERS.values() for kind in ("Images", "Category_ids")]

fits = contains(*_PARTS)
"""Whether a folder has CIHP's layout."""


def find(root: Path | None) -> Path:
    """The folder with CIHP under the data root, `instance-level_human_parsing` in the official archive."""
    return find_folder(root, NAME, fits, ", ".join(_PARTS))


def ids(folder: Path, split: str) -> tuple[str, ...]:
    """Ids of `train` or `val`; the lists are in the split's folder, in some copies one level above."""
    name = f"{split}_id.txt"
    inside = folder / _FOLDERS[split] / name
    return read_ids(inside if inside.exists() or not (folder / name).exists() else folder / name)


def items(folder: Path, split: str) -> list[Item]:
    """Items of a split with their `parts` labels."""
    split_folder = folder / _FOLDERS[split]
    return [
        Item(
            name,
            find_image(split_folder / "Images", name),
            {"parts": LabelFile(split_folder / "Category_ids" / f"{name}.png", LABELS)},
        )
        for name in ids(folder, split)
    ]
