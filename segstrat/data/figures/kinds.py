"""The kinds of objects in the scenes: people with parts, and seven others.

Every kind is a function of (brush, rng) that paints its parts from back to front. Tints and patterns depend
on the kind and vary about it, so that neither colour nor texture nor outline alone identifies it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from segstrat.data.figures.brush import Brush, Rng, ahead, one_of, patterned, tinted
from segstrat.data.figures.canvas import Material

PARTS = ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs")
HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, len(PARTS))


def draw_person(brush: Brush, rng: Rng) -> None:
    """A person seen from the front or the side: standing, walking, sitting or reaching."""
    skin = Material(tinted(rng, one_of(rng, (205, 160, 130), (165, 115, 85), (110, 75, 60)), 18), mottle=14)
    hair = Material(tinted(rng, one_of(rng, (50, 40, 35), (110, 75, 45), (175, 150, 95)), 16))
    shirt = _cloth(rng, one_of(rng, (190, 60, 70), (70, 90, 175), (200, 190, 190)))
    trousers = _cloth(rng, one_of(rng, (60, 65, 100), (95, 85, 75), (50, 50, 55)))
    sleeve = shirt if rng.random() < 0.75 else skin
    cuff = shirt if rng.random() < 0.35 else skin
    shin = trousers if rng.random() < 0.7 else skin

    sits = rng.random() < 0.2
    lean = float(rng.uniform(-12, 12))
    hip = (0.0, 0.02)
    neck = ahead(hip, 180 - lean, 0.29)
    head = ahead(neck, 180 - lean + float(rng.uniform(-15, 15)), 0.1)
    breadth = float(rng.uniform(0.14, 0.2))
    shoulder_x, hip_x = breadth / 2, breadth / 3

    def arm(side: int, shade: int) -> None:
        shoulder = (neck[0] + side * shoulder_x, neck[1] + 0.03)
        low, high = (-20, 75) if rng.random() < 0.75 else (75, 165)
        swing = side * float(rng.uniform(low, high))
        elbow = ahead(shoulder, swing, 0.16)
        hand = ahead(elbow, swing + side * float(rng.uniform(-20, 100)), 0.16)
        brush.limb([shoulder, elbow], 0.068, sleeve.shaded(shade), UPPER_ARM)
        brush.limb([elbow, hand], 0.055, cuff.shaded(shade), LOWER_ARM)

    def leg(side: int, shade: int) -> None:
        top = (hip[0] + side * hip_x, hip[1] + 0.02)
        swing = float(rng.uniform(55, 95)) if sits else float(rng.uniform(-12, 32)) * side
        knee = ahead(top, swing, 0.23)
        foot = ahead(knee, float(rng.uniform(-20, 10)) if sits else swing - float(rng.uniform(0, 35)), 0.23)
        brush.limb([top, knee], 0.092, trousers.shaded(shade), UPPER_LEG)
        brush.limb([knee, foot], 0.072, shin.shaded(shade), LOWER_LEG)

    near = 1 if rng.random() < 0.5 else -1
    arm(-near, -22)
    leg(-near, -18)
    leg(near, 0)
    brush.limb([neck, ahead(neck, 180 - lean, 0.05)], 0.06, skin, HEAD)
    brush.plate(
        [
            (neck[0] - shoulder_x, neck[1]),
            (neck[0] + shoulder_x, neck[1]),
            (hip[0] + hip_x + 0.03, hip[1] + 0.05),
            (hip[0] - hip_x - 0.03, hip[1] + 0.05),
        ],
        shirt,
        TORSO,
    )
    brush.disc(head, (0.073, 0.09), hair, HEAD, angle=lean)
    brush.disc((head[0], head[1] + 0.025), (0.058, 0.066), skin, HEAD, angle=lean)
    arm(near, 0)


def _cloth(rng: Rng, colour: tuple[int, int, int]) -> Material:
    pattern = ("plain", "stripes", "checks")[int(rng.integers(3))]
    return patterned(rng, tinted(rng, colour), pattern, periods=(48, 112), contrasts=(14, 34), mottle=22)


def draw_dog(brush: Brush, rng: Rng) -> None:
    """A four-legged animal from the side, with spotted fur."""
    fur = patterned(
        rng,
        tinted(rng, one_of(rng, (150, 110, 70), (205, 190, 165), (75, 65, 62))),
        "spots",
        periods=(64, 112),
        contrasts=(18, 36),
        mottle=30,
    )
    dark = fur.shaded(-24)
    back = float(rng.uniform(0.34, 0.46))
    for x, shade in ((-back, dark), (back, dark), (-back + 0.1, fur), (back - 0.1, fur)):
        knee = ahead((x, 0.1), float(rng.uniform(-25, 25)), 0.2)
        brush.limb([(x, 0.1), knee, ahead(knee, float(rng.uniform(-20, 20)), 0.2)], 0.1, shade)
    brush.limb([(-back, -0.02), ahead((-back, -0.02), float(rng.uniform(-150, -70)), 0.3)], 0.07, fur)
    brush.limb([(-back, 0.05), (back, 0.03)], float(rng.uniform(0.28, 0.36)), fur)
    nose = float(rng.uniform(-10, 35))
    brush.limb([(back, 0.0), (back + 0.14, -0.24)], 0.19, fur)
    brush.disc((back + 0.17, -0.3), (0.17, 0.13), fur, angle=nose)
    brush.limb([(back + 0.24, -0.28), ahead((back + 0.24, -0.28), 90 - nose, 0.13)], 0.12, dark)
    brush.limb([(back + 0.1, -0.36), (back + 0.05, -0.18)], 0.09, dark)


def draw_bird(brush: Brush, rng: Rng) -> None:
    """A bird, perched or flying, with finely barred plumage."""
    plumage = patterned(
        rng,
        tinted(rng, one_of(rng, (90, 120, 150), (160, 75, 60), (190, 165, 85))),
        "stripes",
        periods=(36, 60),
        contrasts=(20, 38),
    )
    wing = plumage.shaded(-30)
    beak = Material(tinted(rng, (205, 150, 60), 16))
    tilt = float(rng.uniform(-30, 10))
    if rng.random() < 0.5:
        spread = float(rng.uniform(0.45, 0.65))
        brush.plate([(-0.1, 0.0), (0.16, 0.0), (-0.2, -spread)], wing)
    else:
        for x in (-0.04, 0.08):
            brush.limb([(x, 0.2), (x + 0.02, 0.46)], 0.045, beak)
    brush.plate([(-0.3, 0.02), (-0.3, 0.16), (-0.68, 0.26), (-0.66, 0.12)], wing)
    brush.disc((0.0, 0.05), (0.38, 0.22), plumage, angle=tilt)
    brush.disc((0.34, -0.16), (0.15, 0.15), plumage.shaded(18))
    brush.plate([(0.45, -0.22), (0.45, -0.1), (0.68, -0.13)], beak)
    brush.disc((-0.06, 0.05), (0.26, 0.11), wing, angle=tilt + 8)


def draw_car(brush: Brush, rng: Rng) -> None:
    """A car from the side: smooth paint, dark wheels and windows."""
    paint = Material(tinted(rng, one_of(rng, (185, 60, 55), (70, 100, 165), (170, 170, 170))), mottle=10)
    glass = Material(tinted(rng, (75, 90, 105), 14), mottle=12)
    tyre, rim = Material((38, 36, 38), mottle=8), Material((150, 150, 150), mottle=8)
    front, roof = float(rng.uniform(0.2, 0.5)), float(rng.uniform(-0.42, -0.3))
    brush.plate([(-0.6, 0.0), (-0.42, roof), (front - 0.1, roof), (front + 0.15, 0.0)], paint.shaded(14))
    brush.plate(
        [(-0.48, -0.02), (-0.36, roof + 0.06), (front - 0.14, roof + 0.06), (front + 0.02, -0.02)], glass
    )
    brush.limb([(-0.12, -0.02), (-0.12, roof + 0.06)], 0.05, paint)
    brush.plate([(-0.8, 0.02), (-0.72, -0.06), (0.7, -0.03), (0.8, 0.08), (0.8, 0.27), (-0.8, 0.27)], paint)
    for x in (-0.45, 0.47):
        brush.disc((x, 0.27), (0.17, 0.17), tyre)
        brush.disc((x, 0.27), (0.08, 0.08), rim)


def draw_boat(brush: Brush, rng: Rng) -> None:
    """A sailing boat: planked hull, mast and one or two sails."""
    hull = patterned(
        rng,
        tinted(rng, one_of(rng, (130, 80, 60), (70, 95, 140), (175, 165, 150))),
        "stripes",
        periods=(56, 96),
        contrasts=(16, 30),
        angles=(82, 99),
    )
    sail = Material(tinted(rng, one_of(rng, (205, 200, 180), (195, 120, 75), (110, 150, 185)), 24), mottle=16)
    top, boom = float(rng.uniform(-0.62, -0.5)), float(rng.uniform(0.3, 0.5))
    brush.limb([(0.0, top), (0.0, 0.24)], 0.04, Material((90, 70, 55)))
    brush.plate([(0.03, top + 0.03), (0.03, 0.16), (boom, 0.16)], sail)
    if rng.random() < 0.6:
        brush.plate([(-0.03, top + 0.12), (-0.03, 0.16), (-0.34, 0.16)], sail.shaded(-20))
    brush.plate([(-0.56, 0.2), (0.6, 0.2), (0.4, 0.46), (-0.4, 0.46)], hull)


def draw_bottle(brush: Brush, rng: Rng) -> None:
    """A bottle with a label: glass with one bright streak."""
    glass = Material(tinted(rng, one_of(rng, (55, 120, 75), (120, 75, 40), (120, 160, 165)), 24), mottle=14)
    paper = patterned(
        rng,
        tinted(rng, (200, 185, 140), 22),
        "stripes",
        periods=(36, 64),
        contrasts=(18, 34),
        angles=(90, 91),
    )
    half = float(rng.uniform(0.13, 0.2))
    brush.plate([(-half, -0.12), (half, -0.12), (half, 0.48), (-half, 0.48)], glass)
    brush.plate([(-half, -0.11), (half, -0.11), (0.06, -0.27), (-0.06, -0.27)], glass)
    brush.limb([(0.0, -0.22), (0.0, -0.4)], 0.12, glass)
    brush.limb([(0.0, -0.44), (0.0, -0.47)], 0.14, Material(tinted(rng, (150, 50, 45), 16)))
    brush.plate([(-half, 0.05), (half, 0.05), (half, 0.32), (-half, 0.32)], paper)
    brush.limb([(-half + 0.05, -0.06), (-half + 0.05, 0.44)], 0.04, glass.shaded(50))


def draw_chair(brush: Brush, rng: Rng) -> None:
    """A chair seen from the front side: legs, upholstered seat and back."""
    wood = Material(tinted(rng, (120, 85, 50), 20), mottle=16)
    fabric = patterned(
        rng,
        tinted(rng, one_of(rng, (120, 60, 110), (70, 120, 90), (170, 130, 70))),
        "checks",
        periods=(56, 100),
        contrasts=(18, 34),
        angles=(0, 90),
    )
    half, depth = float(rng.uniform(0.22, 0.3)), float(rng.uniform(0.08, 0.16))
    for x, y in ((-half + depth, 0.3), (half + depth, 0.3), (-half, 0.48), (half, 0.48)):
        brush.limb([(x, 0.1), (x, y)], 0.06, wood)
    for x in (-half + depth, half + depth):
        brush.limb([(x, 0.06), (x, -0.44)], 0.06, wood)
    lower = float(rng.uniform(-0.2, -0.08))
    brush.plate(
        [(-half + depth, -0.44), (half + depth, -0.44), (half + depth, lower), (-half + depth, lower)], fabric
    )
    brush.plate([(-half, 0.14), (half, 0.14), (half + depth, 0.02), (-half + depth, 0.02)], fabric.shaded(16))
    brush.limb([(-half, 0.14), (half, 0.14)], 0.06, wood)


def draw_plant(brush: Brush, rng: Rng) -> None:
    """A potted plant: a mottled crown of leaves on a stem."""
    leaf = Material(tinted(rng, one_of(rng, (70, 120, 55), (130, 135, 60), (150, 70, 65))), mottle=44)
    clay = Material(tinted(rng, (165, 95, 65), 20), mottle=14)
    brush.limb([(0.0, 0.3), (0.0, -0.05)], 0.07, Material(tinted(rng, (95, 75, 50), 14)))
    for _ in range(int(rng.integers(6, 10))):
        turn = float(rng.uniform(0, 360))
        centre = ahead((0.0, -0.14), turn, float(rng.uniform(0.08, 0.24)))
        radii = (float(rng.uniform(0.12, 0.2)), float(rng.uniform(0.05, 0.11)))
        brush.disc(centre, radii, leaf.shaded(int(rng.integers(-24, 25))), angle=90 - turn)
    brush.plate([(-0.19, 0.22), (0.19, 0.22), (0.13, 0.49), (-0.13, 0.49)], clay)


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
