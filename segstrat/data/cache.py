"""Decoded images and labels in memory-mapped files: decoded once a machine, shared by every process.

An entry is a folder `<part>-<digest>` of one part (`image`, or the labels of a task) of one dataset. So the
single-task and the joint trials of a study share the images, and every label fraction shares the whole. The
digest covers the list of files, their sizes and how they are read; the pages are shared by all processes
through the operating system's page cache.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import filelock
import numpy as np

from segstrat.data.dataset import Dataset, Sample
from segstrat.data.files import FileDataset
from segstrat.data.parallel import parallel_map, tracked
from segstrat.errors import UserError

FORMAT = 1
_ABANDONED_SECONDS = 3600
_MARGIN = 1.02


class RaggedArrays:
    """uint8 arrays of different shapes, one after the other in a file that is mapped when first read.

    Pickles as a path, so that another process maps the same pages.

    Args:
        folder: holds `pixels.u8`, `shapes.npy` (N, 3 as height, width, channels) and `entry.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, Path]:
        return {"folder": self.folder}

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        """A read-only view: (H, W) with one channel, else (H, W, C)."""
        height, width, channels = map(int, self.shapes[index])
        start = int(self._starts[index])
        flat = self._pixels[start : start + height * width * channels]
        return flat.reshape((height, width, channels) if channels > 1 else (height, width))

    @cached_property
    def shapes(self) -> np.ndarray:
        """(N, 3) height, width and channels; all zero where an image lacks the label."""
        return np.load(self.folder / "shapes.npy", allow_pickle=False)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.prod(self.shapes, axis=1, dtype=np.int64))])

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.asarray(np.memmap(self.folder / "pixels.u8", dtype=np.uint8, mode="r"))

    def is_whole(self) -> bool:
        """Whether the entry is there.

        Raises:
            UserError: if it is there but was not written by this version, or is not as long as it says.
        """
        try:
            entry = json.loads((self.folder / "entry.json").read_text())
            size = (self.folder / "pixels.u8").stat().st_size
        except FileNotFoundError:
            if self.folder.exists():
                raise UserError(
                    f"cache {self.folder} lacks files; delete that folder, and it is built again"
                ) from None
            return False
        except (OSError, ValueError) as error:
            raise UserError(
                f"cache {self.folder} cannot be read ({error}); delete that folder, and it is built again"
            ) from error
        if entry.get("format") != FORMAT:
            raise UserError(
                f"cache {self.folder} has format {entry.get('format')}, this version reads {FORMAT}; delete that "
                "folder, and it is built again"
            )
        if entry["bytes"] != size:
            raise UserError(
                f"cache {self.folder} holds {size} bytes of {entry['bytes']}; delete that folder, and it is "
                "built again"
            )
        return True


class CachedDataset(Dataset):
    """A dataset whose samples are read-only views of mapped files; reading decodes nothing."""

    def __init__(self, dataset: FileDataset, parts: dict[str, RaggedArrays]) -> None:
        self.ids = dataset.ids
        self.tasks = dataset.tasks
        self._digest = dataset.digest
        self._images = parts["image"]
        self._labels = {task: parts[task] for task in dataset.tasks}

    @property
    def digest(self) -> str:
        """Digest of the files that were decoded."""
        return self._digest

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""
        return tuple(task for task in self.tasks if self._labels[task].shapes[index, 0] > 0)

    def read(self, index: int) -> Sample:
        """Views of the image and its labels."""
        labels = {task: self._labels[task][index] for task in self.tasks_of(index)}
        return Sample(self.ids[index], self._images[index], labels)


def cached(dataset: FileDataset, cache_dir: Path, *, progress: bool = False) -> CachedDataset:
    """The dataset out of the cache, which is built first where it is not whole.

    Several processes and nodes may ask at once: one builds, the others wait. Where the file system has no
    locks, each builds its own and the first to finish wins.

    Raises:
        UserError: if a file does not decode, the disk is too full, or the folder cannot be written.
    """
    top = cache_dir / "decoded"
    parts = {
        part: RaggedArrays(top / f"{part}-v{FORMAT}-{dataset.part_digest(part)}")
        for part in ("image", *dataset.tasks)
    }
    for part, arrays in parts.items():
        if arrays.is_whole():
            continue
        with _writing(arrays.folder), _only_builder(arrays.folder):
            if not arrays.is_whole():
                _build(dataset, part, arrays.folder, progress)
    return CachedDataset(dataset, parts)


def cache_bytes(dataset: FileDataset, part: str, *, progress: bool = False) -> int:
    """Bytes that a part of a dataset takes when decoded, from the headers of its images."""
    channels = 3 if part == "image" else 1
    labelled = [i for i in range(len(dataset)) if part == "image" or part in dataset.tasks_of(i)]
    sizes = tracked(parallel_map(dataset.image_size, labelled), len(labelled), f"size of {part}", progress)
    return sum(height * width for height, width in sizes) * channels


def _build(dataset: FileDataset, part: str, folder: Path, progress: bool) -> None:
    _remove_abandoned(folder)
    _check_space(cache_bytes(dataset, part, progress=progress), folder)

    def decode(index: int) -> np.ndarray:
        if part == "image":
            return dataset.image(index)
        if part in dataset.tasks_of(index):
            return dataset.label(index, part)
        return np.empty((0, 0), dtype=np.uint8)

    arrays = tracked(parallel_map(decode, range(len(dataset))), len(dataset), f"decode {part}", progress)
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    partial.mkdir()
    try:
        _write_entry(arrays, partial)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_entry(arrays: Iterator[np.ndarray], partial: Path) -> None:
    shapes = []
    with (partial / "pixels.u8").open("wb") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
            shapes.append((*array.shape, 1)[:3])
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    np.save(partial / "shapes.npy", np.array(shapes, dtype=np.int32).reshape(-1, 3))
    (partial / "entry.json").write_text(json.dumps({"format": FORMAT, "bytes": size, "arrays": len(shapes)}))


def _publish(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another node without our lock was faster: its entry has the same digest, so the same content.
        if not RaggedArrays(folder).is_whole():
            raise


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed * _MARGIN > free:
        raise UserError(
            f"the decoded data needs {_gigabytes(needed)} in {folder.parent}, but {_gigabytes(free)} are free; "
            "free some, choose another cache folder, or decode on the fly with --no-cache"
        )


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise UserError(
            f"cache folder {folder.parent} cannot be written: {problem}; free some space, choose another cache "
            "folder, or decode on the fly with --no-cache"
        ) from error


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _remove_abandoned(folder: Path) -> None:
    for partial in folder.parent.glob(f"{folder.name}.*.part"):
        newest = max((path.stat().st_mtime for path in (partial, *partial.iterdir())), default=0.0)
        if time.time() - newest > _ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
