"""Batches for evaluation: every image once, whole, at native resolution."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

import numpy as np
import torch

from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.loading.batch import Batch, make_batch
from segstrat.parallel import parallel_map
from segstrat.tasks import Task

# Limit on the images that wait for others of their size, in batches.
_WAITING_BATCHES = 8


class EvalLoader:
    """Every image once, whole, at native resolution; images of one size share a batch.

    The batches are the same in every pass, for any number of threads. Nothing is padded or scaled, so that
    scores do not depend on the batch size.

    Args:
        tasks: the tasks by name.
        batch_size: largest number of images in a batch.
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
        threads: int = 1,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.tasks = dict(tasks)
        self.batch_size = batch_size
        self.threads = threads
        self.device = torch.device(device)
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Batch]:
        waiting: dict[tuple[int, ...], list[Sample]] = {}
        with closing(self._samples()) as samples:
            for sample in samples:
                size = sample.image.shape[:2]
                group = waiting.setdefault(size, [])
                group.append(sample)
                if len(group) == self.batch_size:
                    yield self._batch(waiting.pop(size))
                elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * self.batch_size:
                    yield self._batch(waiting.pop(next(iter(waiting))))
        for group in waiting.values():
            yield self._batch(group)

    def _samples(self) -> Generator[Sample, None, None]:
        """The samples in order, read a little ahead."""
        indices = range(self.rank, len(self.dataset), self.world_size)
        return parallel_map(self.dataset.read, indices, self.threads, ahead=self.threads + self.batch_size)

    def _batch(self, samples: list[Sample]) -> Batch:
        void = np.full(samples[0].image.shape[:2], VOID, np.uint8)
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        labels = {
            name: torch.from_numpy(np.stack([sample.labels.get(name, void) for sample in samples]))
            for name in self.tasks
        }
        return make_batch(
            images.to(self.device).permute(0, 3, 1, 2),
            {name: maps.to(self.device) for name, maps in labels.items()},
            [tuple(sample.labels) for sample in samples],
            [sample.id for sample in samples],
        )
