"""Batches for training and evaluation: a few threads over OpenCV, which leaves the interpreter lock.

Threads share the decoded data and write straight into reused batch buffers, so that nothing is pickled,
copied between processes or allocated per step (`python -m benchmarks loader` times both ways).
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.loading.augment import (
    Placement,
    draw_placement,
    mirrored_labels,
    place_image,
    place_label,
)
from segstrat.errors import UserError
from segstrat.tasks import Task

_STREAM = 1
_MEAN = torch.tensor((0.485, 0.456, 0.406))
_STD = torch.tensor((0.229, 0.224, 0.225))
# One batch in the consumer's hands, two being filled: a slow image does not stall the very next step.
_BUFFERS = 3
# Images that wait for others of their size, in batches.
_WAITING_BATCHES = 8


@dataclass(frozen=True)
class Batch:
    """Images and label maps.

    Args:
        images: (B, 3, H, W) uint8 RGB, dense in channels-last order.
        labels: task -> (B, H, W) uint8; `VOID` everywhere for an image that is not labelled for the task.
        indices: task -> positions in the batch of the images that are labelled for it.
        ids: names of the images.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    indices: dict[str, list[int]]
    ids: list[str]


def normalize(images_BCHW: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standardizes uint8 RGB images with ImageNet's mean and deviation, on their device.

    Args:
        images_BCHW: (B, 3, H, W) uint8; its memory order is kept.

    Returns:
        (B, 3, H, W) of type `dtype`.
    """
    scale = (1 / (255 * _STD)).to(images_BCHW.device).view(3, 1, 1)
    shift = (-_MEAN / _STD).to(images_BCHW.device).view(3, 1, 1)
    return torch.addcmul(shift, images_BCHW, scale).to(dtype)


class TrainLoader:
    """Shuffled, augmented crops; an epoch is a pure function of (seed, epoch).

    The last batch may be short. It is dropped if it holds fewer than two images per process, because batch
    norm cannot train on one image whose map is a single pixel (unless it is the only batch): an epoch leaves
    out fewer than 2·`world_size` images, others each time.

    Args:
        tasks: the tasks by name.
        crop_size: side of the square crops, in pixels.
        batch_size: images of a batch, over all processes.
        augmentation: strength, see `segstrat.data.loading.augment.draw_placement`.
        threads: threads that prepare images.
        device: where batches lie.
        rank: number of this process; it gets every `world_size`-th image of a batch.
        world_size: number of processes that train together.

    Attributes:
        wait_seconds: how long the consumer waited for input in the current or last epoch.
        mirrored: task -> what its labels are called in a mirror, see `augment.mirrored_labels`.
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
                f"a batch of {batch_size} images cannot be dealt evenly to {world_size} processes; make "
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
        """Batches of an epoch."""
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
        """Where image `index`, of (height, width) `size`, lies in its crop in `epoch`."""
        return draw_placement(
            size,
            crop_size=self.crop_size,
            strength=self.augmentation,
            seed=self.seed,
            epoch=epoch,
            index=index,
        )

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch. On the CPU, a batch is overwritten after the next one is asked for.

        Raises:
            UserError: from the dataset, for a file that cannot be read.
        """
        # The pool is the parallelism: OpenCV's own threads on top would fight for the same cores.
        cv2.setNumThreads(1)
        self.wait_seconds = 0.0
        batches = self.share(epoch)
        buffers = [self._new_buffer() for _ in batches[:_BUFFERS]]
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="input")

        def start(step: int) -> list[Future[tuple[str, ...]]]:
            buffer = buffers[step % _BUFFERS]
            buffer.wait_until_free()
            rows = enumerate(batches[step].tolist())
            return [pool.submit(self._fill, buffer, row, index, epoch) for row, index in rows]

        try:
            ahead = deque(start(step) for step in range(len(buffers)))
            for step, indices in enumerate(batches):
                asked = time.perf_counter()
                labelled = [future.result() for future in ahead.popleft()]
                self.wait_seconds += time.perf_counter() - asked
                images, labels = buffers[step % _BUFFERS].tensors(len(indices))
                yield Batch(
                    images, labels, positions(self.tasks, labelled), [self.dataset.ids[i] for i in indices]
                )
                if step + _BUFFERS < len(batches):
                    ahead.append(start(step + _BUFFERS))
        finally:
            pool.shutdown(cancel_futures=True)

    def _new_buffer(self) -> "_Buffer":
        images = self.batch_size // self.world_size
        return _Buffer(images, self.crop_size, tuple(self.tasks), self.device)

    def _fill(self, buffer: "_Buffer", row: int, index: int, epoch: int) -> tuple[str, ...]:
        """Writes an image and its labels into a row of a buffer; returns the tasks it is labelled for."""
        sample = self.dataset.read(index)
        placement = self.placement(index, sample.image.shape[:2], epoch)
        place_image(sample.image, placement, buffer.images[row])
        for name, maps in buffer.labels.items():
            if name in sample.labels:
                place_label(sample.labels[name], placement, maps[row], self.mirrored[name])
            else:
                maps[row].fill(VOID)
        return tuple(sample.labels)


class EvalLoader:
    """Every image once, whole, at native resolution; images of one size share a batch.

    The batches are the same at every pass, whatever the number of threads. No pixel is padded or scaled, so
    that scores do not depend on the batch size.

    Args:
        tasks: the tasks by name.
        batch_size: most images of a batch.
        threads: threads that read images.
        device: where batches lie.
        rank: number of this process; it gets every `world_size`-th image.
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
        for sample in self._samples():
            size = sample.image.shape[:2]
            group = waiting.setdefault(size, [])
            group.append(sample)
            if len(group) == self.batch_size:
                yield self._batch(waiting.pop(size))
            elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * self.batch_size:
                yield self._batch(waiting.pop(next(iter(waiting))))
        for group in waiting.values():
            yield self._batch(group)

    def _samples(self) -> Iterator[Sample]:
        """The samples in order, read a little ahead."""
        indices = range(self.rank, len(self.dataset), self.world_size)
        depth = self.threads + self.batch_size
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="eval-input")
        try:
            ahead: deque[Future[Sample]] = deque()
            for index in indices:
                ahead.append(pool.submit(self.dataset.read, index))
                if len(ahead) > depth:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, samples: list[Sample]) -> Batch:
        void = np.full(samples[0].image.shape[:2], VOID, np.uint8)
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        labels = {
            name: torch.from_numpy(np.stack([sample.labels.get(name, void) for sample in samples]))
            for name in self.tasks
        }
        return Batch(
            images.to(self.device).permute(0, 3, 1, 2),
            {name: maps.to(self.device) for name, maps in labels.items()},
            positions(self.tasks, [tuple(sample.labels) for sample in samples]),
            [sample.id for sample in samples],
        )


