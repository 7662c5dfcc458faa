"""What loaders yield: a batch of uint8 images and label maps, and how its images are normalized."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

_MEAN = torch.tensor((0.485, 0.456, 0.406))
_STD = torch.tensor((0.229, 0.224, 0.225))


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


def positions(tasks: Iterable[str], labelled: list[tuple[str, ...]]) -> dict[str, list[int]]:
    """Task -> positions of the images whose labelled tasks contain it."""
    return {task: [row for row, names in enumerate(labelled) if task in names] for task in tasks}
