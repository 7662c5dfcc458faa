"""Cross-entropy over labelled pixels."""

import torch
import torch.nn.functional as F


def pixel_losses(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each pixel in nats, with and without label smoothing.

    Sums over pixels add up over micro-batches: divided by the labelled pixels of the whole batch, their
    gradients are those of the whole batch.

    Args:
        logits_BCHW: class scores in any float type.
        target_BHW: class labels, any integer type.
        ignore_index: label of pixels that count for nothing. A label that is not a class is ignored as well:
            CUDA would end the process at it, and the confusion matrix reports it.
        label_smoothing: weight of the uniform distribution in the target (Szegedy et al. 2016,
            arXiv:1512.00567, §7).

    Returns:
        the smoothed and the plain losses (B, H, W), float32; the same tensor without smoothing. 0, with no
        gradient, at ignored pixels.
    """
    classes = logits_BCHW.shape[1]
    target_BHW = target_BHW.long().masked_fill(target_BHW >= classes, ignore_index)
    log_shares_BCHW = F.log_softmax(logits_BCHW.float(), 1)
    plain_BHW = F.nll_loss(log_shares_BCHW, target_BHW, ignore_index=ignore_index, reduction="none")
    if not label_smoothing:
        return plain_BHW, plain_BHW
    uniform_BHW = -log_shares_BCHW.sum(1).masked_fill(target_BHW == ignore_index, 0.0)
    smoothed_BHW = (1 - label_smoothing) * plain_BHW + uniform_BHW * (label_smoothing / classes)
    return smoothed_BHW, plain_BHW.detach()
