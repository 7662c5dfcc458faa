"""Pixel counts of every image after the last epoch, from which mIoU over any subset of images derives.

    counts.npz in a trial's folder: for each task and split the arrays `<task>/<split>/ids`, `…/hits`,
    `…/labeled` and `…/predicted`, `…/boundary` where boundaries are scored, and `…/confusion` over all images

The analysis uses them to choose settings on some images and report them on others, and to estimate how much a
score depends on the images. Needs numpy only.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segstrat.store import Store

COUNTS = "counts.npz"
GROUPS = 20
HALVES = ("a", "b")

Counts = NDArray[np.int64]
Score = Callable[..., float]
"""From hits, labeled and predicted pixels of each class (C,), and of boundaries (4, C) where counted."""


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Pixel counts of one task on one split, by image and class; pixels with a void label count nowhere.

    Args:
        ids: names of the images, N of them.
        hits: pixels whose label and prediction are the class, (N, C).
        labeled: pixels whose label is the class, (N, C).
        predicted: pixels whose prediction is the class, (N, C).
        boundary: as from `segstrat.data.boundaries.boundary_counts`, (N, 4, C); None where not scored.
        confusion: pixels over all images, by label and prediction (C, C); None for trials of first versions.
    """

    ids: tuple[str, ...]
    hits: Counts
    labeled: Counts
    predicted: Counts
    boundary: Counts | None = None
    confusion: Counts | None = None

    def miou(self, keep: NDArray[np.bool_] | None = None, score: Score | None = None) -> float:
        """mIoU over the images of `keep` (N,), or over all; NaN where no class occurs.

        Args:
            score: from summed counts, in place of mIoU.

        As for `segstrat.metrics.ConfusionMatrix`: counts are summed over images, and a class that neither
        occurs nor is predicted is left out of the mean.
        """
        rows = slice(None) if keep is None else keep
        counts = [self.hits, self.labeled, self.predicted]
        if score and self.boundary is not None:
            counts.append(self.boundary)
        return (score or mean_iou)(*(each[rows].sum(axis=0, dtype=np.int64) for each in counts))

    def half_mious(self, score: Score | None = None) -> dict[str, float]:
        """mIoU over each half of the images; `image_half` says which image is in which."""
        halves = np.array([image_half(name) for name in self.ids])
        return {half: self.miou(halves == half, score) for half in HALVES}

    def jackknife_mious(self, score: Score | None = None) -> NDArray[np.float64]:
        """mIoU without each group of images (G,), G ≤ `GROUPS`; the groups are the same in every trial."""
        groups = np.array([image_group(name) for name in self.ids])
        return np.array([self.miou(groups != group, score) for group in np.unique(groups)])

    def constant_miou(self) -> float:
        """mIoU of the best constant prediction: the most frequent class everywhere."""
        labeled = self.labeled.sum(axis=0, dtype=np.int64)
        return best_constant_miou(labeled)


def mean_iou(
    hits: NDArray[np.integer], labeled: NDArray[np.integer], predicted: NDArray[np.integer]
) -> float:
    """Mean IoU over the classes that are labeled or predicted; from pixel counts (C,), NaN without any."""
    union = labeled + predicted - hits
    known = union > 0
    return float((hits[known] / union[known]).mean()) if known.any() else float("nan")


def mean_boundary_f1(boundary: NDArray[np.integer]) -> float:
    """Mean over the classes of the boundary F-score (Csurka et al. 2013); NaN where no class has a boundary.

    The harmonic mean of precision and recall of a class's boundary pixels. As for mIoU, pixels are counted
    over all images first; a class without boundary in labels and predictions is left out of the mean.

    Args:
        boundary: summed over images, (4, C), see `segstrat.data.boundaries.boundary_counts`.
    """
    found, predicted, met, labeled = boundary.astype(np.float64)
    known = predicted + labeled > 0
    precision = found / np.maximum(predicted, 1)
    recall = met / np.maximum(labeled, 1)
    values = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(values[known].mean()) if known.any() else float("nan")


def best_constant_miou(labeled: NDArray[np.integer] | Sequence[int]) -> float:
    """mIoU of predicting the most frequent class everywhere.

    Args:
        labeled: labeled pixels of each class (C,).
    """
    counts = np.asarray(labeled, dtype=np.int64)
    total, classes = int(counts.sum()), int((counts > 0).sum())
    return float(counts.max() / total / classes) if total else float("nan")


def image_half(name: str) -> str:
    """The half of the images that an image belongs to, `a` or `b`: a digest of its name decides."""
    return HALVES[_digest(name) % 2]


def image_group(name: str) -> int:
    """The jackknife group that an image belongs to, 0 … `GROUPS` − 1; independent of its half."""
    return _digest(name) // 2 % GROUPS


def write_counts(store: Store, counts: Mapping[tuple[str, str], ImageCounts]) -> None:
    """Writes the counts of each (task, split) into a trial's folder, atomically."""
    arrays: dict[str, np.ndarray] = {}
    for (task, split), found in counts.items():
        arrays[f"{task}/{split}/ids"] = np.array(found.ids, dtype=str)
        for name in ("hits", "labeled", "predicted"):
            arrays[f"{task}/{split}/{name}"] = _smallest(getattr(found, name))
        for name in ("boundary", "confusion"):
            if (more := getattr(found, name)) is not None:
                arrays[f"{task}/{split}/{name}"] = _smallest(more)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    store.write(COUNTS, buffer.getvalue())


def read_counts(store: Store) -> dict[tuple[str, str], ImageCounts]:
    """The counts in a trial's folder by (task, split); empty where there are none.

    Raises:
        ValueError: if the file is damaged.
    """
    if not store.exists(COUNTS):
        return {}
    try:
        with np.load(io.BytesIO(store.read(COUNTS)), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        keys = dict.fromkeys(tuple(name.split("/")[:2]) for name in arrays)
        return {(task, split): _read(arrays, f"{task}/{split}") for task, split in keys}
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise ValueError(f"{COUNTS} cannot be read: {error}") from error


def _read(arrays: Mapping[str, np.ndarray], prefix: str) -> ImageCounts:
    ids = tuple(str(name) for name in arrays[f"{prefix}/ids"])
    hits, labeled, predicted = (
        arrays[f"{prefix}/{name}"].astype(np.int64) for name in ("hits", "labeled", "predicted")
    )
    if not len(ids) == len(hits) == len(labeled) == len(predicted):
        raise ValueError(f"the arrays of {prefix} differ in length")
    classes = hits.shape[1]
    more: dict[str, Counts] = {}
    for name, shape in (("boundary", (len(ids), 4, classes)), ("confusion", (classes, classes))):
        if (found := arrays.get(f"{prefix}/{name}")) is not None:
            if found.shape != shape:
                raise ValueError(f"{prefix}/{name} is {found.shape}, not {shape}")
            more[name] = found.astype(np.int64)
    return ImageCounts(ids, hits, labeled, predicted, **more)


def _smallest(counts: Counts) -> np.ndarray:
    """The same numbers in the smallest unsigned type."""
    largest = int(counts.max(initial=0))
    return counts.astype(np.min_scalar_type(largest))


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