class _Buffer:
    """Memory of one batch that is filled again and again; for CUDA it is pinned and copied on its own stream.

    Attributes:
        images: (B, S, S, 3) uint8.
        labels: task -> (B, S, S) uint8.
    """

    def __init__(self, batch_size: int, crop_size: int, tasks: Iterable[str], device: torch.device) -> None:
        pinned = device.type == "cuda"
        shape = (batch_size, crop_size, crop_size)
        self._device = device
        self._images = torch.empty(*shape, 3, dtype=torch.uint8, pin_memory=pinned)
        self._labels = {task: torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for task in tasks}
        self._stream = torch.cuda.Stream(device) if pinned else None
        self.images: np.ndarray = self._images.numpy()
        self.labels: dict[str, np.ndarray] = {task: maps.numpy() for task, maps in self._labels.items()}

    def wait_until_free(self) -> None:
        """Returns once the last copy to the device has left the buffer."""
        if self._stream is not None:
            self._stream.synchronize()

    def tensors(self, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The first `count` images (B, 3, S, S) and label maps (B, S, S), on the device."""
        images = self._images[:count].permute(0, 3, 1, 2)
        labels = {task: maps[:count] for task, maps in self._labels.items()}
        if self._stream is None:
            return images, labels
        consumer = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            images = images.to(self._device, non_blocking=True)
            labels = {task: maps.to(self._device, non_blocking=True) for task, maps in labels.items()}
        consumer.wait_stream(self._stream)
        # The memory came from the copying stream; it must outlive the consumer's use of it.
        for tensor in (images, *labels.values()):
            tensor.record_stream(consumer)
        return images, labels


def positions(tasks: Iterable[str], labelled: list[tuple[str, ...]]) -> dict[str, list[int]]:
    """Task -> positions of the images whose labelled tasks contain it."""
    return {task: [row for row, names in enumerate(labelled) if task in names] for task in tasks}
