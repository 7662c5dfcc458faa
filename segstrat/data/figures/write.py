"""Writes the drawn data once to the user's cache, in the formats of VOC, Person-Part and ImageFolder."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import platformdirs
from PIL import Image

from segstrat.data.figures.kinds import CLASSES, KINDS, PARTS
from segstrat.data.figures.scenes import SEED, draw_scene, draw_single
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError

SCENES = {"train": 120, "val": 150, "test": 100}
SINGLES = {"train": 4000, "val": 400}

Progress = Callable[[int, int], None]


def cache_root() -> Path:
    """The folder for everything that can be made again: `$SEGSTRAT_CACHE`, or the user's cache directory."""
    chosen = os.environ.get("SEGSTRAT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("segstrat"))


def generator_digest() -> str:
    """Eight hex digits that change with any line of the generator, and with the number of images."""
    hasher = hashlib.sha256(json.dumps([SCENES, SINGLES, SEED]).encode())
    for name in ("canvas.py", "kinds.py", "scenes.py"):
        hasher.update((Path(__file__).parent / name).read_text(encoding="utf-8").encode())
    return hasher.hexdigest()[:8]


def ensure_figures(cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of the embedded data; draws it if it is not there yet.

    The data appears whole or not at all: it is written beside its place and renamed. Of several processes
    that draw it at once, one wins and the others take its result.

    Args:
        cache_dir: parent of the folder; `cache_root()` if not given.
        progress: called with (images drawn, images in all) as the drawing goes on.

    Returns:
        A folder with `JPEGImages/`, `SegmentationClass/`, `SegmentationPart/`,
        `ImageSets/Segmentation/{train,val,test}.txt`, `Classification/{train,val}/<kind>/` and
        `figures.json` (sizes, and a digest of every pixel and label).

    Raises:
        UserError: if the cache directory cannot be written, or the disk is full.
    """
    parent = cache_root() if cache_dir is None else Path(cache_dir)
    root = parent / f"figures-{generator_digest()}"
    if root.is_dir():
        return root
    part = parent / f"{root.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        _write_all(part, progress or (lambda _done, _total: None))
        _rename(part, root)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise UserError(
            f"the embedded data cannot be written to {parent} ({reason}); free about 100 MB there, "
            "or set SEGSTRAT_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def _rename(part: Path, root: Path) -> None:
    try:
        part.rename(root)
    except OSError:
        # A folder is renamed onto a filled one by no system: another process was faster, with the same bits.
        if not root.is_dir():
            raise


def _write_all(root: Path, progress: Progress) -> None:
    for name in ("JPEGImages", "SegmentationClass", "SegmentationPart", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for split in SINGLES:
        for kind in KINDS:
            (root / "Classification" / split / kind.name).mkdir(parents=True)
    total = sum(SCENES.values()) + sum(SINGLES.values())
    done = 0
    hasher = hashlib.sha256()
    for split, count in SCENES.items():
        for index in range(count):
            _write_scene(root, split, index, hasher)
            progress(done := done + 1, total)
        listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("".join(f"{split}_{index:04d}\n" for index in range(count)), encoding="utf-8")
    for split, count in SINGLES.items():
        for index in range(count):
            image_HWC, which = draw_single(split, index)
            hasher.update(image_HWC.tobytes())
            folder = root / "Classification" / split / KINDS[which].name
            _save(Image.fromarray(image_HWC), folder / f"{index:05d}.png")
            progress(done := done + 1, total)
    facts = {
        "digest": hasher.hexdigest(),
        "seed": SEED,
        "scenes": SCENES,
        "classification": SINGLES,
        "semseg": CLASSES,
        "parts": PARTS,
    }
    (root / "figures.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _write_scene(root: Path, split: str, index: int, hasher: "hashlib._Hash") -> None:
    scene = draw_scene(split, index)
    for array in (scene.image, scene.semseg, scene.parts):
        hasher.update(array.tobytes())
    name = f"{split}_{index:04d}.png"
    _save(Image.fromarray(scene.image), root / "JPEGImages" / name)
    semseg = Image.fromarray(scene.semseg)
    semseg.putpalette(voc_palette().tobytes())
    _save(semseg, root / "SegmentationClass" / name)
    _save(Image.fromarray(scene.parts), root / "SegmentationPart" / name)


def _save(image: Image.Image, path: Path) -> None:
    # Noise does not compress: the fastest level is as small as the best.
    image.save(path, compress_level=1)
