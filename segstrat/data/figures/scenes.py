"""Scenes and single-object images, each a pure function of (split, index)."""

from dataclasses import dataclass

import numpy as np

from segstrat.data.figures.brush import Brush, tinted
from segstrat.data.figures.canvas import Canvas, Material, Placement
from segstrat.data.figures.kinds import KINDS

IMAGE_SIZE = 80
VOID = 255
PERSON = 1
SEED = 2018
# Scenes and classification images never share a stream, nor do two splits.
STREAMS = {"train": 1, "val": 2, "test": 3, "classification/train": 4, "classification/val": 5}

Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """A drawn image and its labels.

    Args:
        image: (H, W, 3) uint8 RGB.
        semseg: (H, W) uint8 class labels, `VOID` along the outlines of objects.
        parts: (H, W) uint8 part labels of people, `VOID` along their outlines.
    """

    image: np.ndarray
    semseg: np.ndarray
    parts: np.ndarray


def draw_scene(split: str, index: int) -> Scene:
    """Scene `index` of split `train`, `val` or `test`: two to five objects, most often with people."""
    rng = np.random.default_rng([SEED, STREAMS[split], index])
    canvas = Canvas(IMAGE_SIZE, rng)
    _draw_background(canvas, rng)
    count = int(rng.integers(2, 5))
    kinds = [0 if rng.random() < 0.9 else int(rng.integers(len(KINDS)))]
    kinds += [int(rng.integers(len(KINDS))) for _ in range(count - 1)]
    # Distant objects are small, high in the image, and painted first.
    depths = np.sort(rng.random(count))
    for instance, (which, depth) in enumerate(zip(rng.permutation(kinds).tolist(), depths, strict=True), 1):
        low, high = KINDS[which].heights
        size = low + (high - low) * (0.6 * float(depth) + 0.4 * float(rng.random()))
        x = float(rng.uniform(0.08, 0.92)) * IMAGE_SIZE
        bottom = (0.55 + 0.5 * float(depth) + float(rng.uniform(-0.1, 0.05))) * IMAGE_SIZE
        _draw_object(canvas, rng, which, instance, size, (x, bottom - size / 2))
    _draw_clutter(canvas, rng, int(rng.integers(0, 3)), 24)
    image_HWC = _light(canvas, rng)
    semseg_HW, parts_HW = _with_void_borders(canvas)
    return Scene(image_HWC, semseg_HW, parts_HW)


def draw_single(split: str, index: int) -> tuple[np.ndarray, int]:
    """Classification image `index` of split `train` or `val`: uint8 RGB (H, W, 3), and its kind's number.

    Ground, clutter, light and noise are those of the scenes; kinds take turns, so each is equally frequent.
    """
    rng = np.random.default_rng([SEED, STREAMS[f"classification/{split}"], index])
    which = index % len(KINDS)
    canvas = Canvas(IMAGE_SIZE, rng)
    _draw_background(canvas, rng)
    low, high = KINDS[which].heights
    size = float(rng.uniform(low, high))
    centre = (float(rng.uniform(0.25, 0.75)) * IMAGE_SIZE, float(rng.uniform(0.3, 0.7)) * IMAGE_SIZE)
    _draw_object(canvas, rng, which, 1, size, centre)
    _draw_clutter(canvas, rng, int(rng.integers(0, 3)), 24)
    return _light(canvas, rng), which


def _draw_object(
    canvas: Canvas, rng: Rng, which: int, instance: int, size: float, centre: tuple[float, float]
) -> None:
    kind = KINDS[which]
    tilt = float(rng.uniform(-kind.tilt, kind.tilt))
    placement = Placement(*centre, size, tilt, flip=bool(rng.random() < 0.5))
    kind.draw(Brush(canvas, placement, instance, which + 1), rng)


def _draw_background(canvas: Canvas, rng: Rng) -> None:
    """Wall or sky above, ground below, then clutter without a class."""
    for top in (0, int(rng.uniform(0.25, 0.75) * canvas.size)):
        canvas.paint(canvas.below(top), _background_material(rng))
    _draw_clutter(canvas, rng, int(rng.integers(6, 13)), 40)


def _draw_clutter(canvas: Canvas, rng: Rng, count: int, longest: int) -> None:
    for _ in range(count):
        material = _background_material(rng)
        x, y = rng.uniform(0, canvas.size, 2)
        size = float(rng.uniform(6, longest))
        placement = Placement(float(x), float(y), size, float(rng.uniform(0, 180)))
        brush = Brush(canvas, placement, 0, 0)
        shape = int(rng.integers(3))
        if shape == 0:
            brush.limb([(-0.5, 0.0), (0.5, 0.0)], float(rng.uniform(0.06, 0.3)), material)
        elif shape == 1:
            brush.disc((0.0, 0.0), (0.5, float(rng.uniform(0.15, 0.5))), material)
        else:
            half = float(rng.uniform(0.1, 0.5))
            skew = float(rng.uniform(-0.2, 0.2))
            brush.plate([(-0.5, -half), (0.5, -half), (0.5 + skew, half), (-0.5 + skew, half)], material)


def _background_material(rng: Rng) -> Material:
    pattern = ("plain", "plain", "stripes", "checks", "spots")[int(rng.integers(5))]
    return Material(
        tinted(rng, (120, 120, 110), 60),
        pattern=pattern,
        period=int(rng.integers(36, 160)),
        angle=int(rng.integers(0, 180)),
        contrast=int(rng.integers(8, 30)),
        mottle=int(rng.integers(16, 48)),
    )


def _light(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Uint8 (H, W, 3): coloured light that falls off to one side, then sensor noise."""
    colour = rng.integers(190, 310, 3) + int(rng.integers(-50, 30))
    slope_x, slope_y = rng.integers(-60, 61, 2)
    position = np.arange(canvas.size, dtype=np.int64) * 2 - canvas.size
    fall = 256 + (slope_x * position[None, :] + slope_y * position[:, None]) // canvas.size
    lit = canvas.image() * fall[:, :, None] * colour // 65536
    grain = int(rng.integers(8, 28))
    noise = rng.integers(-grain, grain + 1, (canvas.size, canvas.size, 3))
    return np.clip(lit + noise, 0, 255).astype(np.uint8)


def _with_void_borders(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Labels with one pixel of void where an object meets another or the background, as VOC's outlines."""
    instances_HW, semseg_HW, parts_HW = canvas.seen()
    outline_HW, of_person_HW = (np.zeros(semseg_HW.shape, bool) for _ in range(2))
    person_HW = semseg_HW == PERSON
    for this, following in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        edge = instances_HW[this] != instances_HW[following]
        outline_HW[this] |= edge
        of_person_HW[this] |= edge & (person_HW[this] | person_HW[following])
    semseg_HW[outline_HW] = VOID
    parts_HW[of_person_HW] = VOID
    return semseg_HW, parts_HW
