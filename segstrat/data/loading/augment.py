"""Training augmentation (thesis §6.1): one random placement of an image in its crop, done as one affine warp.

The thesis scales, crops, flips and rotates in turn. Composed into one matrix, each pixel is interpolated once
and no intermediate image is stored. The image is interpolated linearly; before it is shrunk
it is smoothed as an antialiased resize would. Labels take the nearest pixel. Pixels that the rotation
uncovers, or outside a small image, are black and `VOID`.
"""

import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segstrat.data.dataset import VOID

_STREAM = 2
_MAX_DEGREES = 10.0
_SUBPIXEL_BITS = 8


@dataclass(frozen=True)
class Placement:
    """How an image is placed in its crop: scaled, cropped, flipped, rotated, in this order.

    Args:
        scaled_size: (height, width) of the scaled image.
        top: row of the scaled image that is the crop's first; negative where the image is padded.
        left: the same for columns.
        flip: mirror left and right.
        degrees: counter-clockwise rotation about the crop's centre.
    """

    scaled_size: tuple[int, int]
    top: int
    left: int
    flip: bool
    degrees: float

    def scale(self, size: tuple[int, int]) -> float:
        """Pixels of the scaled image per pixel of the image, of (height, width) `size`, along a side."""
        return min(self.scaled_size[0] / size[0], self.scaled_size[1] / size[1])

    def matrix(self, size: tuple[int, int], crop_size: int) -> np.ndarray:
        """Affine map (2, 3) from pixel centres (x, y) of the image to those of the crop.

        Args:
            size: (height, width) of the image.
            crop_size: side of the crop.
        """
        # The centre of pixel i is at i + ½, measured from the edge of the image.
        scale_x, scale_y = self.scaled_size[1] / size[1], self.scaled_size[0] / size[0]
        x = (scale_x, 0.5 * scale_x - 0.5 - self.left)
        y = (scale_y, 0.5 * scale_y - 0.5 - self.top)
        if self.flip:
            x = (-x[0], crop_size - 1 - x[1])
        centre = (crop_size - 1) / 2
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        return np.array(
            [
                [cos * x[0], sin * y[0], cos * (x[1] - centre) + sin * (y[1] - centre) + centre],
                [-sin * x[0], cos * y[0], -sin * (x[1] - centre) + cos * (y[1] - centre) + centre],
            ]
        )


def draw_placement(
    size: tuple[int, int],
    *,
    crop_size: int,
    strength: float,
    seed: int,
    epoch: int,
    index: int,
    flip: bool = True,
) -> Placement:
    """The placement of image `index` in `epoch`: a pure function of its arguments.

    Scale Uniform(2^-s, 2^s), flip with probability min(s, 1)/2, rotation Uniform(-10·s, 10·s) degrees;
    strength 1 is that of the thesis, 0 leaves only the random crop. A side that is smaller than the crop is
    padded on both ends, in random shares.

    Args:
        size: (height, width) of the image.
        flip: false leaves the sides as they are; all other draws stay the same.
    """
    generator = np.random.default_rng([seed, _STREAM, epoch, index])
    scale = generator.uniform(0.5**strength, 2.0**strength)
    top_share, left_share, coin = generator.random(3)
    degrees = generator.uniform(-_MAX_DEGREES * strength, _MAX_DEGREES * strength)
    height, width = (max(1, round(side * scale)) for side in size)
    return Placement(
        scaled_size=(height, width),
        top=_offset(height - crop_size, top_share),
        left=_offset(width - crop_size, left_share),
        flip=flip and bool(coin < min(strength, 1.0) / 2),
        degrees=float(degrees),
    )


def _offset(slack: int, share: float) -> int:
    """A whole number between 0 and `slack`, both included, at `share` in [0, 1) of the way."""
    return min(slack, 0) + int(share * (abs(slack) + 1))


