"""Cross-entropy over labelled pixels."""

import torch
import torch.nn.functional as F


def segmentation_loss_sum(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy and the number of pixels in it, both 0-dim tensors on the logits' device.

    Sums and counts of several batches add up, so that accumulated gradients can be those of one large batch:
    divide the total by the total count, not the mean of means.

    Args:
        logits_BCHW: class scores in any float type; the sum is taken in float32.
        target_BHW: class labels, any integer type.
        ignore_index: label of pixels that count for nothing.
        label_smoothing: weight of the uniform distribution in the target.
    """
    target = target_BHW.long()
    total = F.cross_entropy(
        logits_BCHW.float(),
        target,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total, (target != ignore_index).sum()


def segmentation_loss(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy per labelled pixel of the batch, in nats; 0 with zero gradients where none is.

    Arguments as for `segmentation_loss_sum`.
    """
    total, count = segmentation_loss_sum(logits_BCHW, target_BHW, ignore_index, label_smoothing)
    return total / count.clamp(min=1)


def pixel_losses(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy (B, H, W) of each pixel in nats, float32; 0 at ignored pixels.

    Arguments as for `segmentation_loss_sum`.
    """
    return F.cross_entropy(
        logits_BCHW.float(),
        target_BHW.long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
