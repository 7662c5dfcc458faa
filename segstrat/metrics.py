"""Confusion matrix of a segmentation, from which every score derives."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch

from segstrat.errors import UserError
from segstrat.image_counts import best_constant_miou, mean_iou

_CHUNK = 1 << 16  # pixels whose running maximum stays in a core's cache
_LANES = 256  # copies of the histogram on an accelerator, so that atomic additions rarely collide
_COPIED_BINS = 1 << 20  # most bins of all copies together


class Scores(TypedDict):
    """Shares in [0, 1]; NaN where no pixel defines one."""

    miou: float
    miou_thesis: float
    pixel_accuracy: float
    class_accuracy: float
    iou: tuple[float, ...]
    constant_miou: float


class ConfusionMatrix:
    """Counts of (label, prediction) pairs on a device, updated without waiting for it.

    Args:
        num_classes: at most 256.
        ignore_index: label of void pixels. Their predictions are counted separately, in an extra row.
        device: of the counts; `update` takes tensors of the same device.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, device: torch.device | str = "cpu") -> None:
        if not 2 <= num_classes <= 256 or 0 <= ignore_index < num_classes:
            raise ValueError(
                f"num_classes={num_classes}, ignore_index={ignore_index}: expected 2 to 256 classes and an "
                "ignore_index that is none of them"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        # As from `confusion_counts`.
        self._bins = torch.zeros(num_classes + 2, num_classes, dtype=torch.int64, device=device)

    @property
    def counts(self) -> torch.Tensor:
        """(num_classes + 1, num_classes) int64: rows are labels, the last one void; columns predictions."""
        return self._bins[:-1]

    def to(self, device: torch.device | str) -> "ConfusionMatrix":
        """Moves the counts; returns itself."""
        self._bins = self._bins.to(device)
        return self

    def reset(self) -> None:
        """Sets every count to zero."""
        self._bins.zero_()

    def update(self, predictions: torch.Tensor, target_BHW: torch.Tensor) -> None:
        """Adds the pixels of a batch; arguments and errors as for `confusion_counts`."""
        self.add(confusion_counts(predictions, target_BHW, self.num_classes, self.ignore_index))

    def add(self, counts: torch.Tensor) -> None:
        """Adds what `confusion_counts` gave, also image by image."""
        self._bins += counts.sum(0) if counts.ndim == 3 else counts

    def merge(self, other: "ConfusionMatrix") -> None:
        """Adds the counts of another matrix of the same classes."""
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise ValueError("only confusion matrices of the same classes and ignore_index can be merged")
        self._bins += other._bins.to(self._bins.device)

    def combine(self, summed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replaces the counts by what `summed` makes of them: their sum over several processes."""
        self._bins = summed(self._bins)

    def compute(self) -> Scores:
        """All scores; the one place that reads the device.

        `iou` is that of VOC: intersection over union of the labelled pixels, per class, NaN for a class that
        is neither labelled nor predicted there; `miou` is the mean of the others (thesis Eq. 5.1).
        `miou_thesis` counts predictions on void pixels into the union, as the thesis code did.
        `class_accuracy` is the mean recall of the labelled classes. `constant_miou` is the mIoU of the best
        constant prediction on these labels.

        Raises:
            UserError: if a label or a prediction was neither a class nor `ignore_index`.
        """
        bins = self._bins.cpu()
        if invalid := int(bins[-1].sum()):
            raise UserError(
                f"{invalid} pixels have a label outside 0…{self.num_classes - 1} that is not the ignore "
                f"value {self.ignore_index}; check the label files and the task's classes"
            )
        matrix, void = bins[:-2].double(), bins[-2].double()
        hits, labelled, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
        iou = hits / (labelled + predicted - hits)
        return {
            # Through the function that sums over single images, so that both agree to the last bit.
            "miou": mean_iou(*(counts.long().numpy() for counts in (hits, labelled, predicted))),
            "miou_thesis": _mean(hits / (labelled + predicted + void - hits)),
            "pixel_accuracy": float(hits.sum() / labelled.sum()),
            "class_accuracy": _mean(hits / labelled),
            "iou": tuple(iou.tolist()),
            "constant_miou": best_constant_miou(labelled.long().numpy()),
        }


@torch.no_grad()
def confusion_counts(
    predictions: torch.Tensor,
    target_BHW: torch.Tensor,
    num_classes: int,
    ignore_index: int = 255,
    *,
    by_image: bool = False,
) -> torch.Tensor:
    """Counts of (label, prediction) pairs of a batch, without waiting for the device.

    Args:
        predictions: logits (B, C, H, W), or class labels of the target's shape.
        target_BHW: labels, any integer type.
        by_image: count each image separately.

    Returns:
        (C + 2, C) int64, or (B, C + 2, C): rows are the labelled classes, then void pixels, then pixels whose
        label or prediction is not a class; columns are predictions.

    Raises:
        ValueError: if the shapes do not fit each other or `num_classes`.
    """
    expected = (target_BHW.shape[0], num_classes, *target_BHW.shape[1:])
    if predictions.ndim == target_BHW.ndim + 1 and predictions.shape == expected:
        predictions = _argmax(predictions)
        if predictions.device.type == "cpu" and target_BHW.dtype is torch.uint8:
            return _counts_of_bytes(predictions, target_BHW, num_classes, ignore_index, by_image=by_image)
    elif predictions.shape != target_BHW.shape:
        raise ValueError(
            f"predictions {tuple(predictions.shape)} for targets {tuple(target_BHW.shape)}: expected "
            f"logits {expected} or labels of the targets' shape"
        )
    void, invalid = num_classes, num_classes + 1
    labels, columns = target_BHW.to(torch.int32), predictions.to(torch.int32)
    rows = torch.where(labels == ignore_index, void, invalid)
    rows = torch.where((labels >= 0) & (labels < num_classes), labels, rows)
    known = (columns >= 0) & (columns < num_classes)
    cells = torch.where(known, rows * num_classes + columns, invalid * num_classes)
    return _histograms(cells, (num_classes + 2, num_classes), by_image=by_image)


def _counts_of_bytes(
    predictions_BHW: torch.Tensor,
    target_BHW: torch.Tensor,
    num_classes: int,
    ignore_index: int,
    *,
    by_image: bool,
) -> torch.Tensor:
    """As `confusion_counts`, of uint8 labels and predictions that are classes.

    All 256 labels are counted, and sorted into rows afterwards: a pass over the counts costs less than
    several passes over the pixels.
    """
    cells = torch.add(predictions_BHW, target_BHW.to(torch.int32), alpha=num_classes)
    table = _histograms(cells, (256, num_classes), by_image=by_image)
    classes, others = table.split([num_classes, 256 - num_classes], dim=-2)
    void = torch.zeros_like(classes[..., 0, :])
    if num_classes <= ignore_index < 256:
        void = others[..., ignore_index - num_classes, :]
    invalid = others.sum(-2) - void
    return torch.cat([classes, void.unsqueeze(-2), invalid.unsqueeze(-2)], dim=-2)


def _histograms(cells: torch.Tensor, shape: tuple[int, int], *, by_image: bool) -> torch.Tensor:
    """Occurrences of each cell as int64 of that shape; with `by_image` one more dimension comes first.

    Args:
        cells: (B, H, W) int32 below the product of `shape`.
    """
    bins = math.prod(shape)
    if not by_image:
        return _histogram(cells.flatten(), bins).view(shape)
    images = len(cells)
    first = torch.arange(0, images * bins, bins, dtype=torch.int32, device=cells.device)
    counts = _histogram((cells.flatten(1) + first[:, None]).flatten(), images * bins)
    return counts.view(images, *shape)


def _mean(values: torch.Tensor) -> float:
    """Mean of the values that are defined; NaN if none is."""
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else math.nan


def _argmax(logits_BCHW: torch.Tensor) -> torch.Tensor:
    """Index (B, H, W) of the largest logit of each pixel, the first where several are equal."""
    if logits_BCHW.device.type != "cpu":
        return logits_BCHW.argmax(1)
    batch, classes = logits_BCHW.shape[:2]
    planes_BCN = logits_BCHW.flatten(2)
    pixels = planes_BCN.shape[2]
    result_BN = torch.empty(batch, pixels, dtype=torch.uint8)
    # Small images are compared together: a call takes longer than the comparison of a few thousand pixels.
    images = max(1, _CHUNK // max(pixels, 1))
    for planes, labels in zip(planes_BCN.split(images), result_BN.split(images), strict=True):
        for chunk, part in zip(planes.split(_CHUNK, 2), labels.split(_CHUNK, 1), strict=True):
            classes_first = chunk.movedim(1, 0)
            if chunk.stride(2) != 1:
                classes_first = classes_first.contiguous()
            best = classes_first[0].clone(memory_format=torch.contiguous_format)
            part.zero_()
            larger = torch.empty(part.shape, dtype=torch.bool)
            marks = larger.view(torch.uint8)
            for index in range(1, classes):
                torch.gt(classes_first[index], best, out=larger)
                # Indices grow, so that a maximum writes the new one; several times faster than a mask.
                torch.maximum(part, marks.mul_(index), out=part)
                torch.maximum(best, classes_first[index], out=best)
    return result_BN.view(batch, *logits_BCHW.shape[2:])


def _histogram(cells: torch.Tensor, bins: int) -> torch.Tensor:
    """Occurrences of 0 … bins − 1 among `cells` (1-D int32), as int64."""
    if cells.device.type == "cpu":
        return torch.bincount(cells, minlength=bins)
    return _scattered_histogram(cells, bins)


def _scattered_histogram(cells: torch.Tensor, bins: int) -> torch.Tensor:
    """As `torch.bincount`, which on CUDA would wait for the device to learn the largest value."""
    copies = max(1, min(_LANES, _COPIED_BINS // bins))
    lanes = torch.arange(len(cells), device=cells.device) % copies
    counts = torch.zeros(copies * bins, dtype=torch.int32, device=cells.device)
    ones = torch.ones(1, dtype=torch.int32, device=cells.device).expand(len(cells))
    with _any_algorithm():
        counts.scatter_add_(0, lanes * bins + cells, ones)
    return counts.view(copies, bins).sum(0, dtype=torch.int64)


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Allows atomic additions where deterministic algorithms are demanded: sums of integers have no order.

    The deterministic one would sort all pixels first.
    """
    demanded = torch.are_deterministic_algorithms_enabled() and not torch.compiler.is_compiling()
    if not demanded:
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
