"""Images of VOC's size and JPEG density, drawn from a seed, with label maps of blobs, in VOC's formats."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES = 21
HEIGHT, WIDTH = 375, 500

_TOML = """name = "scenes"
images = "images"
[splits]
train = "train.txt"
val = "val.txt"
[tasks.semseg]
labels = "labels"
classes = [{classes}]
"""


@contextmanager
def scenes_folder(images: int, validation: int = 1, drawn: int | None = None) -> Iterator[Path]:
    """A temporary data root of the `folder` protocol; half of the images are in portrait format.

    Args:
        drawn: an even number; further images are links to these, because drawing takes long.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="segstrat-benchmark-") as name:
        root = Path(name)
        (root / "images").mkdir()
        (root / "labels").mkdir()
        names = ", ".join(f'"class {i}"' for i in range(CLASSES))
        (root / "dataset.toml").write_text(_TOML.format(classes=names))
        ids = [f"{i:05}" for i in range(images + validation)]
        for number, each in enumerate(ids):
            files = root / f"images/{each}.jpg", root / f"labels/{each}.png"
            if drawn is not None and number >= drawn:
                for file in files:
                    os.link(file.with_stem(ids[number % drawn]), file)
                continue
            size = (HEIGHT, WIDTH) if number % 2 == 0 else (WIDTH, HEIGHT)
            Image.fromarray(_picture(rng, size)).save(files[0], quality=90)
            Image.fromarray(_blobs(rng, size)).save(files[1])
        (root / "train.txt").write_text("\n".join(ids[:images]))
        (root / "val.txt").write_text("\n".join(ids[images:]))
        yield root


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: noise of four scales, weighted so that a JPEG takes as many bytes as a photo."""
    picture = np.full((*size, 3), 128, np.float32)
    for cell, weight in ((1, 3), (4, 12), (16, 36), (64, 60)):
        coarse = rng.normal(0, weight, (-(-size[0] // cell), -(-size[1] // cell), 3)).astype(np.float32)
        picture += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def _blobs(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 labels: a few ellipses with a void rim on background, as in VOC."""
    label = np.zeros(size, np.uint8)
    for _ in range(3):
        centre = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        axes = (int(rng.integers(20, 120)), int(rng.integers(20, 120)))
        angle = float(rng.uniform(0, 180))
        cv2.ellipse(label, centre, axes, angle, 0, 360, int(rng.integers(1, CLASSES)), thickness=-1)
        cv2.ellipse(label, centre, axes, angle, 0, 360, 255, thickness=5)
    return label
