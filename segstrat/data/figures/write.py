"""Draws the embedded data once into the cache, in the formats of VOC, Person-Part and ImageFolder."""

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from segstrat import atomic
from segstrat.commands import tracked
from segstrat.data.cache.entries import hold
from segstrat.data.figures.kinds import CLASSES, KINDS, PARTS
from segstrat.data.figures.scenes import SEED, draw_scene, draw_single
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError
from segstrat.store import cache_dir

SCENES = {"train": 120, "val": 150, "test": 100}
SINGLES = {"train": 4000, "val": 400}
GENERATOR = ("canvas.py", "brush.py", "kinds.py", "scenes.py")


def generator_digest() -> str:
    """Eight hex digits that change with any line of the generator, and with the number of images."""
    hasher = hashlib.sha256(json.dumps([SCENES, SINGLES, SEED]).encode())
    for name in GENERATOR:
        hasher.update((Path(__file__).parent / name).read_text(encoding="utf-8").encode())
    return hasher.hexdigest()[:8]


def ensure_figures(cache: Path | None = None, *, progress: bool = True) -> Path:
    """The folder of the embedded data; draws it on first use, which takes half a minute.

    The data appears atomically. Of several processes that ask at once, one draws and the others wait; on a
    file system without locks each draws, and the first to finish wins.

    Args:
        cache: parent of the folder; `segstrat.store.cache_dir()` if not given.
        progress: show a bar on standard error while it is drawn.

    Returns:
        A folder with `JPEGImages/`, `SegmentationClass/`, `SegmentationPart/`,
        `ImageSets/Segmentation/{train,val,test}.txt`, `Classification/{train,val}/<kind>/` and
        `figures.json` (sizes, and a digest of every pixel and label).

    Raises:
        UserError: if the cache directory cannot be written, or the disk is full.
    """
    parent = cache_dir() if cache is None else Path(cache)
    root = parent / f"figures-{generator_digest()}"
    if root.is_dir():
        hold(root)
        return root
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with atomic.only_builder(parent / f"{root.name}.lock"):
            if not root.is_dir():
                _draw(root, progress)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(
            f"the embedded data cannot be written to {parent} ({reason}); free 100 MB there, or set "
            "SEGSTRAT_CACHE to another folder"
        ) from error
    hold(root)
    return root


def _draw(root: Path, progress: bool) -> None:
    with atomic.creating_folder(root) as part:
        _make_folders(part)
        hasher = hashlib.sha256()
        jobs = [(_write_scene, split, index) for split, count in SCENES.items() for index in range(count)]
        jobs += [(_write_single, split, index) for split, count in SINGLES.items() for index in range(count)]
        for write, split, index in tracked(jobs, len(jobs), "draw the embedded data (once)", progress):
            for pixels in write(part, split, index):
                hasher.update(pixels.tobytes())
        for split, count in SCENES.items():
            names = "".join(f"{_scene_name(split, index)}\n" for index in range(count))
            (part / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names, encoding="utf-8")
        facts = {"digest": hasher.hexdigest(), "seed": SEED, "scenes": SCENES, "classification": SINGLES}
        facts |= {"semseg": CLASSES, "parts": PARTS}
        (part / "figures.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _make_folders(root: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass", "SegmentationPart", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for split in SINGLES:
        for kind in KINDS:
            (root / "Classification" / split / kind.name).mkdir(parents=True)


def _scene_name(split: str, index: int) -> str:
    return f"{split}_{index:04d}"


def _write_scene(root: Path, split: str, index: int) -> list[np.ndarray]:
    """Writes a scene and returns its arrays."""
    scene = draw_scene(split, index)
    name = f"{_scene_name(split, index)}.png"
    _save(Image.fromarray(scene.image), root / "JPEGImages" / name)
    semseg = Image.fromarray(scene.semseg)
    semseg.putpalette(voc_palette().tobytes())
    _save(semseg, root / "SegmentationClass" / name)
    _save(Image.fromarray(scene.parts), root / "SegmentationPart" / name)
    return [scene.image, scene.semseg, scene.parts]


def _write_single(root: Path, split: str, index: int) -> list[np.ndarray]:
    """Writes a classification image and returns it."""
    image_HWC, which = draw_single(split, index)
    _save(
        Image.fromarray(image_HWC), root / "Classification" / split / KINDS[which].name / f"{index:05d}.png"
    )
    return [image_HWC]


def _save(image: Image.Image, path: Path) -> None:
    # Noise does not compress: the fastest level is nearly as small as the best.
    image.save(path, compress_level=1)
