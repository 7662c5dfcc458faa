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
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.console import Console

from segstrat import atomic
from segstrat.commands import tracked
from segstrat.data.cache.entries import hold
from segstrat.data.dataset import Dataset, Sample
from segstrat.data.files import FileDataset
from segstrat.errors import UserError
from segstrat.formatting import format_bytes
from segstrat.parallel import parallel_map

FORMAT = 1
_MARGIN = 1.02


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

    def is_complete(self) -> bool:
        """Whether the entry exists.

        Raises:
            UserError: if it exists but was written by another version, or its size is wrong.
        """
        try:
            entry = json.loads((self.folder / "entry.json").read_text())
            size = (self.folder / "pixels.u8").stat().st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self.folder.exists():
                return False
            raise self._unfit("lacks a file") from error
        except (OSError, ValueError) as error:
            raise self._unfit(f"cannot be read ({error})") from error
        if entry.get("format") != FORMAT:
            raise self._unfit(f"has format {entry.get('format')}, and this version reads format {FORMAT}")
        if entry["bytes"] != size:
            raise self._unfit(f"has {size} bytes instead of {entry['bytes']}")
        return True

    def _unfit(self, problem: str) -> UserError:
        return UserError(f"cache {self.folder} {problem}; delete that folder, it will be built again")


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

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image."""
        height, width, _ = self._images.shapes[index].tolist()
        return height, width

    def read(self, index: int) -> Sample:
        """Views of the image and its labels."""
        labels = {task: self._labels[task][index] for task in self.tasks_of(index)}
        return Sample(self.ids[index], self._images[index], labels)


def cached(
    datasets: Sequence[FileDataset], cache_dir: Path, *, progress: bool = False
) -> list[CachedDataset]:
    """The datasets, read from the cache, which is filled first where a part is missing.

    Several processes and nodes may call this at once: one builds, the others wait. Where the file system has
    no locks, each builds its own entry and the first to finish wins.

    Raises:
        UserError: if a file does not decode, the disk is too full, or the folder cannot be written.
    """
    top = cache_dir / "decoded"
    found = [
        {part: RaggedArrays(top / f"{part}-v{FORMAT}-{digest}") for part, digest in dataset.parts.items()}
        for dataset in datasets
    ]

    def missing() -> list[tuple[FileDataset, str, Path]]:
        return [
            (dataset, part, arrays.folder)
            for dataset, parts in zip(datasets, found, strict=True)
            for part, arrays in parts.items()
            if not arrays.is_complete()
        ]

    def say_waiting() -> None:
        if progress:
            Console(stderr=True).print(f"Another process is filling {top}; waiting for it.")

    if missing():
        with _writing(top), atomic.only_builder(top / "build.lock", say_waiting):
            _build(missing(), top, progress)
    for parts in found:
        for arrays in parts.values():
            hold(arrays.folder)
    return [CachedDataset(dataset, parts) for dataset, parts in zip(datasets, found, strict=True)]


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
    (partial / "entry.json").write_text(json.dumps({"format": FORMAT, "bytes": size, "arrays": len(shapes)}))


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
