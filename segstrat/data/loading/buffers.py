"""Reused memory of batches: pinned for CUDA, and copied to the device on its own stream."""

from collections.abc import Iterable

import numpy as np
import torch


class BatchBuffer:
    """Memory of one batch that is reused; for CUDA it is pinned and copied on its own stream.

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
