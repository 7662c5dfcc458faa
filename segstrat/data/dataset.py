"""Datasets: samples by index, some labelled for several tasks, and a digest of their files."""

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from segstrat.errors import UserError

VOID = 255
"""Label value that is neither trained on nor scored, in every dataset here."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its label maps.

    Args:
        id: name of the image, unique in its dataset.
        image: (H, W, 3) uint8, RGB. May be a read-only view.
        labels: task -> (H, W) uint8 class indices, `VOID` where nothing is labelled; only the tasks
            that this image is labelled for.
    """

    id: str
    image: np.ndarray
    labels: dict[str, np.ndarray]


class Dataset(ABC):
    """Samples by index. Reading is thread-safe, and a dataset can be pickled."""

    ids: Sequence[str]
    """Names of the images, in the order of their indices."""

    decoded = False
    """Whether reading is free, because everything was decoded before."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    @abstractmethod
    def digest(self) -> str:
        """Hex digest of ids, file sizes and the version of the readers; not of where the files are."""

    @abstractmethod
    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The image and its labels, whose values are classes or `VOID`.

        Raises:
            UserError: if a file is missing or damaged, or its label does not fit; the file is named.
        """

    def labels(self, index: int) -> dict[str, np.ndarray]:
        """The labels alone, as `read` has them."""
        return self.read(index).labels

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.read(index).image.shape[:2]
        return height, width


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = tuple(indices)
        self.ids = tuple(dataset.ids[i] for i in self.indices)
        self.decoded = dataset.decoded

    @property
    def digest(self) -> str:
        """Digest of the underlying dataset and the chosen ids."""
        return hash_strings([self.dataset.digest, *self.ids])

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""
        return self.dataset.tasks_of(self.indices[index])

    def read(self, index: int) -> Sample:
        """The image and its labels."""
        return self.dataset.read(self.indices[index])

    def labels(self, index: int) -> dict[str, np.ndarray]:
        """The labels alone."""
        return self.dataset.labels(self.indices[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image."""
        return self.dataset.image_size(self.indices[index])


class Concat(Dataset):
    """Several datasets, concatenated, for example two sources labelled for different tasks.

    Raises:
        UserError: if an id occurs in two of them.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = tuple(datasets)
        self.ids = tuple(name for dataset in self.datasets for name in dataset.ids)
        self.decoded = all(dataset.decoded for dataset in self.datasets)
        self._ends = tuple(accumulate(len(dataset) for dataset in self.datasets))
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
            raise UserError(f"image {twice!r} is in two of the sources that are combined; remove it from one")

    @property
    def digest(self) -> str:
        """Digest of the parts' digests."""
        return hash_strings(dataset.digest for dataset in self.datasets)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        """Tasks that the image is labelled for."""
        dataset, local = self._locate(index)
        return dataset.tasks_of(local)

    def read(self, index: int) -> Sample:
        """The image and its labels."""
        dataset, local = self._locate(index)
        return dataset.read(local)

    def labels(self, index: int) -> dict[str, np.ndarray]:
        """The labels alone."""
        dataset, local = self._locate(index)
        return dataset.labels(local)

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width of the image."""
        dataset, local = self._locate(index)
        return dataset.image_size(local)

    def _locate(self, index: int) -> tuple[Dataset, int]:
        part = bisect_right(self._ends, range(len(self))[index])
        start = self._ends[part - 1] if part else 0
        return self.datasets[part], range(len(self))[index] - start


def nested_indices(ids: Sequence[str], fraction: float, seed: int) -> tuple[int, ...]:
    """Indices of a random share of the ids, in their order.

    The subsets of one seed are nested: those of a smaller fraction are in those of a larger one. They
    depend only on the seed and the ids, not on the order of the ids.

    Args:
        ids: unique names.
        fraction: share in (0, 1]; at least one index is returned.
        seed: each seed has its own nesting.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"a share of the training images must be in (0, 1], not {fraction}")
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in ids]
    order = sorted(range(len(ids)), key=keys.__getitem__)
    return tuple(sorted(order[: max(1, round(fraction * len(ids)))]))


def hash_strings(parts: Iterable[str]) -> str:
    """Hex digest of a sequence of strings."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() + b"\0")
    return total.hexdigest()[:16]
