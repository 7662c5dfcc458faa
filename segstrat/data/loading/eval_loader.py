"""Batches for evaluation: every image once, whole, at native resolution."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch

from segstrat.data.dataset import VOID, Dataset
from segstrat.data.loading.batch import Batch, host_memory, make_batch
from segstrat.parallel import parallel_map
from segstrat.tasks import Task


class EvalLoader:
    """Every image once, whole, at native resolution; images of one size share a batch.

    The batches are the same in every pass, for any number of threads: sizes in descending order, so that the
    first batch needs the most memory, and images of one size in the order of the dataset. Nothing is padded
    or scaled, so that scores do not depend on the batches.

    Args:
        tasks: the tasks by name.
        batch_size: largest number of images in a batch.
        max_pixels: largest number of pixels in a batch, unless a single image has more; None: no limit.
        threads: threads that read images.
        device: of the batches.
        rank: number of this process; it evaluates every `world_size`-th image.
        world_size: number of processes that share the evaluation.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        tasks: Mapping[str, Task],
        batch_size: int,
        max_pixels: int | None = None,
        threads: int = 1,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.tasks = dict(tasks)
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.threads = threads
        self.device = torch.device(device)
        self.rank = rank
        self.world_size = world_size

    @cached_property
    def batches(self) -> list[list[int]]:
        """Indices of the images of each batch."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index in range(self.rank, len(self.dataset), self.world_size):
            groups.setdefault(self.dataset.image_size(index), []).append(index)
        planned = []
        for (height, width), indices in sorted(groups.items(), key=_pixels, reverse=True):
            count = self.batch_size
            if self.max_pixels is not None:
                count = max(1, min(count, self.max_pixels // (height * width)))
            planned += [indices[start : start + count] for start in range(0, len(indices), count)]
        return planned

    def __iter__(self) -> Iterator[Batch]:
        ahead = self.threads + self.batch_size
        with closing(parallel_map(self._fill, self._slots(), self.threads, ahead=ahead)) as filled:
            for indices in self.batches:
                slots, labelled = zip(*islice(filled, len(indices)), strict=True)
                images, labels = slots[0].images, slots[0].labels
                yield make_batch(
                    images.to(self.device, non_blocking=True).permute(0, 3, 1, 2),
                    {name: maps.to(self.device, non_blocking=True) for name, maps in labels.items()},
                    labelled,
                    [self.dataset.ids[index] for index in indices],
                )

    def _slots(self) -> Iterator["_Slot"]:
        for indices in self.batches:
            shape = (len(indices), *self.dataset.image_size(indices[0]))
            images = host_memory((*shape, 3), self.device)
            labels = {task: host_memory(shape, self.device) for task in self.tasks}
            yield from (_Slot(images, labels, row, index) for row, index in enumerate(indices))

    def _fill(self, slot: "_Slot") -> tuple["_Slot", tuple[str, ...]]:
        """Reads an image and its labels into a row of a batch; also returns the tasks it is labelled for."""
        sample = self.dataset.read(slot.index)
        slot.images.numpy()[slot.row] = sample.image
        for name, maps in slot.labels.items():
            maps.numpy()[slot.row] = sample.labels.get(name, VOID)
        return slot, tuple(sample.labels)


@dataclass(frozen=True)
class _Slot:
    """Where an image goes: its row in the memory of a batch, images (B, H, W, 3) and label maps (B, H, W)."""

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    row: int
    index: int


def _pixels(group: tuple[tuple[int, int], list[int]]) -> tuple[int, int]:
    (height, width), _ = group
    return height * width, height
