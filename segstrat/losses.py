"""Losses over labelled pixels: cross-entropy, focal, online hard examples, dice; and the weights of classes.

B images, C classes, H × W pixels. Every loss is a mean in which a pixel counts with the weight of its class
(for dice, a class with its own weight), so that only ratios of weights matter.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

FOCAL_GAMMA = 2.0
"""Of the focal loss; the value of its paper."""

HARD_PROBABILITY, HARD_SHARE = 0.7, 1 / 16
"""`ohem` keeps pixels whose class is less probable than this, and at least this share of a crop's pixels."""

BETA = 0.999
"""Of `effective_number`; the paper compares 0.9 to 0.9999."""

_LABELS = 256
_EPS = 1e-7

Summed = Callable[[torch.Tensor], torch.Tensor]


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


def focal_losses(logits_BCHW: torch.Tensor, target_BHW: torch.Tensor) -> torch.Tensor:
    """Focal loss of each pixel (B, H, W), γ = 2 and without α (Lin et al. 2017, arXiv:1708.02002, Eq. 4).

    As in the paper's detector, every class is a binary problem of its own sigmoid; this is their mean. It is
    meaningless at pixels without a class.
    """
    is_class_BCHW = _is_class(target_BHW, logits_BCHW.shape[1])
    losses_BCHW = F.binary_cross_entropy_with_logits(
        logits_BCHW.float(), is_class_BCHW.float(), reduction="none"
    )
    return ((1 - torch.exp(-losses_BCHW)).pow(FOCAL_GAMMA) * losses_BCHW).mean(1)


def hard_pixels(losses_BHW: torch.Tensor, valid_BHW: torch.Tensor) -> torch.Tensor:
    """The pixels on which `ohem` trains (B, H, W), from their cross-entropy without smoothing.

    Those whose class has a probability below 0.7, and at least the hardest sixteenth of the pixels of each
    image (Wu et al. 2016, arXiv:1604.04339, §2.2, where a batch is one image).
    """
    losses_BN = losses_BHW.detach().flatten(1)
    least = max(1, int(losses_BN.shape[1] * HARD_SHARE))
    hardest_B = losses_BN.topk(least, dim=1, sorted=True).values[:, -1]
    bound_B = hardest_B.clamp(max=-float(np.log(HARD_PROBABILITY)))
    return (losses_BHW.detach() >= bound_B[:, None, None]) & valid_BHW


def dice_loss(
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    weights_C: torch.Tensor,
    *,
    by_image: bool = False,
    summed: Summed = lambda values: values,
) -> torch.Tensor:
    """1 − soft Dice over the labelled pixels, as a mean over the classes (Milletari et al. 2016, §3).

    A class that is not labelled has no loss (and counts in the mean).

    Args:
        weights_C: of the classes, in the mean.
        by_image: Dice of each image for itself, summed over the images, instead of over the whole batch.
        summed: the sum of sums over pixels over all processes.

    Returns:
        0-dim.
    """
    is_class_BCHW = _is_class(target_BHW, logits_BCHW.shape[1])
    valid_B1HW = is_class_BCHW.any(1, keepdim=True)
    shares_BCHW = F.softmax(logits_BCHW.float(), 1) * valid_B1HW
    axes = (2, 3) if by_image else (0, 2, 3)
    hits = (shares_BCHW * is_class_BCHW).sum(axes)
    predicted, labelled = shares_BCHW.sum(axes), is_class_BCHW.sum(axes).float()
    if not by_image:
        hits, predicted, labelled = summed(torch.stack([hits, predicted, labelled]))
    losses = (1 - 2 * hits / (predicted + labelled).clamp(min=_EPS)) * (labelled > 0)
    return (losses @ weights_C).sum() / weights_C.sum()


def training_loss(
    terms: Sequence[str],
    logits_BCHW: torch.Tensor,
    target_BHW: torch.Tensor,
    weights_C: torch.Tensor,
    *,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    total: torch.Tensor | None = None,
    summed: Summed = lambda values: values,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of some losses of `segstrat.config.LOSSES`.

    Args:
        weights_C: of the classes, float32.
        total: sum of the weights of the labelled pixels of the whole batch, over all processes (0-dim), by
            which sums over pixels are divided. By default each image's loss is the mean over its own pixels,
            and the losses of the images are summed.
        summed: the sum over all processes, through which gradients flow to this process.

    Returns:
        the loss (0-dim), and the plain cross-entropy of each pixel (B, H, W).
    """
    weights_BHW = label_weights(weights_C)[target_BHW.long()]
    smoothed_BHW, plain_BHW = pixel_losses(logits_BCHW, target_BHW, ignore_index, label_smoothing)
    by_image = total is None

    def mean(losses_BHW: torch.Tensor, weights_BHW: torch.Tensor, total: torch.Tensor | None) -> torch.Tensor:
        count = weights_BHW.flatten(1).sum(1) if total is None else total.float()
        sums_B = (losses_BHW * weights_BHW).flatten(1).sum(1)
        return torch.where(count > 0, sums_B / count.clamp(min=torch.finfo(torch.float32).tiny), 0.0).sum()

    loss = torch.zeros((), device=logits_BCHW.device)
    for term in terms:
        if term == "cross_entropy":
            loss = loss + mean(smoothed_BHW, weights_BHW, total)
        elif term == "focal":
            loss = loss + mean(focal_losses(logits_BCHW, target_BHW), weights_BHW, total)
        elif term == "ohem":
            kept_BHW = weights_BHW * hard_pixels(plain_BHW, target_BHW < logits_BCHW.shape[1])
            loss = loss + mean(smoothed_BHW, kept_BHW, None if by_image else summed(kept_BHW.sum()))
        else:
            loss = loss + dice_loss(logits_BCHW, target_BHW, weights_C, by_image=by_image, summed=summed)
    return loss, plain_BHW.detach()


def label_weights(weights_C: torch.Tensor) -> torch.Tensor:
    """The weight of each label (256,); 0 for those that are no class."""
    return F.pad(weights_C, (0, _LABELS - len(weights_C)))


def _is_class(target_BHW: torch.Tensor, classes: int) -> torch.Tensor:
    """Which pixels are of which class (B, C, H, W); none where the label is no class."""
    labels_C = torch.arange(classes, device=target_BHW.device, dtype=target_BHW.dtype)
    return target_BHW[:, None] == labels_C[:, None, None]


def class_weights(rule: str, pixels_C: NDArray[np.integer], images_C: NDArray[np.integer]) -> list[float]:
    """The weights of the classes of a task.

    `inverse_frequency`: n / (C·n_c) with n_c labelled pixels of class c among n. `effective_number`:
    (1 − β) / (1 − β^m_c) with β = 0.999 and m_c training images that show the class (Cui et al. 2019,
    arXiv:1901.05555, Eq. 4); pixels of one image are too alike to count as samples. A class that no training
    image shows has the weight 0.

    Args:
        pixels_C: training pixels of each class.
        images_C: training images that show each class.
    """
    shown_C = pixels_C > 0
    if rule == "inverse_frequency":
        weights_C = pixels_C.sum() / (shown_C.sum() * np.maximum(pixels_C, 1.0))
    else:
        weights_C = (1 - BETA) / (1 - BETA ** np.maximum(images_C, 1.0))
    return np.where(shown_C, weights_C, 0.0).tolist()
