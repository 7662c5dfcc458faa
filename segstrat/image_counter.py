"""`ImageCounter`: gathers the pixel counts of single images on the device, over all processes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from segstrat import distributed
from segstrat.data.dataset import Dataset
from segstrat.data.loading.batch import send_positions
from segstrat.image_counts import ImageCounts
from segstrat.tasks import Task


class ImageCounter:
    """Pixel counts of every image of a dataset.

    Args:
        dataset: its images are evaluated, by this process or another.
        tasks: the tasks by name.
        device: of the counts.
    """

    def __init__(self, dataset: Dataset, tasks: Mapping[str, Task], device: torch.device) -> None:
        self._ids = dataset.ids
        self._rows = {name: row for row, name in enumerate(dataset.ids)}
        labelled = [dataset.tasks_of(index) for index in range(len(dataset))]
        self._labelled = {task: [i for i, names in enumerate(labelled) if task in names] for task in tasks}
        self._pixels = {
            name: torch.zeros(len(dataset), 3, task.num_classes, dtype=torch.int64, device=device)
            for name, task in tasks.items()
        }

    def add(self, task: str, ids: Sequence[str], counts: torch.Tensor) -> None:
        """Adds images by name; `counts` (B, C + 2, C) as from `confusion_counts`."""
        rows = send_positions([self._rows[name] for name in ids], counts.device)
        matrices = counts[:, : counts.shape[2]]
        hits, labeled, predicted = matrices.diagonal(dim1=1, dim2=2), matrices.sum(2), matrices.sum(1)
        self._pixels[task].index_add_(0, rows, torch.stack([hits, labeled, predicted], dim=1))

    def compute(self) -> dict[str, ImageCounts]:
        """The counts by task, over all processes; without tasks that no image is labelled for."""
        counts = {}
        for task, rows in self._labelled.items():
            pixels = distributed.summed(self._pixels[task]).cpu().numpy()
            if rows:
                hits, labeled, predicted = np.moveaxis(pixels[rows], 1, 0)
                ids = tuple(self._ids[row] for row in rows)
                counts[task] = ImageCounts(ids, hits, labeled, predicted)
        return counts
