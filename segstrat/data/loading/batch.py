"""`Batch`: images, their label maps, which image is labelled for which task; host memory; `normalize`."""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Standardization:
    """Mean and deviation of a network's images by channel, where 1 is white; ImageNet's by default."""

    mean: RGB = (0.485, 0.456, 0.406)
    std: RGB = (0.229, 0.224, 0.225)
    shift: RGB = field(init=False, repr=False)
    scale: RGB = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        object.__setattr__(self, "shift", _rgb(-mean / std))
        object.__setattr__(self, "scale", _rgb(1 / (255 * std)))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain values; `from_dict` is the inverse."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> "Standardization":
        """The inverse of `to_dict`."""
        return cls(*(_rgb(values[name]) for name in ("mean", "std")))


def _rgb(values: Iterable[float]) -> RGB:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


IMAGENET = Standardization()


@dataclass(frozen=True)
class Batch:
    """Images and label maps on one device.

    Args:
        images: (B, 3, H, W) uint8 RGB, dense in channels-last order.
        labels: task -> (B, H, W) uint8; `VOID` everywhere for an image that is not labelled for the task.
        indices: task -> ascending positions in the batch of the images that are labelled for it.
        ids: names of the images.
        rows: the positions of `indices` as int64 tensors on the device, for the tasks that only some of the
            images are labelled for.
    """

    images: torch.Tensor
    labels: dict[str, torch.Tensor]
    indices: dict[str, list[int]]
    ids: list[str]
    rows: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def labelled_tasks(self) -> list[str]:
        """Tasks that at least one image is labelled for."""
        return [task for task, positions in self.indices.items() if positions]

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of about `size` images, as even as possible.

        No micro-batch is a single image where `size` is larger than 1, because batch norm cannot train on
        one image whose map is a single pixel; then one may have `size` + 1 images.
        """
        count = len(self)
        number = -(-count // size)
        if size > 1 and 1 < count < 2 * number:
            number = count // 2
        if number <= 1:
            return [self]
        bounds = [count * index // number for index in range(number + 1)]
        return [self._part(start, stop) for start, stop in pairwise(bounds)]

    def _part(self, start: int, stop: int) -> "Batch":
        indices, rows = {}, {}
        for task, positions in self.indices.items():
            first, last = bisect_left(positions, start), bisect_left(positions, stop)
            indices[task] = [position - start for position in positions[first:last]]
            if 0 < last - first < stop - start:
                rows[task] = self.rows[task][first:last] - start
        return Batch(
            self.images[start:stop],
            {task: maps[start:stop] for task, maps in self.labels.items()},
            indices,
            self.ids[start:stop],
            rows,
        )


def make_batch(
    images: torch.Tensor, labels: dict[str, torch.Tensor], labelled: Sequence[Sequence[str]], ids: list[str]
) -> Batch:
    """A batch from the tasks that each image is labelled for.

    Args:
        images: as in `Batch`.
        labels: as in `Batch`.
        labelled: tasks of each image.
        ids: as in `Batch`.
    """
    indices = {task: [row for row, tasks in enumerate(labelled) if task in tasks] for task in labels}
    some = {task: positions for task, positions in indices.items() if 0 < len(positions) < len(ids)}
    rows = {task: send_positions(positions, images.device) for task, positions in some.items()}
    return Batch(images, labels, indices, ids, rows)


def send_positions(positions: list[int], device: torch.device) -> torch.Tensor:
    """The positions as int64 on the device, without waiting for the copy: it is from pinned memory."""
    pinned = torch.tensor(positions, pin_memory=device.type == "cuda")
    return pinned.to(device, non_blocking=True)


def normalize(
    images_BCHW: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    standardization: Standardization = IMAGENET,
) -> torch.Tensor:
    """Standardizes uint8 RGB images, on their device.

    Args:
        images_BCHW: (B, 3, H, W) uint8; its memory order is kept.
        standardization: that of the network, see `Backbone.standardization`.

    Returns:
        (B, 3, H, W) of type `dtype`.
    """
    shift, scale = _constants(images_BCHW.device, standardization)
    return torch.addcmul(shift, images_BCHW, scale).to(dtype)


_CONSTANTS: dict[tuple[torch.device, Standardization], tuple[torch.Tensor, torch.Tensor]] = {}


def _constants(device: torch.device, standardization: Standardization) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift and scale (3, 1, 1) on a device; kept there, because a copy would make the host wait."""
    if torch.compiler.is_compiling():
        return _make_constants(device, standardization)
    key = device, standardization
    if key not in _CONSTANTS:
        with torch.inference_mode(False):
            _CONSTANTS[key] = _make_constants(device, standardization)
    return _CONSTANTS[key]


def _make_constants(
    device: torch.device, standardization: Standardization
) -> tuple[torch.Tensor, torch.Tensor]:
    # Filled on the device: nothing is copied to it.
    shift, scale = (
        torch.stack([torch.full((), value, device=device) for value in values]).view(3, 1, 1)
        for values in (standardization.shift, standardization.scale)
    )
    return shift, scale


class BatchBuffer:
    """Memory of one training batch that is filled again and again.

    Attributes:
        images: (B, S, S, 3) uint8.
        labels: task -> (B, S, S) uint8.
    """

    def __init__(self, batch_size: int, crop_size: int, tasks: Iterable[str], device: torch.device) -> None:
        shape = (batch_size, crop_size, crop_size)
        self._device = device
        self._images = host_memory((*shape, 3), device)
        self._labels = {task: host_memory(shape, device) for task in tasks}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self._taken = torch.cuda.Event() if device.type == "cuda" else None
        self.images: np.ndarray = self._images.numpy()
        self.labels: dict[str, np.ndarray] = {task: maps.numpy() for task, maps in self._labels.items()}

    def wait_until_free(self) -> None:
        """Returns once the last copy to the device has read the buffer."""
        if self._copied is not None:
            self._copied.synchronize()

    def tensors(self, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The first `count` images (B, 3, S, S) and label maps (B, S, S), on the device.

        On CUDA, waits until the device has done all work that was queued when this was last called. Without
        that, a fast host would queue many steps ahead of a slow GPU, each with new memory for its batch.
        """
        images = self._images[:count].permute(0, 3, 1, 2)
        labels = {task: maps[:count] for task, maps in self._labels.items()}
        if self._copied is None or self._taken is None:
            return images, labels
        consumer, copying = torch.cuda.current_stream(self._device), copy_stream(self._device)
        self._taken.synchronize()
        self._taken.record(consumer)
        with torch.cuda.stream(copying):
            images = images.to(self._device, non_blocking=True)
            labels = {task: maps.to(self._device, non_blocking=True) for task, maps in labels.items()}
            self._copied.record()
        consumer.wait_stream(copying)
        # The memory came from the copying stream; it must outlive the consumer's use of it.
        for tensor in (images, *labels.values()):
            tensor.record_stream(consumer)
        return images, labels


def host_memory(
    shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.uint8
) -> torch.Tensor:
    """Uninitialized host memory to copy to the device; pinned for CUDA, so that copies need not wait.

    Torch keeps freed pinned memory and gives it out again once the copies from it have ended.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


@functools.cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of this process on which batches are copied to a device.

    Torch's allocator keeps memory per stream: with new streams in every epoch it would grow with each.
    """
    return torch.cuda.Stream(device)
