"""Animals, vehicles and household things: every object of a scene that is not a person."""

from segstrat.data.figures.brush import Brush, Rng, ahead, one_of, patterned, tinted
from segstrat.data.figures.canvas import Material


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
