"""How objects are painted: parts placed in the object's own frame, with tints and patterns that vary.

An object is painted in units of its own height, with the origin in its middle.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from segstrat.data.figures.canvas import Canvas, Material, Placement, Region

Rng = np.random.Generator


@dataclass(frozen=True)
class Brush:
    """Paints the parts of one object: a canvas, where the object stands, and its labels."""

    canvas: Canvas
    placement: Placement
    instance: int
    label: int

    def limb(
        self, points: list[tuple[float, float]], width: float, material: Material, part: int = 0
    ) -> None:
        """A chain of segments of that width."""
        placed = self.placement.points(points)
        for start, end in itertools.pairwise(placed):
            self._paint(self.canvas.capsule(start, end, self.placement.length(width / 2)), material, part)

    def plate(self, points: list[tuple[float, float]], material: Material, part: int = 0) -> None:
        """A convex polygon."""
        self._paint(self.canvas.polygon(self.placement.points(points)), material, part)

    def disc(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        material: Material,
        part: int = 0,
        angle: float = 0.0,
    ) -> None:
        """An ellipse, turned by `angle` degrees in the object's own frame."""
        placed = self.placement.points([centre])[0]
        turn = self.placement.angle + (-angle if self.placement.flip else angle)
        lengths = (self.placement.length(radii[0]), self.placement.length(radii[1]))
        self._paint(self.canvas.ellipse(placed, lengths, turn), material, part)

    def _paint(self, region: Region, material: Material, part: int) -> None:
        self.canvas.paint(region, material, instance=self.instance, label=self.label, part=part)


def tinted(rng: Rng, colour: tuple[int, int, int], spread: int = 44) -> tuple[int, int, int]:
    """A colour about `colour`: a common change of brightness and a smaller one of each channel."""
    light = int(rng.integers(-spread, spread + 1))
    red, green, blue = (value + light + int(rng.integers(-spread // 2, spread // 2 + 1)) for value in colour)
    return red, green, blue


def one_of(rng: Rng, *colours: tuple[int, int, int]) -> tuple[int, int, int]:
    """One of the colours, each equally likely."""
    return colours[int(rng.integers(len(colours)))]


def patterned(
    rng: Rng,
    colour: tuple[int, int, int],
    pattern: str,
    *,
    periods: tuple[int, int],
    contrasts: tuple[int, int],
    angles: tuple[int, int] = (0, 180),
    mottle: int = 20,
) -> Material:
    """A material whose pattern is drawn from ranges [low, high)."""
    period, angle, contrast = (int(rng.integers(*bounds)) for bounds in (periods, angles, contrasts))
    return Material(colour, pattern, period, angle, contrast, mottle)


def ahead(start: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
    """The point `length` away from `start`; 0° points down, positive angles to the right."""
    turn = math.radians(angle)
    return start[0] + length * math.sin(turn), start[1] + length * math.cos(turn)
