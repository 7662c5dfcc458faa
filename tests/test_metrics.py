"""The confusion matrix against counting pixel by pixel, and its scores against their definitions."""

import math

import numpy as np
import pytest
import torch

from segstrat.epoch_metrics import ImageCounter
from segstrat.errors import UserError
from segstrat.metrics import ConfusionMatrix, _argmax, _histogram, _scattered_histogram, confusion_counts
from segstrat.objective import TaskOutput
from segstrat.tasks import Task


def reference_counts(predicted: torch.Tensor, target: torch.Tensor, classes: int, ignore: int) -> np.ndarray:
    counts = np.zeros((classes + 1, classes), dtype=np.int64)
    for label, guess in zip(target.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        counts[classes if label == ignore else label, guess] += 1
    return counts


def reference_scores(counts: np.ndarray) -> dict:
    """Scores by loops over classes."""
    classes = counts.shape[1]
    iou, thesis, recall = [], [], []
    for k in range(classes):
        hits = counts[k, k]
        union = sum(counts[k, j] for j in range(classes)) + sum(counts[j, k] for j in range(classes)) - hits
        with_void = union + counts[classes, k]
        labelled = sum(counts[k, j] for j in range(classes))
        iou.append(hits / union if union else math.nan)
        thesis.append(hits / with_void if with_void else math.nan)
        recall.append(hits / labelled if labelled else math.nan)
    return {
        "miou": np.nanmean(iou),
        "miou_thesis": np.nanmean(thesis),
        "class_accuracy": np.nanmean(recall),
        "pixel_accuracy": sum(counts[k, k] for k in range(classes)) / counts[:classes].sum(),
        "iou": iou,
    }


def batch(seed: int, classes: int = 5, size: tuple[int, int] = (13, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, *size, generator=generator)
    target = torch.randint(0, classes, (3, *size), generator=generator, dtype=torch.uint8)
    target[:, :3] = 255
    return logits, target


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("from_logits", [True, False])
def test_counts_are_exact(dtype: torch.dtype, from_logits: bool):
    matrix = ConfusionMatrix(5)
    expected = np.zeros((6, 5), dtype=np.int64)
    for seed in range(3):
        logits, target = batch(seed)
        predicted = logits.argmax(1)
        matrix.update(logits if from_logits else predicted.to(dtype), target.to(dtype))
        expected += reference_counts(predicted, target, 5, 255)
    assert matrix.counts.dtype == torch.int64
    assert np.array_equal(matrix.counts.numpy(), expected)


def test_scores_follow_their_definitions():
    matrix = ConfusionMatrix(5)
    logits, target = batch(0)
    target[target == 3] = 1
    predicted = logits.argmax(1)
    predicted[predicted == 3] = 0
    matrix.update(predicted, target)
    scores, expected = matrix.compute(), reference_scores(matrix.counts.numpy())
    assert scores["iou"] == pytest.approx(expected["iou"], nan_ok=True)
    assert math.isnan(scores["iou"][3])
    for name in ("miou", "miou_thesis", "pixel_accuracy", "class_accuracy"):
        assert scores[name] == pytest.approx(expected[name]), name
    assert scores["miou_thesis"] < scores["miou"]


def test_a_small_case_by_hand():
    # Labels 0 0 1 1 void, predictions 0 1 1 1 1: IoU ½ and ⅔; with the void pixel, class 1 has ½.
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[[0, 1, 1, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 255]]]))
    scores = matrix.compute()
    assert scores["iou"][:2] == pytest.approx((1 / 2, 2 / 3))
    assert math.isnan(scores["iou"][2])
    assert scores["miou"] == pytest.approx(7 / 12)
    assert scores["miou_thesis"] == pytest.approx(1 / 2)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 4)
    assert scores["class_accuracy"] == pytest.approx(3 / 4)


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]]))
    assert matrix.compute()["iou"][2] == 0
    assert matrix.compute()["miou"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("void_only", [True, False])
def test_no_labelled_pixel_gives_nan_and_no_crash(void_only: bool):
    matrix = ConfusionMatrix(3)
    if void_only:
        matrix.update(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255, dtype=torch.uint8))
        assert int(matrix.counts[-1].sum()) == 16
    scores = matrix.compute()
    assert all(math.isnan(scores[name]) for name in ("miou", "pixel_accuracy", "class_accuracy"))
    assert all(math.isnan(value) for value in scores["iou"])


def test_counts_of_single_images_add_up_to_the_matrix(tiny_protocol):
    classes = 21
    generator = torch.Generator().manual_seed(0)
    whole, by_image = ConfusionMatrix(classes), ConfusionMatrix(classes)
    logits = torch.randn(4, classes, 30, 20, generator=generator)
    target = torch.randint(0, classes, (4, 30, 20), generator=generator, dtype=torch.uint8)
    target[:, :3] = 255
    whole.update(logits, target)
    counts = confusion_counts(logits, target, classes, by_image=True)
    by_image.add(counts)
    assert torch.equal(by_image.counts, whole.counts)
    for image in range(4):
        alone = ConfusionMatrix(classes)
        alone.update(logits[image : image + 1], target[image : image + 1])
        assert torch.equal(counts[image, :-1], alone.counts)
    counter = ImageCounter(
        tiny_protocol(train=4).train, {"semseg": Task("semseg", classes)}, torch.device("cpu")
    )
    for rows in ([2, 0], [1, 3]):
        output = TaskOutput(torch.zeros(()), counts[rows], [f"train{row}" for row in rows])
        counter.add("semseg", output)
    images = counter.compute()["semseg"]
    assert images.ids == ("train0", "train1", "train2", "train3")
    assert images.miou() == whole.compute()["miou"]


