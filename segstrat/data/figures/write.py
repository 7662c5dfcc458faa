"""Draws the embedded data once into the cache, in the formats of VOC, Person-Part and ImageFolder."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from segstrat import atomic
from segstrat.commands import tracked
from segstrat.data.cache.entries import discard, hold
from segstrat.data.figures.kinds import CLASSES, KINDS, PARTS
from segstrat.data.figures.scenes import SEED, draw_scene, draw_single
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError
from segstrat.parallel import cpu_cores
from segstrat.store import cache_dir, say_once

SCENES = {"train": 120, "val": 150, "test": 100}
SINGLES = {"train": 4000, "val": 400}
GENERATOR = ("canvas.py", "brush.py", "kinds.py", "scenes.py")
CLASSIFICATION = "classification/"
FACTS = "figures.json"
# Fewer images are drawn before another process has started.
SHARED_FROM = 200
_OS_ERRORS = 100  # exit codes above it are numbers of errors
_SHARE = "from segstrat.data.figures.write import draw_share; draw_share()"


def generator_digest() -> str:
    """Eight hex digits that change with any line of the generator, and with the number of images."""
    hasher = hashlib.sha256(json.dumps([SCENES, SINGLES, SEED]).encode())
    for name in GENERATOR:
        hasher.update((Path(__file__).parent / name).read_text(encoding="utf-8").encode())
    return hasher.hexdigest()[:8]


def ensure_figures(cache: Path | None = None, *, progress: bool = True, verify: bool = False) -> Path:
    """The folder of the embedded data; draws it on first use, which takes about half a minute of one core.

    The data appears atomically. Of several processes that ask at once, one draws and the others wait; on a
    file system without locks each draws, and the first to finish wins.

    Args:
        cache: parent of the folder; `segstrat.store.cache_dir()` if not given.
        progress: show a bar on standard error while it is drawn.
        verify: read all files to compare their checksum; data that is damaged is drawn again.

    Returns:
        A folder with `JPEGImages/`, `SegmentationClass/`, `SegmentationPart/`,
        `ImageSets/Segmentation/{train,val,test}.txt`, `Classification/{train,val}/<kind>/` and
        `figures.json` (sizes, and a digest of every pixel and label).

    Raises:
        UserError: if the cache directory cannot be written, or the disk is full.
    """
    parent = cache_dir() if cache is None else Path(cache)
    root = parent / f"figures-{generator_digest()}"
    if _is_sound(root, verify):
        hold(root)
        return root
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with atomic.only_builder(parent / f"{root.name}.lock"):
            if not _is_sound(root, verify):
                if root.exists():
                    why = "are damaged or of an earlier version"
                    say_once(f"the drawn scenes in {root} {why}; they are drawn again")
                    discard(root)
                _draw(root, progress)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(
            f"the embedded data cannot be written to {parent} ({reason}); free 100 MB there, or set "
            "SEGSTRAT_CACHE to another folder"
        ) from error
    hold(root)
    return root


def _is_sound(root: Path, verify: bool) -> bool:
    """Whether the data is there and, if asked, its files are those that were written."""
    if not (root.is_dir() and verify):
        return root.is_dir()
    try:
        facts = json.loads((root / FACTS).read_text(encoding="utf-8"))
        # Those of earlier versions have no checksum, and are drawn once more.
        return bool(facts.get("checksum") == _checksum(root))
    except (OSError, ValueError, AttributeError):
        return False


def _checksum(root: Path) -> int:
    """CRC-32 of the names and contents of all files but the facts."""
    found = 0
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.name != FACTS):
        name = path.relative_to(root).as_posix().encode()
        found = zlib.crc32(path.read_bytes(), zlib.crc32(name, found))
    return found


def _draw(root: Path, progress: bool) -> None:
    with atomic.creating_folder(root) as part:
        _make_folders(part)
        hasher = hashlib.sha256()
        count = len(_jobs())
        for pixels in tracked(_drawn(part), count, "draw the embedded data (once)", progress):
            hasher.update(pixels)
        for split, count in SCENES.items():
            names = "".join(f"{_scene_name(split, index)}\n" for index in range(count))
            (part / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names, encoding="utf-8")
        facts = {"digest": hasher.hexdigest(), "seed": SEED, "scenes": SCENES, "classification": SINGLES}
        facts |= {"semseg": CLASSES, "parts": PARTS, "checksum": _checksum(part)}
        (part / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _jobs() -> list[tuple[str, int]]:
    """Split and index of every image, in the order of the digest."""
    every = {**SCENES, **{f"{CLASSIFICATION}{split}": count for split, count in SINGLES.items()}}
    return [(split, index) for split, count in every.items() for index in range(count)]


def _write_job(root: Path, job: tuple[str, int]) -> bytes:
    """Draws and writes an image and its labels; returns all their pixels."""
    split, index = job
    if split.startswith(CLASSIFICATION):
        arrays = _write_single(root, split.removeprefix(CLASSIFICATION), index)
    else:
        arrays = _write_scene(root, split, index)
    return b"".join(array.tobytes() for array in arrays)


def _drawn(root: Path) -> Iterator[bytes]:
    """Draws and writes every image, and yields their pixels in order; all cores take turns.

    Drawing is Python that holds the interpreter lock: processes use the other cores, and send their pixels.
    """
    jobs = _jobs()
    cores = cpu_cores() if len(jobs) >= SHARED_FROM else 1
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(Path(__file__).parents[3]), *([given] if given else [])])
    helpers = [
        subprocess.Popen(
            [sys.executable, "-c", _SHARE, str(root), str(first), str(cores)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
        for first in range(1, cores)
    ]
    try:
        for number, job in enumerate(jobs):
            if number % cores == 0:
                yield _write_job(root, job)
                continue
            helper = helpers[number % cores - 1]
            assert helper.stdout is not None
            size = int.from_bytes(helper.stdout.read(4))
            if not size:
                code = helper.wait()
                if code <= _OS_ERRORS:
                    raise RuntimeError(f"a process that draws images ended with exit code {code}")
                raise OSError(code - _OS_ERRORS, os.strerror(code - _OS_ERRORS))
            yield helper.stdout.read(size)
    finally:
        for helper in helpers:
            helper.kill()
            helper.communicate()


def draw_share() -> None:
    """Draws and writes a share of the images in a process of its own, which `_drawn` starts.

    For each image, the length and the pixels go to standard output; the exit code tells an `OSError`.
    """
    # Ctrl-C reaches every process of the terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    root, first, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    try:
        for job in islice(_jobs(), first, None, step):
            pixels = _write_job(root, job)
            sys.stdout.buffer.write(len(pixels).to_bytes(4) + pixels)
            sys.stdout.buffer.flush()
    except OSError as error:
        # Not through `sys.exit`: the flush at exit would fail again.
        os._exit(_OS_ERRORS + (error.errno or errno.EIO))


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
