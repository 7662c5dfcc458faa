"""Decoded images and labels in memory-mapped files: decoded once per machine, shared by every process.

An entry is a folder `<part>-<digest>` of one part (`image`, or the labels of a task) of one dataset. So the
single-task and multi-task trials of a study share the images, and all label fractions share one entry. The
digest covers the list of files, their sizes and how they are read; the pages are shared by all processes
through the operating system's page cache.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from segstrat import atomic
from segstrat.commands import tracked
from segstrat.data.cache.entries import discard, hold
from segstrat.data.dataset import Dataset, Sample
from segstrat.data.files import FileDataset
from segstrat.errors import UserError
from segstrat.formatting import format_bytes
from segstrat.parallel import parallel_map
from segstrat.store import say_once

FORMAT = 1
MISSING = "is missing"
_MARGIN = 1.02
_BLOCK = 1 << 22


class RaggedArrays:
    """uint8 arrays of different shapes, concatenated in one file that is mapped when first read.

    Pickles as a path, so that another process maps the same pages.

    Args:
        folder: contains `pixels.u8`, `shapes.npy` (N, 3 as height, width, channels) and `entry.json`.
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
        """(N, 3) height, width and channels; all 0 for an image without the label."""
        return np.load(self.folder / "shapes.npy", allow_pickle=False)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.prod(self.shapes, axis=1, dtype=np.int64))])

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.asarray(np.memmap(self.folder / "pixels.u8", dtype=np.uint8, mode="r"))

    def problem(self, *, verify: bool = False) -> str:
        """Why the entry has to be built, '' if it is complete.

        Args:
            verify: also compare its checksum, which reads all of it.
        """
        if not self.folder.exists():
            return MISSING
        try:
            entry = json.loads((self.folder / "entry.json").read_text())
            size = (self.folder / "pixels.u8").stat().st_size
            expected, checksum = entry["bytes"], entry.get("checksum")
            shaped = int(np.prod(self.shapes, axis=1, dtype=np.int64).sum())
            if entry["format"] != FORMAT or not expected == size == shaped:
                return f"has {size} bytes in images of {shaped} instead of {expected}"
            # Entries of earlier versions have no checksum.
            if verify and checksum not in (None, self.checksum()):
                return "differs from its checksum"
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            return f"cannot be read ({error})"
        return ""

    def checksum(self) -> int:
        """CRC-32 of all its pixels and shapes."""
        found = zlib.crc32((self.folder / "shapes.npy").read_bytes())
        with (self.folder / "pixels.u8").open("rb") as file:
            while block := file.read(_BLOCK):
                found = zlib.crc32(block, found)
        return found


class CachedDataset(Dataset):
    """A dataset whose samples are read-only views of mapped files; reading decodes nothing."""

    decoded = True

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

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image."""
        height, width, _ = self._images.shapes[index].tolist()
        return height, width

    def read(self, index: int) -> Sample:
        """Views of the image and its labels."""
        labels = {task: self._labels[task][index] for task in self.tasks_of(index)}
        return Sample(self.ids[index], self._images[index], labels)


def cached(
    datasets: Sequence[FileDataset], cache_dir: Path, *, progress: bool = False, verify: bool = False
) -> list[CachedDataset]:
    """The datasets, read from the cache, which is filled first where a part is missing or damaged.

    Several processes and nodes may call this at once: one builds, the others wait. Where the file system has
    no locks, each builds its own entry and the first to finish wins.

    Args:
        verify: read all of the cache to compare its checksums.

    Raises:
        UserError: if a file does not decode, the disk is too full, or the folder cannot be written.
    """
    top = cache_dir / "decoded"
    folders = [
        {part: top / f"{part}-v{FORMAT}-{digest}" for part, digest in dataset.parts.items()}
        for dataset in datasets
    ]

    def missing() -> list[tuple[FileDataset, str, Path]]:
        found = []
        for dataset, parts in zip(datasets, folders, strict=True):
            for part, folder in parts.items():
                if problem := RaggedArrays(folder).problem(verify=verify):
                    found.append((dataset, part, folder))
                    if problem != MISSING:
                        say_once(f"cache {folder} {problem}; it is built again")
        return found

    def say_waiting() -> None:
        if progress:
            Console(stderr=True).print(f"Another process is filling {top}; waiting for it.")

    if missing():
        with _writing(top), atomic.only_builder(top / "build.lock", say_waiting):
            _build(missing(), top, progress)
    for parts in folders:
        for folder in parts.values():
            hold(folder)
    return [
        CachedDataset(dataset, {part: RaggedArrays(folder) for part, folder in parts.items()})
        for dataset, parts in zip(datasets, folders, strict=True)
    ]


def decoded_bytes(dataset: FileDataset, parts: Collection[str]) -> int:
    """Bytes that parts of a dataset take when decoded, computed from the headers of its images alone."""
    sizes = parallel_map(dataset.image_size, range(len(dataset)))
    return sum(
        height * width * (3 * ("image" in parts) + len({*dataset.tasks_of(index)} & {*parts}))
        for index, (height, width) in enumerate(sizes)
    )


def _build(missing: Sequence[tuple[FileDataset, str, Path]], top: Path, progress: bool) -> None:
    atomic.remove_abandoned(top)
    wanted: dict[FileDataset, set[str]] = {}
    for dataset, part, _ in missing:
        wanted.setdefault(dataset, set()).add(part)
    needed = sum(decoded_bytes(dataset, parts) for dataset, parts in wanted.items())
    _check_space(needed, top)
    if progress and missing:
        Console(stderr=True).print(f"Decoding once into {top}: {format_bytes(needed)}.", highlight=False)
    for dataset, part, folder in missing:
        if folder.exists():
            discard(folder)
        _build_part(dataset, part, folder, progress)


def _build_part(dataset: FileDataset, part: str, folder: Path, progress: bool) -> None:
    def decode(index: int) -> np.ndarray:
        if part == "image":
            return dataset.image(index)
        if part in dataset.tasks_of(index):
            return dataset.label(index, part)
        return np.empty((0, 0), dtype=np.uint8)

    arrays = tracked(parallel_map(decode, range(len(dataset))), len(dataset), f"decode {part}", progress)
    with atomic.creating_folder(folder) as partial:
        _write_entry(arrays, partial)


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
    entry = {"format": FORMAT, "bytes": size, "arrays": len(shapes)}
    entry["checksum"] = RaggedArrays(partial).checksum()
    (partial / "entry.json").write_text(json.dumps(entry))


def _check_space(needed: int, top: Path) -> None:
    free = shutil.disk_usage(top).free
    if needed * _MARGIN > free:
        raise UserError(
            f"the decoded data needs {format_bytes(needed)} in {top}, but {format_bytes(free)} are free; "
            "free some space, choose another cache folder, or decode on the fly with --no-cache"
        )


@contextmanager
def _writing(top: Path) -> Iterator[None]:
    try:
        top.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise UserError(
            f"cache folder {top} cannot be written: {problem}; free some space, choose another cache folder, "
            "or decode on the fly with --no-cache"
        ) from error
