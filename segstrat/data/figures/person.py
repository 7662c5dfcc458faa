"""People: the only kind of object with labelled parts."""

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
