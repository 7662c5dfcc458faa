"""The usual alternative: FCN-32s-ResNet-18 in plain eager float32, as torchvision trains it."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

CLASSES, VOID = 21, 255


class PlainFCN(nn.Module):
    """ResNet-18, a 1×1 score layer and the learnable 64×64 transposed convolution of stride 32."""

    def __init__(self) -> None:
        super().__init__()
        body = resnet18()
        self.body = nn.Sequential(*list(body.children())[:-2])
        self.score = nn.Conv2d(512, CLASSES, 1)
        self.upsample = nn.ConvTranspose2d(CLASSES, CLASSES, 64, stride=32, padding=16, bias=False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, CLASSES, H, W); H and W are multiples of 32."""
        logits: torch.Tensor = self.upsample(self.score(self.body(images_BCHW)))
        return logits


def plain_optimizer(model: nn.Module) -> torch.optim.SGD:
    """The thesis's SGD with torch's defaults for everything else."""
    return torch.optim.SGD(model.parameters(), lr=5e-3, momentum=0.9, weight_decay=5e-4)


def train_plainly(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    batches: Iterable[Any],
    device: torch.device | str = "cpu",
    *,
    count: bool = False,
) -> list[float]:
    """`train_one_epoch` of torchvision's segmentation reference: returns the losses it would log.

    Args:
        count: also keep the reference's confusion matrix of the training crops.
    """
    model.train()
    losses = []
    counts = torch.zeros(CLASSES, CLASSES, dtype=torch.int64, device=device)
    for images_BCHW, target_BHW in batches:
        images, target = images_BCHW.to(device), target_BHW.to(device).long()
        logits = model(images)
        loss = F.cross_entropy(logits, target, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if count:
            counts += plain_counts(logits, target)
    return losses


def plain_counts(logits_BCHW: torch.Tensor, target_BHW: torch.Tensor) -> torch.Tensor:
    """Counts (CLASSES, CLASSES), as in torchvision's reference."""
    target, prediction = target_BHW.flatten().long(), logits_BCHW.argmax(1).flatten()
    inside = target < CLASSES
    cells = CLASSES * target[inside] + prediction[inside]
    return torch.bincount(cells, minlength=CLASSES**2).view(CLASSES, CLASSES)
