"""Colors of label maps."""

import numpy as np


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
