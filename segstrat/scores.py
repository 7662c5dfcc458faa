"""What the trials of a study are judged by: mIoU, another score of the same counts, or one of boundaries.

A study's tables have columns `<task>_<split>_<score>`; a space's `METRIC` is one of the validation images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segstrat.config import TASKS
from segstrat.errors import UserError, unknown_name
from segstrat.image_counts import ImageCounts, best_constant_miou, mean_boundary_f1, mean_iou
from segstrat.records import EpochReport, SplitScore

MIOU = "miou"
BOUNDARY = "boundary_f1"
BOUNDARY_TOLERANCE = 0.0075
"""Share of the diagonal within which boundaries agree, where a space states none (Csurka et al. 2013)."""
WORDS = {
    MIOU: "mIoU",
    "dice": "mean Dice",
    "foreground_miou": "mIoU without background",
    BOUNDARY: "boundary F-score",
}
"""Scores over all classes, and their names in text."""

OF_CLASS = "iou_"
"""Prefix of the IoU of one class, before its name."""


@dataclass(frozen=True)
class Metric:
    """A score of one task.

    Args:
        score: of `WORDS`, or `iou_<class>`.
        index: label of that class; None while the classes of the data are unknown.
    """

    task: str
    score: str = MIOU
    index: int | None = None

    @classmethod
    def parse(cls, name: str, classes: Mapping[str, Sequence[str]] | None = None) -> "Metric":
        """Reads `<task>_val_<score>`.

        Args:
            classes: class names of each task, where the data is known.

        Raises:
            UserError: for another form, or a class that the task does not have.
        """
        task, _, score = name.partition("_val_")
        if task not in TASKS or not (score in WORDS or (score.startswith(OF_CLASS) and score != OF_CLASS)):
            forms = ", ".join(f"<task>_val_{known}" for known in (*WORDS, f"{OF_CLASS}<class>"))
            raise UserError(f"{name!r}; expected one of {forms}, with <task> one of {', '.join(TASKS)}")
        names = (classes or {}).get(task)
        if score in WORDS or names is None:
            return cls(task, score)
        wanted = score.removeprefix(OF_CLASS)
        if wanted not in names:
            raise unknown_name(f"class of task {task}", wanted, names)
        return cls(task, score, list(names).index(wanted))

    @property
    def name(self) -> str:
        """As a space states it."""
        return f"{self.task}_val_{self.score}"

    @property
    def words(self) -> str:
        """The score in text, such as `mIoU` or `IoU of person`."""
        return WORDS.get(self.score) or f"IoU of {self.score.removeprefix(OF_CLASS)}"

    def of(self, task: str) -> "Metric":
        """The score of another task: the same one, or mIoU instead of that of a class."""
        if task == self.task:
            return self
        return Metric(task, self.score if self.score in WORDS else MIOU)

    def from_iou(self, iou: Sequence[float | None]) -> float:
        """The score from the IoU of each class; None or NaN where it is neither labeled nor predicted.

        NaN for a score that does not derive from them.
        """
        if self.score == BOUNDARY:
            return math.nan
        values = np.array([math.nan if value is None else value for value in iou], dtype=float)
        if self.score.startswith(OF_CLASS):
            return float(values[self.index]) if self.index is not None else math.nan
        if self.score == "dice":
            values = 2 * values / (1 + values)
        if self.score == "foreground_miou":
            values = values[1:]
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else math.nan

    def from_counts(
        self,
        hits: NDArray[np.integer],
        labeled: NDArray[np.integer],
        predicted: NDArray[np.integer],
        boundary: NDArray[np.integer] | None = None,
    ) -> float:
        """The score from pixel counts (C,), and of boundaries (4, C)."""
        if self.score == BOUNDARY:
            return math.nan if boundary is None else mean_boundary_f1(boundary)
        if self.score == MIOU:
            return mean_iou(hits, labeled, predicted)
        union = labeled + predicted - hits
        return self.from_iou(np.where(union > 0, hits / np.maximum(union, 1), math.nan).tolist())

    def of_entry(self, entry: SplitScore) -> float:
        """The score of one task on one split."""
        if self.score == BOUNDARY:
            return math.nan if entry.boundary_f1 is None else entry.boundary_f1
        return entry.miou if self.score == MIOU else self.from_iou(entry.iou)

    def of_report(self, report: EpochReport, split: str = "val") -> float | None:
        """The score after an epoch; None where the split was not scored."""
        found = (entry for entry in report.scores if entry.task == self.task and entry.split == split)
        return next((self.of_entry(entry) for entry in found), None)

    def constant(self, images: ImageCounts) -> float:
        """The score of the best constant prediction on some images."""
        labeled = images.labeled.sum(axis=0, dtype=np.int64)
        if self.score == MIOU:
            return best_constant_miou(labeled)
        if self.score == BOUNDARY:
            # One class everywhere has no boundary; without labelled ones nothing can be scored.
            return math.nan if images.boundary is None or not images.boundary[:, 3].any() else 0.0
        everything = np.eye(len(labeled), dtype=np.int64)
        scores = [self.from_counts(row * labeled, labeled, row * labeled.sum()) for row in everything]
        return float(np.nanmax(scores)) if np.isfinite(scores).any() else math.nan
