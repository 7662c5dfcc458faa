"""What one pass over images counts, kept on the device until its end: losses, confusion matrices, images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segstrat import distributed
from segstrat.data.dataset import Dataset
from segstrat.data.loading.batch import send_positions
from segstrat.image_counts import ImageCounts, mean_boundary_f1
from segstrat.metrics import ConfusionMatrix
from segstrat.objective import TaskOutput
from segstrat.records import SplitScore
from segstrat.tasks import Task


class ImageCounter:
    """Pixel counts of every image of a dataset.

    Args:
        dataset: its images are evaluated, by this process or another.
        tasks: the tasks by name.
        device: of the counts.
        boundaries: whether boundaries are counted too.
    """

    def __init__(
        self, dataset: Dataset, tasks: Mapping[str, Task], device: torch.device, *, boundaries: bool = False
    ) -> None:
        self._ids = dataset.ids
        self._rows = {name: row for row, name in enumerate(dataset.ids)}
        labelled = [dataset.tasks_of(index) for index in range(len(dataset))]
        self._labelled = {task: [i for i, names in enumerate(labelled) if task in names] for task in tasks}
        self._pixels = {
            name: torch.zeros(len(dataset), 3, task.num_classes, dtype=torch.int64, device=device)
            for name, task in tasks.items()
        }
        self._confusion = {
            name: torch.zeros(task.num_classes, task.num_classes, dtype=torch.int64, device=device)
            for name, task in tasks.items()
        }
        self._boundary = {
            name: torch.zeros(len(dataset), 4, task.num_classes, dtype=torch.int64, device=device)
            for name, task in tasks.items()
            if boundaries
        }

    def add(self, task: str, output: TaskOutput) -> None:
        """Adds images whose pixels were counted by image."""
        counts = output.counts
        rows = send_positions([self._rows[name] for name in output.ids], counts.device)
        if output.boundary is not None:
            self._boundary[task].index_add_(0, rows, output.boundary)
        matrices = counts[:, : counts.shape[2]]
        self._confusion[task] += matrices.sum(0)
        hits, labeled, predicted = matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)
        self._pixels[task].index_add_(0, rows, torch.stack([hits, labeled, predicted], dim=1))

    def compute(self) -> dict[str, ImageCounts]:
        """The counts by task, over all processes; without tasks that no image is labelled for."""
        counts = {}
        for task, rows in self._labelled.items():
            pixels = distributed.summed(self._pixels[task]).cpu().numpy()
            confusion = distributed.summed(self._confusion[task]).cpu().numpy()
            if rows:
                hits, labeled, predicted = np.moveaxis(pixels[rows], 1, 0)
                ids = tuple(self._ids[row] for row in rows)
                boundary = self._of_boundaries(task, rows)
                counts[task] = ImageCounts(ids, hits, labeled, predicted, boundary, confusion)
        return counts

    def _of_boundaries(self, task: str, rows: Sequence[int]) -> np.ndarray | None:
        if task not in self._boundary:
            return None
        return distributed.summed(self._boundary[task]).cpu().numpy()[rows]


@dataclass
class EpochMetrics:
    """Losses and confusion matrices by task, read from the device once at the end of a pass."""

    matrices: dict[str, ConfusionMatrix]
    loss_sums: dict[str, torch.Tensor]
    bad_step: torch.Tensor
    boundaries: dict[str, torch.Tensor]

    @classmethod
    def empty(
        cls, tasks: Mapping[str, Task], device: torch.device, *, boundaries: bool = False
    ) -> "EpochMetrics":
        """Metrics of no image yet; `boundaries` says whether those are counted too."""
        return cls(
            {name: ConfusionMatrix(t.num_classes, t.ignore_index, device) for name, t in tasks.items()},
            {name: torch.zeros((), dtype=torch.float64, device=device) for name in tasks},
            torch.full((), -1, dtype=torch.int64, device=device),
            {
                name: torch.zeros(4, task.num_classes, dtype=torch.int64, device=device)
                for name, task in tasks.items()
                if boundaries
            },
        )

    def add(self, outputs: Mapping[str, TaskOutput], counter: ImageCounter | None = None) -> None:
        """Adds the predictions and losses of some images.

        Args:
            counter: also gets the pixel counts of each image; the outputs must have them by image.
        """
        for task, output in outputs.items():
            self.loss_sums[task] += output.plain_sum
            self.matrices[task].add(output.counts)
            if counter is not None:
                counter.add(task, output)
            if output.boundary is not None:
                self.boundaries[task] += output.boundary.sum(0)

    def note_finite(self, loss: torch.Tensor, step: int) -> None:
        """Remembers the first step whose loss is not finite, without waiting for the device."""
        bad = ~torch.isfinite(loss) & (self.bad_step < 0)
        self.bad_step = torch.where(bad, torch.full_like(self.bad_step, step), self.bad_step)

    def over_all_processes(self) -> "EpochMetrics":
        """The metrics of all processes that train this trial; itself in a single one."""
        for name, matrix in self.matrices.items():
            matrix.combine(distributed.summed)
            self.loss_sums[name] = distributed.summed(self.loss_sums[name])
            if name in self.boundaries:
                self.boundaries[name] = distributed.summed(self.boundaries[name])
        if distributed.world_size() > 1:
            # Steps are counted from 0 and -1 means none: the largest is some process's bad step, if any.
            torch.distributed.all_reduce(self.bad_step, op=torch.distributed.ReduceOp.MAX)
        return self

    def first_bad_step(self) -> int | None:
        """The first step whose loss was not finite."""
        step = int(self.bad_step)
        return None if step < 0 else step

    def scores(self, split: str) -> tuple[SplitScore, ...]:
        """The scores of every task; the losses are means over all valid pixels."""
        scores = []
        for task, matrix in self.matrices.items():
            result = matrix.compute()
            loss = float(self.loss_sums[task]) / max(int(matrix.counts[:-1].sum()), 1)
            scores.append(
                SplitScore(
                    split=split,  # type: ignore[arg-type]
                    task=task,
                    loss=loss,
                    miou=float(result["miou"]),
                    miou_thesis=float(result["miou_thesis"]),
                    pixel_accuracy=float(result["pixel_accuracy"]),
                    class_accuracy=float(result["class_accuracy"]),
                    iou=tuple(None if iou != iou else float(iou) for iou in result["iou"]),
                    boundary_f1=self._boundary_f1(task),
                )
            )
        return tuple(scores)

    def _boundary_f1(self, task: str) -> float | None:
        if task not in self.boundaries:
            return None
        value = mean_boundary_f1(self.boundaries[task].cpu().numpy())
        return None if math.isnan(value) else value

    def constant_miou(self) -> dict[str, float]:
        """mIoU of the best constant prediction of each task that has labelled pixels."""
        values = {task: matrix.compute()["constant_miou"] for task, matrix in self.matrices.items()}
        return {task: value for task, value in values.items() if not math.isnan(value)}
