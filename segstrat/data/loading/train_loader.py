"""Training batches: a few threads over OpenCV, which releases the interpreter lock.

Threads share the decoded data and write directly into reused batch buffers, so that nothing is pickled,
copied between processes or allocated per step (`uv run python -m benchmarks loader` compares both ways).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from itertools import islice

import cv2
import numpy as np
import torch

from segstrat.data.dataset import VOID, Dataset
from segstrat.data.loading.augment import (
    Placement,
    draw_placement,
    mirrored_labels,
    place_image,
    place_label,
)
from segstrat.data.loading.batch import Batch, BatchBuffer, make_batch
from segstrat.errors import UserError
from segstrat.parallel import parallel_map
from segstrat.tasks import Task

_STREAM = 1
# One batch in use by the consumer and two being filled, so that one slow image does not stall the next step.
_BUFFERS = 3


class TrainLoader:
    """Shuffled, augmented crops; an epoch is a pure function of (seed, epoch).

    The last batch may be short. Unless it is the only one, it is dropped if it has fewer than two images per
    process, because batch norm cannot train on one image whose feature map is a single pixel: an epoch leaves
    out fewer than 2·`world_size` images, different ones each time.

    Args:
        tasks: the tasks by name.
        crop_size: side of the square crops, in pixels.
        batch_size: images per batch, over all processes.
        augmentation: strength, see `segstrat.data.loading.augment.draw_placement`.
        threads: threads that prepare images.
        device: of the batches.
        rank: number of this process; it trains on every `world_size`-th image of a batch.
        world_size: number of processes that train together.

    Attributes:
        wait_seconds: how long the consumer waited for input in the current or last epoch.
        mirrored: task -> labels in a mirrored image, see `augment.mirrored_labels`.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        tasks: Mapping[str, Task],
        crop_size: int,
        batch_size: int,
        augmentation: float,
        seed: int,
        threads: int = 1,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise UserError(
                f"a batch of {batch_size} images is not divisible by {world_size} processes; make "
                f"batch_size a multiple of {world_size}"
            )
        if len(dataset) < world_size:
            raise UserError(
                f"the training set has {len(dataset)} images for {world_size} process(es); check its split "
                "list and label_fraction"
            )
        self.dataset = dataset
        self.tasks = dict(tasks)
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.seed = seed
        self.threads = threads
        self.device = torch.device(device)
        self.rank = rank
        self.world_size = world_size
        self.wait_seconds = 0.0
        self.mirrored = {name: mirrored_labels(task.classes) for name, task in tasks.items()}

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        enough = 2 * self.world_size if whole else self.world_size
        return whole + (rest >= enough)

    def order(self, epoch: int) -> list[np.ndarray]:
        """Indices of the images of each batch of an epoch, over all processes."""
        shuffled = np.random.default_rng([self.seed, _STREAM, epoch]).permutation(len(self.dataset))
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [shuffled[start : start + self.batch_size] for start in starts]

    def share(self, epoch: int) -> list[np.ndarray]:
        """Indices of the images of each batch that this process gets."""
        return [indices[self.rank :: self.world_size] for indices in self.order(epoch)]

    def placement(self, index: int, size: tuple[int, int], epoch: int) -> Placement:
        """Placement of image `index`, of (height, width) `size`, in its crop in `epoch`."""
        return draw_placement(
            size,
            crop_size=self.crop_size,
            strength=self.augmentation,
            seed=self.seed,
            epoch=epoch,
            index=index,
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; one epoch of a loader at a time.

        On the CPU, a batch is overwritten after the next one is asked for.

        Raises:
            UserError: from the dataset, for a file that cannot be read.
        """
        # The images are prepared in parallel already: OpenCV's own threads would compete for the same cores.
        cv2.setNumThreads(1)
        self.wait_seconds = 0.0
        batches = self.share(epoch)
        slots = (
            (self._buffers[step % _BUFFERS], row, index)
            for step, indices in enumerate(batches)
            for row, index in enumerate(indices.tolist())
        )

        def fill(slot: tuple[BatchBuffer, int, int]) -> tuple[str, ...]:
            return self._fill(*slot, epoch)

        # All buffers but one are filled ahead: none is overwritten before the next batch is asked for.
        ahead = (_BUFFERS - 1) * (self.batch_size // self.world_size)
        with closing(parallel_map(fill, slots, self.threads, ahead=ahead)) as filled:
            for step, indices in enumerate(batches):
                start = time.perf_counter()
                labelled = list(islice(filled, len(indices)))
                self.wait_seconds += time.perf_counter() - start
                images, labels = self._buffers[step % _BUFFERS].tensors(len(indices))
                yield make_batch(images, labels, labelled, [self.dataset.ids[i] for i in indices])

    @cached_property
    def _buffers(self) -> list[BatchBuffer]:
        """Memory that all epochs share: with new memory in each, pinned host memory would grow."""
        images = self.batch_size // self.world_size
        count = min(_BUFFERS, len(self))
        return [BatchBuffer(images, self.crop_size, tuple(self.tasks), self.device) for _ in range(count)]

    def _fill(self, buffer: BatchBuffer, row: int, index: int, epoch: int) -> tuple[str, ...]:
        """Writes an image and its labels into a row of a buffer; returns the tasks it is labelled for."""
        buffer.wait_until_free()
        sample = self.dataset.read(index)
        placement = self.placement(index, sample.image.shape[:2], epoch)
        place_image(sample.image, placement, buffer.images[row])
        for name, maps in buffer.labels.items():
            if name in sample.labels:
                place_label(sample.labels[name], placement, maps[row], self.mirrored[name])
            else:
                maps[row].fill(VOID)
        return tuple(sample.labels)
