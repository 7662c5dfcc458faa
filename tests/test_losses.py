"""Cross-entropy against sums over single pixels."""

import math

import pytest
import torch
import torch.nn.functional as F

from segstrat.losses import pixel_losses


def reference(logits: torch.Tensor, target: torch.Tensor, ignore: int, smoothing: float) -> torch.Tensor:
    """Loss of each pixel in plain floats."""
    losses = torch.zeros(target.shape)
    for image, row, column in torch.cartesian_prod(*(torch.arange(side) for side in target.shape)).tolist():
        label = int(target[image, row, column])
        if label == ignore:
            continue
        scores = logits[image, :, row, column].double().tolist()
        total = math.log(sum(math.exp(score) for score in scores))
        classes = len(scores)
        wanted = [smoothing / classes + (1 - smoothing) * (index == label) for index in range(classes)]
        losses[image, row, column] = sum(p * (total - s) for p, s in zip(wanted, scores, strict=True))
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignore", [255, 9])
def test_against_a_loop_over_pixels(smoothing: float, ignore: int):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5)
    target = torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8)
    target[:, 1] = ignore
    losses, plain = pixel_losses(logits, target, ignore, label_smoothing=smoothing)
    torch.testing.assert_close(losses, reference(logits, target, ignore, smoothing))
    torch.testing.assert_close(plain, reference(logits, target, ignore, 0.0))
    assert not losses[:, 1].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_and_gradients_are_torchs_own_to_the_bit(smoothing: float):
    torch.manual_seed(0)
    ours, theirs = (torch.randn(2, 21, 9, 7, requires_grad=True) for _ in range(2))
    theirs.data.copy_(ours.data)
    target = torch.randint(0, 21, (2, 9, 7))
    target[:, 2] = 255
    losses, _ = pixel_losses(ours, target, label_smoothing=smoothing)
    expected = F.cross_entropy(theirs, target, ignore_index=255, label_smoothing=smoothing, reduction="none")
    assert torch.equal(losses, expected)
    losses.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_a_label_that_is_not_a_class_has_no_loss_and_raises_nothing():
    # CUDA would end the process at it; the confusion matrix reports it with a clear message.
    target = torch.tensor([[[0, 7, 254, 2]]], dtype=torch.uint8)
    losses, _ = pixel_losses(torch.zeros(1, 3, 1, 4), target)
    assert (losses > 0).tolist() == [[[True, False, False, True]]]


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(1, 3, 4, 4).bfloat16()
    target = torch.randint(0, 3, (1, 4, 4), dtype=torch.uint8)
    losses, _ = pixel_losses(logits, target)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, pixel_losses(logits.float(), target)[0], rtol=0, atol=0)


def test_images_without_a_label_have_no_loss_and_no_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    target[1] = 2
    loss, _ = pixel_losses(logits, target)
    assert not loss[0].any()
    loss.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()
    assert torch.isfinite(logits.grad).all()