def place_image(image_HW3: np.ndarray, placement: Placement, out_SS3: np.ndarray) -> None:
    """Writes the crop of an image.

    Args:
        image_HW3: uint8.
        out_SS3: uint8, contiguous: the crop, overwritten.
    """
    height, width = image_HW3.shape[:2]
    crop_size = out_SS3.shape[0]
    scale = placement.scale((height, width))
    if scale < 1:
        kernel = low_pass(scale)
        smooth = _scratch.array("smooth", (height, width, 3))
        image_HW3 = cv2.sepFilter2D(image_HW3, -1, kernel, kernel, dst=smooth)
    # OpenCV warps four channels about twice as fast as three, the conversions included.
    image_HW4 = _scratch.array("image", (height, width, 4))
    crop_SS4 = _scratch.array("crop", (crop_size, crop_size, 4))
    cv2.cvtColor(image_HW3, cv2.COLOR_RGB2RGBA, dst=image_HW4)
    cv2.warpAffine(
        image_HW4,
        placement.matrix((height, width), crop_size),
        (crop_size, crop_size),
        dst=crop_SS4,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    cv2.cvtColor(crop_SS4, cv2.COLOR_RGBA2RGB, dst=out_SS3)
    _fill_uncovered(out_SS3, placement.degrees, 0)


def place_label(
    label_HW: np.ndarray, placement: Placement, out_SS: np.ndarray, mirrored: np.ndarray | None = None
) -> None:
    """Writes the crop of a label map.

    Args:
        label_HW: uint8.
        out_SS: uint8, contiguous: the crop, overwritten.
        mirrored: (256,) uint8, label in a mirrored image of each label, see `mirrored_labels`.
    """
    crop_size = out_SS.shape[0]
    cv2.warpAffine(
        label_HW,
        placement.matrix(label_HW.shape[:2], crop_size),
        (crop_size, crop_size),
        dst=out_SS,
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=VOID,
    )
    _fill_uncovered(out_SS, placement.degrees, VOID)
    if placement.flip and mirrored is not None:
        cv2.LUT(out_SS, mirrored, dst=out_SS)


def mirrored_labels(
    classes: Sequence[str], swap: Sequence[tuple[str, str]] | None = None
) -> np.ndarray | None:
    """Table (256,) uint8 that swaps the labels of left and right things, for mirrored images.

    A mirrored left arm is a right arm. None where no class has a counterpart.

    Args:
        swap: the pairs of classes; None: those whose names become each other when `left` and `right` are
            exchanged, wherever the words are: `left arm` and `right arm`, `arm_left` and `arm_right`.
    """
    table = np.arange(256, dtype=np.uint8)
    for first, second in sides(classes) if swap is None else swap:
        one, other = classes.index(first), classes.index(second)
        table[one], table[other] = other, one
    return table if (table != np.arange(256)).any() else None


def sides(classes: Sequence[str], words: tuple[str, str] = ("left", "right")) -> list[tuple[str, str]]:
    """Pairs of classes whose names become each other when the two words are exchanged, in any case."""
    left, right = words
    other = {left: right, right: left}
    # A word may be written to the next one, as in `leftArm`, but not a letter.
    pattern = "|".join(rf"(?<![a-z]){word}(?![a-z])" if len(word) < 3 else word for word in words)
    known = {name.lower(): name for name in classes}
    pairs = []
    for name in classes:
        twin = known.get(re.sub(pattern, lambda found: other[found[0]], name.lower()))
        if twin is not None and classes.index(name) < classes.index(twin):
            pairs.append((name, twin))
    return pairs


def low_pass(scale: float) -> np.ndarray:
    """Smoothing kernel, float32 of odd length, for shrinking by `scale` < 1.

    The triangle of an antialiased bilinear resize is 1/scale times as wide as that of linear interpolation;
    the kernel has a variance that grows accordingly. The factor ¼ agrees best with the step-by-step
    version on real images (the difference of the variances alone would give 1/6).
    """
    variance = (1 / scale**2 - 1) / 4
    passes = max(1, math.ceil(2 * variance))
    side = variance / passes / 2
    kernel = np.ones(1)
    for _ in range(passes):
        kernel = np.convolve(kernel, [side, 1 - 2 * side, side])
    return kernel.astype(np.float32)


def _fill_uncovered(crop: np.ndarray, degrees: float, value: int) -> None:
    """Overwrites the corners that a rotation of the crop (S, S[, C]) in itself leaves uncovered."""
    if degrees == 0:
        return
    centre = (crop.shape[0] - 1) / 2
    # The rotated crop's edge, and a line so far out that the whole corner is between the two.
    # fillConvexPoly also draws the outline, half a pixel on either side.
    near, far = crop.shape[0] / 2 + 0.5, 3 * crop.shape[0]
    strip = np.array([[near, -far], [far, -far], [far, far], [near, far]])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    quarter_turn = np.array([[0, -1], [1, 0]])
    strip = strip @ np.array([[cos, -sin], [sin, cos]])
    for _ in range(4):
        points = (strip + centre) * 2**_SUBPIXEL_BITS
        cv2.fillConvexPoly(crop, points.round().astype(np.int32), value, shift=_SUBPIXEL_BITS)
        strip = strip @ quarter_turn


class _Scratch(threading.local):
    """Buffers that a thread reuses: new memory would be mapped page by page each time."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialized uint8 array, valid until the thread requests that name again."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].reshape(shape)


_scratch = _Scratch()
