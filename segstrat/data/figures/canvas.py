"""A small integer canvas: the same scene on every machine, to the last bit.

Points are rounded to sixteenths of a pixel before anything is drawn, and all drawing and shading is
integer arithmetic, so neither the maths library nor the instruction set can move a pixel.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

SUBPIXELS = 16
_TRIG_ONE = 1024
_CELLS = 8  # of the grid that carries the blotches


@dataclass(frozen=True)
class Material:
    """How a surface looks before light falls on it.

    Args:
        colour: mean RGB, 0..255.
        pattern: `plain`, `stripes`, `checks` or `spots`.
        period: length of one repeat of the pattern, in sixteenths of a pixel.
        angle: direction of the pattern, in degrees.
        contrast: how far the pattern swings about the mean.
        mottle: how far slow random blotches swing about the mean.
    """

    colour: tuple[int, int, int]
    pattern: str = "plain"
    period: int = 64
    angle: int = 0
    contrast: int = 0
    mottle: int = 20

    def shaded(self, amount: int) -> "Material":
        """The same surface, lighter or darker by `amount`."""
        red, green, blue = self.colour
        return replace(self, colour=(red + amount, green + amount, blue + amount))


@dataclass(frozen=True)
class Placement:
    """Maps an object's own coordinates (unit: its height, y down) to sixteenths of a pixel.

    Args:
        x, y: where the object's origin lies, in pixels.
        size: length of the unit, in pixels.
        angle: rotation in degrees, clockwise on screen.
        flip: whether left and right are exchanged.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0
    flip: bool = False

    def points(self, points: np.ndarray) -> np.ndarray:
        """Int64 pixel sixteenths (N, 2) of float object coordinates (N, 2)."""
        turn = math.radians(self.angle)
        cos, sin = math.cos(turn), math.sin(turn)
        x = -points[:, 0] if self.flip else points[:, 0]
        y = points[:, 1]
        placed = np.stack(
            [self.x + self.size * (x * cos - y * sin), self.y + self.size * (x * sin + y * cos)], axis=1
        )
        return np.rint(placed * SUBPIXELS).astype(np.int64)

    def length(self, length: float) -> int:
        """Sixteenths of a pixel of a length in object units; at least one pixel, so that nothing vanishes."""
        return max(SUBPIXELS, round(self.size * length * SUBPIXELS))


@dataclass(frozen=True)
class Region:
    """Pixels of a canvas: a window (rows, columns), and boolean (h, w) which of its pixels are meant."""

    window: tuple[slice, slice]
    inside: np.ndarray


