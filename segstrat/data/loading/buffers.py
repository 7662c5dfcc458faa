"""Host memory of batches, and its copy to the device without waiting: pinned for CUDA, on one stream."""

import functools
from collections.abc import Iterable

import numpy as np
import torch


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
