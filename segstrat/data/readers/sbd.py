"""Semantic Boundaries Dataset (Hariharan et al. 2011): VOC's classes on 11,355 of its images, as `.mat`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segstrat.data.dataset import VOID
from segstrat.data.files import Item, LabelFile, find_image, read_ids
from segstrat.data.labels import load_matlab, to_classes
from segstrat.data.readers import contains, find_folder
from segstrat.data.readers.voc import SEMSEG
from segstrat.errors import UserError

NAME = "SBD"

fits = contains("img", "cls", "train.txt", "val.txt")
"""Whether a folder has SBD's layout."""


@dataclass(frozen=True)
class SbdMat:
    """Decodes `GTcls.Segmentation` of a `cls/*.mat` file."""

    values: tuple[int, ...] = tuple(range(SEMSEG.num_classes))

    def __call__(self, path: Path) -> np.ndarray:
        """Class indices of a file.

        Raises:
            UserError: if it is damaged, or contains a value of no class.
        """
        record = load_matlab(path, "GTcls")
        try:
            labels_HW = record["Segmentation"][0, 0].astype(np.uint8)
        except (ValueError, IndexError, AttributeError) as error:
            raise UserError(
                f"{path} has no label map in GTcls.Segmentation ({error}); download it again"
            ) from error
        return to_classes(labels_HW, self.values, (VOID,), path)


def find(root: Path | None) -> Path:
    """The folder with SBD under the data root, `benchmark_RELEASE/dataset` in the official archive."""
    return find_folder(root, NAME, fits, "img/, cls/, train.txt and val.txt")


def ids(folder: Path, split: str) -> tuple[str, ...]:
    """Ids of SBD's own `train` and `val` lists."""
    return read_ids(folder / f"{split}.txt")


def items(folder: Path, names: Iterable[str]) -> list[Item]:
    """Items with their `semseg` labels."""
    return [Item(name, find_image(folder / "img", name), {"semseg": label(folder, name)}) for name in names]


def label(folder: Path, name: str) -> LabelFile:
    """The `semseg` label of an image."""
    return LabelFile(folder / "cls" / f"{name}.mat", SbdMat())
