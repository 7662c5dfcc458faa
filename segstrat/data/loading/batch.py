"""`Batch`: images, their label maps, which image is labelled for which task; and `normalize`."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

_MEAN = torch.tensor((0.485, 0.456, 0.406))
_STD = torch.tensor((0.229, 0.224, 0.225))
_SHIFT: list[float] = (-_MEAN / _STD).tolist()
_SCALE: list[float] = (1 / (255 * _STD)).tolist()


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


def normalize(images_BCHW: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standardizes uint8 RGB images with ImageNet's mean and deviation, on their device.

    Args:
        images_BCHW: (B, 3, H, W) uint8; its memory order is kept.

    Returns:
        (B, 3, H, W) of type `dtype`.
    """
    shift, scale = _constants(images_BCHW.device)
    return torch.addcmul(shift, images_BCHW, scale).to(dtype)


_CONSTANTS: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}


def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift and scale (3, 1, 1) on a device; kept there, because a copy would make the host wait."""
    if torch.compiler.is_compiling():
        return _make_constants(device)
    if device not in _CONSTANTS:
        with torch.inference_mode(False):
            _CONSTANTS[device] = _make_constants(device)
    return _CONSTANTS[device]


def _make_constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    # Filled on the device: nothing is copied to it.
    shift, scale = (
        torch.stack([torch.full((), value, device=device) for value in values]).view(3, 1, 1)
        for values in (_SHIFT, _SCALE)
    )
    return shift, scale
