"""A small integer canvas: the same scene on every machine, to the last bit.

Points are rounded to sixteenths of a pixel before anything is drawn, and all drawing and shading is
integer arithmetic, so neither the maths library nor the instruction set can move a pixel.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

SUBPIXELS = 16
Point = tuple[int, int]
"""x and y in sixteenths of a pixel, as all lengths on the canvas."""
Window = tuple[slice, slice]
"""Rows and columns of a canvas."""

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
        x, y: position of the object's origin, in pixels.
        size: length of the unit, in pixels.
        angle: rotation in degrees, clockwise on screen.
        flip: whether left and right are exchanged.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0
    flip: bool = False

    def points(self, points: Iterable[tuple[float, float]]) -> list[Point]:
        """Canvas points of object points (x, y)."""
        turn = math.radians(self.angle)
        cos, sin = math.cos(turn), math.sin(turn)
        placed = []
        for x, y in points:
            x = -x if self.flip else x
            placed.append(
                (
                    round((self.x + self.size * (x * cos - y * sin)) * SUBPIXELS),
                    round((self.y + self.size * (x * sin + y * cos)) * SUBPIXELS),
                )
            )
        return placed

    def length(self, length: float) -> int:
        """Sixteenths of a pixel of a length in object units; at least one pixel, so that nothing vanishes."""
        return max(SUBPIXELS, round(self.size * length * SUBPIXELS))


@dataclass(frozen=True)
class Region:
    """Pixels of a canvas: a window, and boolean (h, w) which of its pixels are meant."""

    window: Window
    inside: np.ndarray


class Canvas:
    """An RGB image with its label maps, painted from back to front.

    Args:
        size: height and width in pixels.
        rng: draws the random part of every surface.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self._rng = rng
        # What is painted changes all channels of a pixel alike; its colour is looked up by layer at the end.
        self._swing_HW = np.zeros((size, size), np.int64)
        self._layer_HW = np.zeros((size, size), np.int64)
        self._colours = [(0, 0, 0)]
        self._labels = [(0, 0, 0)]
        centres = np.arange(size, dtype=np.int64) * SUBPIXELS + SUBPIXELS // 2
        self._x, self._y = centres[None, :], centres[:, None]
        self._blotches = [self._random_blotches() for _ in range(4)]

    def capsule(self, start: Point, end: Point, radius: int) -> Region:
        """The pixels within `radius` of a segment."""
        step_x, step_y = end[0] - start[0], end[1] - start[1]
        length2 = max(1, step_x * step_x + step_y * step_y)
        window, x, y = self._window((start, end), radius)
        dx, dy = x - start[0], y - start[1]
        along = np.clip(dx * step_x + dy * step_y, 0, length2)
        away_x, away_y = dx * length2 - along * step_x, dy * length2 - along * step_y
        # The squares may pass 63 bits; a float64 product is rounded alike everywhere.
        inside = away_x.astype(float) ** 2 + away_y.astype(float) ** 2 <= float(radius * length2) ** 2
        return Region(window, inside)

    def ellipse(self, centre: Point, radii: tuple[int, int], angle: float = 0.0) -> Region:
        """The pixels in an ellipse."""
        a, b = radii
        window, x, y = self._window((centre,), max(a, b))
        along, across = _rotated(x - centre[0], y - centre[1], angle)
        return Region(window, (along * b) ** 2 + (across * a) ** 2 <= (a * b * _TRIG_ONE) ** 2)

    def polygon(self, corners: Sequence[Point]) -> Region:
        """The pixels in a convex polygon, whose corners are given in either sense of rotation."""
        window, x, y = self._window(corners, 0)
        left = right = np.ones((y.size, x.size), bool)
        for (x0, y0), (x1, y1) in itertools.pairwise([*corners, corners[0]]):
            side = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
            left, right = left & (side >= 0), right & (side <= 0)
        return Region(window, left | right)

    def below(self, top: int) -> Region:
        """All pixels from row `top` down."""
        window = (slice(top, self.size), slice(0, self.size))
        return Region(window, np.ones((self.size - top, self.size), bool))

    def paint(
        self, region: Region, material: Material, *, instance: int = 0, label: int = 0, part: int = 0
    ) -> None:
        """Paints a region with a surface and its labels."""
        blotches_HW = self._blotches[int(self._rng.integers(len(self._blotches)))][region.window]
        swing_HW = self._pattern(material, region.window) * material.contrast
        swing_HW = swing_HW + blotches_HW * material.mottle // 64
        np.copyto(self._swing_HW[region.window], swing_HW, where=region.inside)
        np.copyto(self._layer_HW[region.window], len(self._labels), where=region.inside)
        self._colours.append(material.colour)
        self._labels.append((instance, label, part))

    def image(self) -> np.ndarray:
        """The picture before light falls on it: int64 (H, W, 3), a little beyond 0..255 in places."""
        return np.array(self._colours)[self._layer_HW] + self._swing_HW[:, :, None]

    def seen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The visible object at each pixel, (H, W) each: its number, its label (uint8), its part (uint8).

        All three are 0 for background.
        """
        instances, labels, parts = np.array(self._labels).T
        instances_HW, labels_HW, parts_HW = (table[self._layer_HW] for table in (instances, labels, parts))
        return instances_HW, labels_HW.astype(np.uint8), parts_HW.astype(np.uint8)

    def _random_blotches(self) -> np.ndarray:
        """Int64 (H, W) in [-128, 128): random values on a coarse grid, bilinear in between."""
        grid = self._rng.integers(-128, 128, (_CELLS + 1, _CELLS + 1))
        cell, weight = np.divmod(np.arange(self.size, dtype=np.int64) * _CELLS * 64 // self.size, 64)
        rows = grid[cell] * (64 - weight)[:, None] + grid[cell + 1] * weight[:, None]
        return (rows[:, cell] * (64 - weight) + rows[:, cell + 1] * weight) // 4096

    def _pattern(self, material: Material, window: Window) -> np.ndarray:
        """Int64 (h, w) of ±1 in the window, or a 0 where there is no pattern."""
        shift_x, shift_y = self._rng.integers(0, material.period, 2).tolist()
        if material.pattern == "plain":
            return np.zeros((1, 1), np.int64)
        rows, columns = window
        along, across = _rotated(self._x[:, columns] + shift_x, self._y[rows] + shift_y, material.angle)
        half = material.period * _TRIG_ONE // 2
        first, second = along // half & 1, across // half & 1
        if material.pattern == "stripes":
            return 2 * first - 1
        if material.pattern == "checks":
            return 2 * (first ^ second) - 1
        if material.pattern == "spots":
            return 2 * (first & second) - 1
        raise ValueError(f"unknown pattern {material.pattern!r}")

    def _window(self, points: Sequence[Point], margin: int) -> tuple[Window, np.ndarray, np.ndarray]:
        """The pixels that a shape can reach, and their centres x (1, w) and y (h, 1)."""
        columns, rows = (
            slice(
                min(self.size, max(0, (min(values) - margin) // SUBPIXELS)),
                min(self.size, max(0, (max(values) + margin) // SUBPIXELS + 1)),
            )
            for values in zip(*points, strict=True)
        )
        return (rows, columns), self._x[:, columns], self._y[rows]


def _rotated(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction, times `_TRIG_ONE`."""
    turn = math.radians(angle)
    cos, sin = round(math.cos(turn) * _TRIG_ONE), round(math.sin(turn) * _TRIG_ONE)
    return x * cos + y * sin, y * cos - x * sin
