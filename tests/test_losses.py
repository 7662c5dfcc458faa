"""Losses against sums over single pixels, torch, and segmentation_models.pytorch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segstrat.config import LOSSES
from segstrat.losses import class_weights, hard_pixels, label_weights, pixel_losses, training_loss


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


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, 5, 6) and labels of which a row is void and class 3 does not occur."""
    logits = 3 * torch.sin(torch.arange(240).float() * 1.7).view(2, 4, 5, 6)
    target = (torch.arange(60) * 7 // 3 % 3).view(2, 5, 6)
    target[:, 1] = 255
    return logits.requires_grad_(), target


def loss_of(terms: list[str], logits: torch.Tensor, target: torch.Tensor, weights=None, **options):
    """The training loss of a whole batch, as in a single process."""
    weights_C = torch.ones(logits.shape[1]) if weights is None else torch.tensor(weights)
    total = label_weights(weights_C)[target].sum()
    return training_loss(terms, logits, target, weights_C, **{"total": total, **options})[0]


# Loss and sum of the absolute gradient by segmentation_models.pytorch 0.6.0, multiclass, ignore_index 255.
@pytest.mark.parametrize(
    ("name", "loss", "gradient"),
    [("dice", 0.6062248, 0.1750619), ("focal", 0.8882796, 0.5293020)],
)
def test_losses_are_those_of_segmentation_models(name: str, loss: float, gradient: float):
    logits, target = waves()
    found = loss_of([name], logits, target)
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert logits.grad.abs().sum().item() == pytest.approx(gradient, abs=1e-6)
    assert not logits.grad[:, :, 1].any()


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 30.0, 1.0]])
def test_cross_entropy_with_class_weights_is_torchs(weights):
    logits, target = waves()
    expected = F.cross_entropy(
        logits, target, None if weights is None else torch.tensor(weights), ignore_index=255
    )
    assert loss_of(["cross_entropy"], logits, target, weights).item() == pytest.approx(
        expected.item(), abs=1e-6
    )


def test_only_ratios_of_class_weights_matter():
    logits, target = waves()
    weights = [0.5, 2.0, 30.0, 1.0]
    for name in LOSSES:
        once, thrice = (loss_of([name], logits, target, [k * w for w in weights]).item() for k in (1, 3))
        assert once == pytest.approx(thrice, rel=1e-5), name
        assert once != pytest.approx(loss_of([name], logits, target).item(), rel=1e-3), name


def test_hard_pixels_against_sorting_the_pixels_of_each_image():
    torch.manual_seed(0)
    # The first image is easy: only the least share of its 64 pixels is kept. The second is hard.
    losses = torch.stack([torch.rand(8, 8) * 0.1, torch.rand(8, 8)])
    valid = torch.rand(2, 8, 8) > 0.2
    losses = losses * valid
    kept = hard_pixels(losses, valid)
    for image in range(2):
        values = sorted(losses[image].flatten().tolist(), reverse=True)
        bound = min(values[64 // 16 - 1], -math.log(0.7))
        assert kept[image].sum() == sum(value >= bound for value in values)
        assert losses[image][kept[image]].min() >= bound
    assert kept[0].sum() == 4
    assert (valid & ~kept)[1].any()


def test_ohem_is_the_mean_over_the_hard_pixels():
    logits, target = waves()
    plain, _ = pixel_losses(logits, target)
    kept = hard_pixels(plain, target != 255)
    assert 0 < kept.sum() < (target != 255).sum()
    assert loss_of(["ohem"], logits, target).item() == pytest.approx(plain[kept].mean().item(), abs=1e-6)


def test_a_sum_of_losses_is_their_sum():
    logits, target = waves()
    alone = [loss_of([name], logits, target).item() for name in ("cross_entropy", "dice")]
    assert loss_of(["cross_entropy", "dice"], logits, target).item() == pytest.approx(sum(alone), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_single_images_are_summed_where_no_total_is_given(name: str):
    logits, target = waves()
    target[1] = 255  # an image without a label costs nothing
    alone = loss_of([name], logits[:1], target[:1])
    together = loss_of([name], logits, target, total=None)
    assert together.item() == pytest.approx(alone.item(), abs=1e-6)
    together.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


@pytest.mark.parametrize("name", ["dice", "ohem"])
def test_gradients_of_two_processes_add_up_to_that_of_the_batch(name: str):
    logits, target = waves()
    loss_of([name], logits, target).backward()
    total = (target != 255).sum()
    others: list[torch.Tensor] = []

    def record(values: torch.Tensor) -> torch.Tensor:
        others.append(values.detach())
        return values

    parts = [logits.detach()[i : i + 1].clone().requires_grad_() for i in range(2)]
    for i in range(2):
        loss_of([name], parts[i], target[i : i + 1], total=total, summed=record)
    for i in range(2):
        other = others[1 - i]
        loss_of([name], parts[i], target[i : i + 1], total=total, summed=lambda x, o=other: x + o).backward()
        torch.testing.assert_close(parts[i].grad[0], logits.grad[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_float32(name: str):
    logits, target = waves()
    half = logits.detach().bfloat16()
    assert torch.equal(loss_of([name], half, target), loss_of([name], half.float(), target))


def test_class_weights_from_counts():
    pixels, images = np.array([990, 10, 0]), np.array([100, 4, 0])
    frequency = class_weights("inverse_frequency", pixels, images)
    assert frequency == pytest.approx([1000 / (2 * 990), 1000 / (2 * 10), 0.0])
    effective = class_weights("effective_number", pixels, images)
    by_hand = [0.001 / (1 - 0.999**100), 0.001 / (1 - 0.999**4), 0.0]
    assert effective == pytest.approx(by_hand)
