"""Decoders of label files: path -> (H, W) uint8 class indices, `VOID` where nothing is labelled.

A decoder is a frozen value that says which labels may occur, so that a dataset can be pickled and its digest
covers how labels are read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat

from segstrat.data.dataset import VOID
from segstrat.errors import UserError

Decoder = Callable[[Path], np.ndarray]

_INDEX_MODES = {"P", "L", "1"}


@dataclass(frozen=True)
class IndexPng:
    """Palette or greyscale PNG whose pixel values are labels.

    Args:
        values: label value of each class, in class order.
        ignore: values that are void.
    """

    values: tuple[int, ...]
    ignore: tuple[int, ...] = (VOID,)

    def __call__(self, path: Path) -> np.ndarray:
        """Class indices of a file.

        Raises:
            UserError: if it is damaged, not an index image, or contains a value of no class.
        """
        with open_image(path) as image:
            if image.mode not in _INDEX_MODES:
                raise UserError(
                    f"{path} is a {image.mode} image, but labels are index PNGs (palette or greyscale, one "
                    "class number per pixel); convert its colors to class numbers first"
                )
            labels_HW = np.array(load_pixels(image, path), dtype=np.uint8)
        return to_classes(labels_HW, self.values, self.ignore, path)


def to_classes(
    labels_HW: np.ndarray, values: tuple[int, ...], ignore: tuple[int, ...], path: Path
) -> np.ndarray:
    """Class indices of label values: (H, W) uint8 -> (H, W) uint8.

    Raises:
        UserError: if a value is neither a class nor ignored; the file and the value are named.
    """
    present = np.flatnonzero(np.bincount(labels_HW.ravel(), minlength=256))
    unknown = sorted(set(present.tolist()) - set(values) - set(ignore))
    if unknown:
        raise UserError(
            f"{path} contains label {unknown[0]}, but the {len(values)} classes have the values "
            f"{_ranges(values)} and void is {_ranges(ignore)}; fix the file or the list of classes"
        )
    if values == tuple(range(len(values))) and set(ignore) <= {VOID}:
        return labels_HW
    table = np.full(256, VOID, dtype=np.uint8)
    table[list(values)] = np.arange(len(values))
    return table[labels_HW]


def check_range(labels_HW: np.ndarray, num_classes: int, task: str, path: Path) -> None:
    """Refuses labels that are neither a class nor `VOID`, whatever decoder they come from.

    On a GPU such a label ends a training step with a device-side assertion that names no file.

    Args:
        labels_HW: uint8.

    Raises:
        UserError: for the largest such label; the file is named.
    """
    # 255 + 1 is 0 in uint8, so that `VOID` never is the largest.
    largest = int((labels_HW + np.uint8(1)).max(initial=0)) - 1
    if largest >= num_classes:
        raise UserError(
            f"{path} gives label {largest} for task {task}, whose {num_classes} classes are "
            f"0–{num_classes - 1} (void is {VOID}); fix the file or its decoder"
        )


def open_image(path: Path) -> Image.Image:
    """An image of which the header has been read.

    Raises:
        UserError: if the file is missing, unreadable or not an image.
    """
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read; download it again") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror or error}); check the data root"
        ) from error


def load_pixels(image: Image.Image, path: Path) -> Image.Image:
    """Decodes all pixels of an opened image.

    Raises:
        UserError: if the file is truncated or damaged.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    return image


def load_matlab(path: Path, variable: str) -> np.ndarray:
    """A variable of a MATLAB file.

    Raises:
        UserError: if the file is missing or damaged, or has no such variable.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; check the data root")
    try:
        return loadmat(path, variable_names=[variable])[variable]
    # SciPy's reader raises errors of every kind when a file is truncated or not a MATLAB file.
    except Exception as error:
        raise UserError(
            f"{path} is not a complete MATLAB file with {variable} ({error}); download it again"
        ) from error


def _ranges(values: tuple[int, ...]) -> str:
    if len(values) > 2 and values == tuple(range(values[0], values[0] + len(values))):
        return f"{values[0]}–{values[-1]}"
    return ", ".join(map(str, values)) or "nothing"
