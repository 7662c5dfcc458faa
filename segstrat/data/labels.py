"""Decoders of label files: path -> (H, W) uint8 class indices, `VOID` where nothing is labelled.

A decoder is a frozen value that says which labels may occur, so that a dataset can be pickled and its digest
covers how labels are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from segstrat.data.dataset import VOID
from segstrat.data.images import (
    depth,
    has_alpha,
    load_pixels,
    min_alpha,
    nodata,
    open_image,
    raw_mode,
    to_rgba,
)
from segstrat.errors import UserError

Decoder = Callable[[Path], np.ndarray]
Color = tuple[int, int, int]

SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Formats of label maps, in any case."""

LOSSY = ("JPEG", "MPO", "WEBP")
LARGEST_VALUE = 65535
_INDEX_MODES = {"P", "L", "1", "I", "F"}
_UNKNOWN = 256
_NO_NUMBER = -1
_EXACT = 2**53
"""Larger floats have no fractions, and are nobody's class numbers."""


@dataclass(frozen=True)
class IndexPng:
    """Image whose pixel values are labels: palette or grey, 1 to 16 bits, PNG, TIFF or BMP.

    Colors are accepted where all three channels are equal. The value that a GeoTIFF declares to be no data is
    void.

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
        labels_HW, empty = stored_labels(path)
        if labels_HW.ndim == 3:
            grey = labels_HW[..., 0]
            if not all((labels_HW[..., channel] == grey).all() for channel in (1, 2)):
                raise _colored("RGB", path)
            labels_HW = np.ascontiguousarray(grey)
        void = () if empty is None or empty in (*self.values, *self.ignore) else (empty,)
        return to_classes(labels_HW, self.values, (*self.ignore, *void), path)


@dataclass(frozen=True)
class ColorLabels:
    """Image whose colors are labels; of a palette image, the colors of its palette.

    Args:
        colors: RGB of each class, in class order.
        ignore: colors that are void.
    """

    colors: tuple[Color, ...]
    ignore: tuple[Color, ...] = ()

    def __call__(self, path: Path) -> np.ndarray:
        """Class indices of a file.

        Raises:
            UserError: if it is damaged, or contains a color of no class.
        """
        codes_HW = _codes(stored_colors(path))
        classes_HW = _color_table(self.colors, self.ignore)[codes_HW]
        unknown_HW = classes_HW == _UNKNOWN
        if unknown_HW.any():
            codes, counts = np.unique(codes_HW[unknown_HW], return_counts=True)
            color = _color(int(codes[counts.argmax()]))
            nearest = min(self.colors, key=lambda known: float(np.square(np.subtract(known, color)).sum()))
            raise UserError(
                f"{path} has {counts.max():,} pixels of the color {list(color)} and {len(codes) - 1} more "
                f"colors that are not a class (the nearest is {list(nearest)}); export the labels without "
                "smoothed edges, or add the color to colors or ignore in dataset.toml"
            )
        return classes_HW.astype(np.uint8)


def stored_colors(path: Path) -> np.ndarray:
    """The colors of a label file, (H, W, 3) uint8; of a palette image, those of its palette.

    Raises:
        UserError: if it is damaged, lossy or transparent.
    """
    with open_image(path) as image:
        _refuse_lossy(image, path)
        return _opaque(load_pixels(image, path), path, "RGB")


def stored_labels(path: Path) -> tuple[np.ndarray, int | None]:
    """What a label file stores, and the value that it declares to be no data.

    Returns:
        (H, W) integers, whatever their bit depth, or (H, W, 3) uint8 colors; and the value of pixels without
        data in a GeoTIFF: `_NO_NUMBER` if that is not a whole number, None if it declares none.

    Raises:
        UserError: if it is damaged, lossy, transparent, or holds neither whole numbers nor 8-bit colors.
    """
    with open_image(path) as image:
        _refuse_lossy(image, path)
        bits, raw, declared = depth(image), raw_mode(image), nodata(image)
        empty = None if declared is None else _whole(declared)
        image = load_pixels(image, path)
        if image.mode in ("RGB", "RGBA") and bits == "8":
            return _opaque(image, path, "RGB"), empty
        if image.mode == "LA" and bits == "8":
            return _opaque(image, path, "L"), empty
        if image.mode not in _INDEX_MODES and not image.mode.startswith("I;16"):
            raise _colored(image.mode if bits == "8" else f"{bits}-bit {image.mode}", path)
        if image.mode == "F":
            return _whole_numbers(np.array(image), declared, path), empty
        if image.mode in ("P", "L", "1"):
            labels_HW = np.array(image, dtype=np.uint8)
            largest = 1 if image.mode == "1" else 255
            # Pillow shows these with 0 as white, and spreads 2 and 4 bits over the range of 8.
            if "I" in raw.partition(";")[2]:
                labels_HW = largest - labels_HW
            if image.mode == "L" and bits in "24":
                labels_HW //= 255 // (2 ** int(bits) - 1)
            return labels_HW, empty
        # Pillow shows 32-bit integers without a sign with one.
        if empty is not None and image.mode == "I" and empty >= 2**31:
            empty -= 2**32
        return np.array(image), empty


def _opaque(image: Image.Image, path: Path, mode: str) -> np.ndarray:
    """The channels of a loaded image without its alpha, which must be 255 everywhere."""
    if has_alpha(image):
        image = to_rgba(image)
        if min_alpha(image) < 255:
            raise UserError(
                f"{path} has transparent pixels, whose label means nothing; save the label opaque"
            )
    return np.array(image.convert(mode))


def _colored(mode: str, path: Path) -> UserError:
    return UserError(
        f"{path} is a {mode} image, but labels are index PNGs (palette or greyscale, one class number "
        "per pixel); give the color of each class as colors in dataset.toml, or convert its colors to class "
        "numbers first"
    )


def _whole(number: float) -> int:
    return int(number) if abs(number) < _EXACT and number == int(number) else _NO_NUMBER


def _whole_numbers(values_HW: np.ndarray, declared: float | None, path: Path) -> np.ndarray:
    """Floats that are whole as integers; `_NO_NUMBER` where there is none, or one that cannot be a label."""
    absent = ~np.isfinite(values_HW)
    if declared is not None and _whole(declared) == _NO_NUMBER:
        # Such as the smallest float, which geographic tools write.
        absent |= values_HW == declared
    numbers_HW = np.where(absent, _NO_NUMBER, values_HW)
    if np.abs(numbers_HW).max(initial=0) >= _EXACT or (numbers_HW != np.rint(numbers_HW)).any():
        raise UserError(f"{path} has labels that are not whole numbers; save class numbers")
    return numbers_HW.astype(np.int64)


def _refuse_lossy(image: Image.Image, path: Path) -> None:
    if image.format in LOSSY:
        raise UserError(
            f"{path} is a {image.format} file, which changes class numbers at every edge; export the labels "
            "as PNG"
        )


def to_classes(
    labels_HW: np.ndarray, values: tuple[int, ...], ignore: tuple[int, ...], path: Path
) -> np.ndarray:
    """Class indices of label values: (H, W) integers -> (H, W) uint8.

    Raises:
        UserError: if a value is neither a class nor ignored; the file and the value are named.
    """
    if labels_HW.dtype == np.uint8:
        present = np.flatnonzero(np.bincount(labels_HW.ravel(), minlength=256))
    else:
        present = np.unique(labels_HW)
    unknown = sorted(set(present.tolist()) - set(values) - set(ignore))
    if unknown:
        raise UserError(
            f"{path} contains label {unknown[0]}, but the {len(values)} classes have the values "
            f"{_ranges(values)} and void is {_ranges(ignore)}; fix the file or the list of classes"
        )
    if labels_HW.dtype == np.uint8:
        if values == tuple(range(len(values))) and set(ignore) <= {VOID}:
            return labels_HW
        table = np.full(256, VOID, dtype=np.uint8)
        for label, value in enumerate(values):
            if value < 256:
                table[value] = label
        return table[labels_HW]
    known = {value: label for label, value in enumerate(values)}
    classes = np.array([known.get(value, VOID) for value in present.tolist()], dtype=np.uint8)
    return classes[np.searchsorted(present, labels_HW)]


def _codes(colors_HW3: np.ndarray) -> np.ndarray:
    """One number for each color: (H, W, 3) uint8 -> (H, W) int32."""
    red, green, blue = (colors_HW3[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


@lru_cache(maxsize=4)
def _color_table(colors: tuple[Color, ...], ignore: tuple[Color, ...]) -> np.ndarray:
    """(2^24,) uint16: the class of each color, `VOID` or `_UNKNOWN`."""
    table = np.full(1 << 24, _UNKNOWN, dtype=np.uint16)
    for label, known in enumerate(colors):
        table[_codes(np.array(known))] = label
    for void in ignore:
        table[_codes(np.array(void))] = VOID
    return table


def label_values(decode: Decoder) -> Sequence[int] | Sequence[Color] | None:
    """The values, or colors, that stand for the classes in the files; None where these are class indices."""
    if isinstance(decode, ColorLabels):
        return decode.colors
    if isinstance(decode, IndexPng) and decode.values != tuple(range(len(decode.values))):
        return decode.values
    return None


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


def to_values(
    classes_HW: np.ndarray, values: Sequence[int] | Sequence[Color] | None, void: int | Color | None = None
) -> np.ndarray:
    """What stands for the classes in label files: (H, W) uint8 or uint16, or (H, W, 3) uint8 for colors.

    Args:
        classes_HW: uint8 class indices and `VOID`.
        values: of each class, as `label_values` returns them.
        void: what stands for void; by default `VOID`, or black.
    """
    if values is None:
        return classes_HW
    if void is None:
        void = VOID if isinstance(values[0], int) else (0, 0, 0)
    listed = np.array([*values, void])
    kind = np.uint8 if listed.max() <= np.iinfo(np.uint8).max else np.uint16
    return listed.astype(kind)[np.where(classes_HW == VOID, len(values), classes_HW)]
