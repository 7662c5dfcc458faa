"""Colors of label maps."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

# What class 0 is called where it is not an object: overlays leave the image as it is there.
BACKGROUND_NAMES = frozenset(("background", "bg", "none", "other", "interior", "unlabeled", "unlabelled"))
VOID_COLOR = (224, 224, 192)
# Levels of each channel among which distinct colors are chosen.
_LEVELS = 8


def voc_palette() -> np.ndarray:
    """The color map of PASCAL VOC's label PNGs, (256, 3) uint8 RGB.

    The bits of a label are assigned to the red, green and blue channel in turn, least significant first, and
    fill each channel from its highest bit down (VOC development kit, `VOClabelcolormap`).
    """
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for channel in range(3):
        for position in range(8):
            bit = labels >> (3 * position + channel) & 1
            colours[:, channel] |= (bit << (7 - position)).astype(np.uint8)
    return colours


def label_palette(classes: Sequence[str]) -> np.ndarray:
    """Colors for label maps of these classes, (256, 3) uint8 RGB.

    VOC's own for VOC's 21 classes, whose label PNGs have them. VOC's map begins with dark tones of similar
    lightness, so that any other classes get colors that are far apart; a background is black.
    """
    # Imported here: the readers write label maps with these palettes.
    from segstrat.data.readers.voc import SEMSEG

    if tuple(classes) == SEMSEG.classes:
        return voc_palette()
    palette = distinct_palette()
    if has_background(classes):
        return palette
    # Black is for a background; void keeps the last color.
    return np.concatenate([palette[1:255], palette[:1], palette[255:]])


def has_background(classes: Sequence[str]) -> bool:
    """Whether class 0 is what is left when nothing else is there. Unnamed classes are assumed to have one."""
    first = classes[0].strip().lower()
    return first in BACKGROUND_NAMES or first == "class 0"


@lru_cache(maxsize=1)
def distinct_palette() -> np.ndarray:
    """(256, 3) uint8 RGB: black, then each color as far as possible from all before it, in CIELAB.

    Label 255 has VOC's color of void pixels, from which the others keep their distance, too.
    """
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    chosen = np.zeros((256, 3), np.uint8)
    chosen[255] = VOID_COLOR
    nearest = np.linalg.norm(lab - _lab(chosen[255:]), axis=1)
    for label in range(1, 255):
        nearest = np.minimum(nearest, np.linalg.norm(lab - _lab(chosen[label - 1 : label]), axis=1))
        chosen[label] = candidates[nearest.argmax()]
    chosen.setflags(write=False)
    return chosen


def _lab(colors_N3: np.ndarray) -> np.ndarray:
    """CIELAB coordinates (N, 3) of RGB colors (N, 3) uint8."""
    return cv2.cvtColor(colors_N3[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