def test_the_best_constant_prediction_by_trying_all():
    target = torch.tensor([[[0, 0, 1, 2, 2, 2, 255]]])
    scores = []
    for constant in range(4):
        matrix = ConfusionMatrix(4)
        matrix.update(torch.full_like(target, constant), target)
        scores.append(matrix.compute())
    assert scores[0]["constant_miou"] == max(score["miou"] for score in scores) == pytest.approx(0.5 / 3)


def test_merging_is_adding():
    whole, parts = ConfusionMatrix(5), [ConfusionMatrix(5), ConfusionMatrix(5)]
    for seed in range(4):
        whole.update(*batch(seed))
        parts[seed % 2].update(*batch(seed))
    parts[0].merge(parts[1])
    assert torch.equal(parts[0].counts, whole.counts)
    whole.reset()
    assert not whole.counts.any()
    with pytest.raises(ValueError, match="same classes"):
        whole.merge(ConfusionMatrix(4))


@pytest.mark.parametrize("label", [5, 17, 254, -1, 1000])
def test_a_label_that_is_no_class_is_reported(label: int):
    matrix = ConfusionMatrix(5)
    logits, target = batch(0)
    target = target.int()
    target[0, 5, 5] = label
    matrix.update(logits, target)
    with pytest.raises(UserError, match=r"1 pixels have a label outside 0…4 .* ignore value 255"):
        matrix.compute()


def test_an_ignore_index_below_zero():
    matrix = ConfusionMatrix(5, ignore_index=-100)
    logits, target = batch(0)
    target = target.long()
    target[target == 255] = -100
    matrix.update(logits, target)
    assert np.array_equal(matrix.counts.numpy(), reference_counts(logits.argmax(1), target, 5, -100))


def test_shapes_that_do_not_fit_are_refused():
    matrix = ConfusionMatrix(5)
    logits, target = batch(0)
    for wrong in (logits[:, :4], logits[..., :5], logits[:2], target[:2]):
        with pytest.raises(ValueError, match="for targets"):
            matrix.update(wrong, target)
    with pytest.raises(ValueError, match="num_classes=5, ignore_index=3"):
        ConfusionMatrix(5, ignore_index=3)
    with pytest.raises(ValueError, match="num_classes=257"):
        ConfusionMatrix(257)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_chunked_argmax_is_argmax(dtype: torch.dtype, memory_format: torch.memory_format):
    torch.manual_seed(0)
    # More pixels than a chunk, no multiple of it, and (in bfloat16) many equal logits.
    logits = torch.randn(2, 21, 300, 301).to(dtype).to(memory_format=memory_format)
    numpys = logits.float().numpy().argmax(1)  # the first of equals
    assert np.array_equal(_argmax(logits).numpy(), numpys)
    cropped = logits[:, :, 7:290, 5:299]
    assert np.array_equal(_argmax(cropped).numpy(), numpys[:, 7:290, 5:299])


@pytest.mark.parametrize("ignore_index", [255, 21, 9, -1, 300])
@pytest.mark.parametrize("by_image", [False, True])
@pytest.mark.parametrize("size", [(8, 80, 80), (3, 300, 301)])
def test_labels_of_bytes_are_counted_as_those_of_any_type(
    size: tuple[int, ...], ignore_index: int, by_image: bool
):
    """Small images are compared together, large ones in parts; classes, void pixels and invalid labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size[0], 9, *size[1:], generator=generator).round(decimals=1)
    labels = torch.randint(0, 256, size, generator=generator)
    labels = torch.where(torch.rand(size, generator=generator) < 0.7, labels % 9, labels)
    logits[0, 1, 3], logits[1, :, 4] = float("nan"), float("nan")
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = logits.to(memory_format=memory_format)
        options = (9, ignore_index)
        of_bytes = confusion_counts(given, labels.to(torch.uint8), *options, by_image=by_image)
        assert torch.equal(of_bytes, confusion_counts(given, labels, *options, by_image=by_image))
        counted = of_bytes.sum(0) if by_image else of_bytes
        assert counted[:9].sum() == (labels < 9).sum()
        assert counted[9].sum() == (labels == ignore_index).sum()
        assert counted.sum() == labels.numel()


def test_both_histograms_count_the_same():
    torch.manual_seed(0)
    cells = torch.randint(0, 30, (10_007,), dtype=torch.int32)
    expected = np.bincount(cells.numpy(), minlength=42)
    for histogram in (_histogram, _scattered_histogram):
        counts = histogram(cells, 42)
        assert counts.dtype == torch.int64
        assert np.array_equal(counts.numpy(), expected)


def test_many_bins_get_fewer_copies_and_the_same_counts():
    cells = torch.randint(0, 300_000, (5_000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    counts = _scattered_histogram(cells, 300_000)
    assert np.array_equal(counts.numpy(), np.bincount(cells.numpy(), minlength=300_000))


@pytest.mark.gpu
def test_on_a_gpu_the_counts_are_the_same_and_nothing_waits():
    logits, target = batch(0, size=(64, 64))
    expected = ConfusionMatrix(5)
    expected.update(logits, target)
    matrix = ConfusionMatrix(5, device="cuda")
    logits, target = logits.cuda(), target.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        matrix.update(logits, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(matrix.counts.cpu(), expected.counts)
