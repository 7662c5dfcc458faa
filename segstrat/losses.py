"""Cross-entropy over labelled pixels."""

import torch
import torch.nn.functional as F


def pixel_losses(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy (B, H, W) of each pixel in nats, float32; 0, with no gradient, at ignored pixels.

    Sums over pixels add up over the micro-batches of a batch: divided by the labelled pixels of the whole
    batch, their gradients are those of the whole batch.

    Args:
        logits_BCHW: class scores in any float type.
        target_BHW: class labels, any integer type.
        ignore_index: label of pixels that do not count.
        label_smoothing: weight of the uniform distribution in the target (Szegedy et al. 2016,
            arXiv:1512.00567, §7).
    """
    return F.cross_entropy(
        logits_BCHW.float(),
        target_BHW.long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