class Canvas:
    """An RGB image with its label maps, painted from back to front.

    Attributes:
        image_HWC: int64, unbounded until light and noise are added.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self._rng = rng
        self.image_HWC = np.zeros((size, size, 3), np.int64)
        self._layer_HW = np.zeros((size, size), np.int64)
        self._layers = [(0, 0, 0)]
        self._blotches = [self._random_blotches() for _ in range(4)]

    def capsule(self, start: np.ndarray, end: np.ndarray, radius: int) -> Region:
        """The pixels within `radius` of a segment; all in sixteenths of a pixel."""
        step_x, step_y = (int(value) for value in end - start)
        length2 = max(1, step_x * step_x + step_y * step_y)
        window, x, y = self._window(np.stack([start, end]), radius)
        dx, dy = x - int(start[0]), y - int(start[1])
        along = np.clip(dx * step_x + dy * step_y, 0, length2)
        away_x, away_y = dx * length2 - along * step_x, dy * length2 - along * step_y
        # The squares may pass 63 bits; a float64 product is rounded alike everywhere.
        inside = away_x.astype(float) ** 2 + away_y.astype(float) ** 2 <= float(radius * length2) ** 2
        return Region(window, inside)

    def ellipse(self, centre: np.ndarray, radii: tuple[int, int], angle: float = 0.0) -> Region:
        """The pixels in an ellipse; centre and radii in sixteenths of a pixel."""
        a, b = radii
        window, x, y = self._window(centre[None], max(a, b))
        along, across = _rotated(x - int(centre[0]), y - int(centre[1]), angle)
        return Region(window, (along * b) ** 2 + (across * a) ** 2 <= (a * b * _TRIG_ONE) ** 2)

    def polygon(self, corners: np.ndarray) -> Region:
        """The pixels in a convex polygon (N, 2), given in either sense of rotation."""
        window, x, y = self._window(corners, 0)
        left = right = np.ones((y.size, x.size), bool)
        for (x0, y0), (x1, y1) in itertools.pairwise([*corners.tolist(), corners[0].tolist()]):
            side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
            left, right = left & (side >= 0), right & (side <= 0)
        return Region(window, left | right)

    def paint(
        self, region: Region, material: Material, *, instance: int = 0, label: int = 0, part: int = 0
    ) -> None:
        """Covers a region with a surface and its labels."""
        window, inside = region.window, region.inside
        blotches_HW = self._blotches[int(self._rng.integers(len(self._blotches)))][window]
        swing_HW = self._pattern(material, window) * material.contrast + blotches_HW * material.mottle // 64
        surface_HWC = np.array(material.colour, np.int64) + swing_HW[:, :, None]
        self.image_HWC[window][inside] = surface_HWC[inside]
        self._layer_HW[window][inside] = len(self._layers)
        self._layers.append((instance, label, part))

    def seen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is seen at each pixel, (H, W) each: number of the object, its label (uint8), its part (uint8).

        All three are 0 where it is the background.
        """
        instances, labels, parts = np.array(self._layers).T
        instances_HW, labels_HW, parts_HW = (table[self._layer_HW] for table in (instances, labels, parts))
        return instances_HW, labels_HW.astype(np.uint8), parts_HW.astype(np.uint8)

    def everywhere(self, top: int = 0) -> Region:
        """All pixels from row `top` down."""
        window = (slice(top, self.size), slice(0, self.size))
        return Region(window, np.ones((self.size - top, self.size), bool))

    def _random_blotches(self) -> np.ndarray:
        """Int64 (H, W) in [-128, 128): random values on a coarse grid, bilinear in between."""
        grid = self._rng.integers(-128, 128, (_CELLS + 1, _CELLS + 1))
        cell, weight = np.divmod(np.arange(self.size, dtype=np.int64) * _CELLS * 64 // self.size, 64)
        rows = grid[cell] * (64 - weight)[:, None] + grid[cell + 1] * weight[:, None]
        return (rows[:, cell] * (64 - weight) + rows[:, cell + 1] * weight) // 4096

    def _pattern(self, material: Material, window: tuple[slice, slice]) -> np.ndarray:
        """Int64 (h, w) of ±1 in the window, or a 0 where there is no pattern."""
        shift_x, shift_y = self._rng.integers(0, material.period, 2).tolist()
        if material.pattern == "plain":
            return np.zeros((1, 1), np.int64)
        x, y = _centres(window)
        along, across = _rotated(x + shift_x, y + shift_y, material.angle)
        half = material.period * _TRIG_ONE // 2
        first, second = along // half & 1, across // half & 1
        if material.pattern == "stripes":
            return 2 * first - 1
        if material.pattern == "checks":
            return 2 * (first ^ second) - 1
        if material.pattern == "spots":
            return 2 * (first & second) - 1
        raise ValueError(f"unknown pattern {material.pattern!r}")

    def _window(self, points: np.ndarray, margin: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The pixels that a shape can reach: (rows, columns), and their centres x (1, w) and y (h, 1)."""
        left, top = (max(0, (int(low) - margin) // SUBPIXELS) for low in points.min(axis=0))
        right, bottom = (min(self.size, (int(high) + margin) // SUBPIXELS + 1) for high in points.max(axis=0))
        window = (slice(top, max(top, bottom)), slice(left, max(left, right)))
        return window, *_centres(window)


def _centres(window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = window
    x = np.arange(columns.start, columns.stop, dtype=np.int64)[None, :] * SUBPIXELS + SUBPIXELS // 2
    y = np.arange(rows.start, rows.stop, dtype=np.int64)[:, None] * SUBPIXELS + SUBPIXELS // 2
    return x, y


def _rotated(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction, times `_TRIG_ONE`."""
    turn = math.radians(angle)
    cos, sin = round(math.cos(turn) * _TRIG_ONE), round(math.sin(turn) * _TRIG_ONE)
    return x * cos + y * sin, y * cos - x * sin
