"""The kinds of objects in the scenes: people with parts, and seven others.

Every kind is a function of (brush, rng) that paints its parts from back to front. Tints and patterns depend
on the kind and vary about it, so that neither colour nor texture nor outline alone identifies it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from segstrat.data.figures.brush import Brush, Rng
from segstrat.data.figures.person import draw_person
from segstrat.data.figures.things import (
    draw_bird,
    draw_boat,
    draw_bottle,
    draw_car,
    draw_chair,
    draw_dog,
    draw_plant,
)


@dataclass(frozen=True)
class Kind:
    """A kind of object: its class name, how it is drawn, and its usual height in pixels of a scene."""

    name: str
    draw: Callable[[Brush, Rng], None]
    heights: tuple[int, int]
    tilt: float


KINDS = (
    Kind("person", draw_person, (46, 92), 10),
    Kind("dog", draw_dog, (34, 60), 10),
    Kind("bird", draw_bird, (30, 54), 25),
    Kind("car", draw_car, (36, 58), 6),
    Kind("boat", draw_boat, (40, 72), 10),
    Kind("bottle", draw_bottle, (42, 76), 14),
    Kind("chair", draw_chair, (44, 76), 8),
    Kind("plant", draw_plant, (42, 76), 8),
)
CLASSES = ("background", *(kind.name for kind in KINDS))
