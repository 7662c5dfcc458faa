"""Confusion matrix of (10, 21, 512, 512) logits: segstrat against torchmetrics, smp and a plain bincount."""

import torch

from benchmarks.input import one_core
from benchmarks.peers import UnavailableError, peer
from benchmarks.recipe import CLASSES, VOID, plain_counts
from benchmarks.timing import Claim, Comparison, Contestant, compare
from segstrat.metrics import ConfusionMatrix


def run(*, quick: bool) -> list[Comparison]:
    batch, side, rounds = (2, 32, 1) if quick else (10, 512, 9)
    generator = torch.Generator().manual_seed(0)
    logits_BCHW = torch.randn(batch, CLASSES, side, side, generator=generator)
    target_BHW = torch.randint(0, CLASSES, (batch, side, side), generator=generator)
    target_BHW[:, : side // 16] = VOID
    labels_BHW = target_BHW.to(torch.uint8)
    with one_core():
        matrix = ConfusionMatrix(CLASSES, VOID)
        contestants: dict[str, Contestant] = {
            "segstrat": lambda: matrix.update(logits_BCHW, labels_BHW),
            "argmax and bincount": lambda: plain_counts(logits_BCHW, labels_BHW),
        }
        notes = []
        for name, make in (("torchmetrics", torchmetrics), ("segmentation_models_pytorch", smp)):
            try:
                contestants[name] = make(logits_BCHW, target_BHW)
            except UnavailableError as missing:
                notes.append(str(missing))
        check_counts(logits_BCHW, labels_BHW)
        notes.append("counts equal those of argmax and bincount exactly")
        claims = [Claim("segstrat", name, 2.5) for name in ("torchmetrics",) if name in contestants]
        title = f"metric, one core, logits {tuple(logits_BCHW.shape)}"
        return [
            compare(
                title,
                contestants,
                unit="update",
                reference="segstrat",
                rounds=rounds,
                claims=claims,
                notes=notes,
            )
        ]


def check_counts(logits_BCHW: torch.Tensor, target_BHW: torch.Tensor) -> None:
    """Compares the counts with the reference's.

    Raises:
        AssertionError: if a count differs.
    """
    matrix = ConfusionMatrix(CLASSES, VOID)
    matrix.update(logits_BCHW, target_BHW)
    if not torch.equal(matrix.counts[:CLASSES], plain_counts(logits_BCHW, target_BHW)):
        raise AssertionError("segstrat's confusion matrix differs from argmax and bincount")


def torchmetrics(logits_BCHW: torch.Tensor, target_BHW: torch.Tensor) -> Contestant:
    """torchmetrics' confusion matrix."""
    matrix = peer("torchmetrics.classification").MulticlassConfusionMatrix(CLASSES, ignore_index=VOID)
    return lambda: matrix.update(logits_BCHW, target_BHW)


def smp(logits_BCHW: torch.Tensor, target_BHW: torch.Tensor) -> Contestant:
    """Counts of true and false positives and negatives of segmentation_models_pytorch."""
    metrics = peer("segmentation_models_pytorch").metrics
    return lambda: metrics.get_stats(
        logits_BCHW.argmax(1), target_BHW, mode="multiclass", num_classes=CLASSES, ignore_index=VOID
    )
