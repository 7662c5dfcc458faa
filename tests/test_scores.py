"""Scores of whole studies against sums by hand."""

import dataclasses
import math

import numpy as np
import pytest

from segstrat.errors import UserError
from segstrat.image_counts import ImageCounts, mean_boundary_f1
from segstrat.records import EpochReport, SplitScore
from segstrat.scores import Metric

CLASSES = {"semseg": ["background", "car", "traffic light"], "parts": ["background", "head"]}
# Labels 100, 10 and 5 pixels; hits 90, 4 and 0; predicted 100, 12 and 3.
HITS, LABELED, PREDICTED = (np.array(row) for row in ([90, 4, 0], [100, 10, 5], [100, 12, 3]))
IOU = (90 / 110, 4 / 18, 0.0)


def entry(iou: tuple, split: str = "val", task: str = "semseg") -> SplitScore:
    return SplitScore(
        split=split, task=task, loss=1.0, miou=0.25, miou_thesis=0.2, pixel_accuracy=0.9, class_accuracy=0.5,
        iou=iou,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("semseg_val_miou", (90 / 110 + 4 / 18) / 3, "mIoU"),
        ("semseg_val_dice", (2 * 90 / 200 + 2 * 4 / 22) / 3, "mean Dice"),
        ("semseg_val_foreground_miou", 4 / 18 / 2, "mIoU without background"),
        ("semseg_val_iou_car", 4 / 18, "IoU of car"),
        ("semseg_val_iou_traffic light", 0.0, "IoU of traffic light"),
    ],
)
def test_scores_from_counts_and_from_the_iou_of_the_classes(name: str, value: float, words: str):
    metric = Metric.parse(name, CLASSES)
    assert metric.from_counts(HITS, LABELED, PREDICTED) == pytest.approx(value)
    assert (metric.name, metric.words) == (name, words)
    if metric.score != "miou":
        assert metric.of_entry(entry(IOU)) == pytest.approx(value)


def test_miou_of_a_report_is_the_recorded_number():
    report = EpochReport(
        epoch=1, epochs=1, status="completed",
        scores=(entry(IOU), entry(IOU, "train"), entry((0.5, None), task="parts")),
        learning_rate=0.1, seconds=1.0, images_per_second=1.0, data_wait=0.0,
    )  # fmt: skip
    assert Metric("semseg").of_report(report) == 0.25
    assert Metric.parse("semseg_val_iou_car", CLASSES).of_report(report, "train") == pytest.approx(4 / 18)
    assert Metric.parse("semseg_val_iou_car", CLASSES).of_report(report, "test") is None
    assert math.isnan(Metric.parse("parts_val_iou_head", CLASSES).of_report(report)), "nobody has a head"
    assert Metric("boundaries").of_report(report) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("semseg_val_miou", 100 / 115 / 3),
        ("semseg_val_dice", 2 * 100 / 215 / 3),
        ("semseg_val_foreground_miou", 10 / 115 / 2),
        ("semseg_val_iou_traffic light", 5 / 115),
    ],
)
def test_the_best_constant_prediction(name: str, value: float):
    images = ImageCounts(("a",), HITS[None], LABELED[None], PREDICTED[None])
    assert Metric.parse(name, CLASSES).constant(images) == pytest.approx(value)


def test_another_task_has_the_same_score_but_not_that_of_a_class():
    assert Metric.parse("semseg_val_dice").of("parts") == Metric("parts", "dice")
    assert Metric.parse("semseg_val_iou_car", CLASSES).of("parts") == Metric("parts")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("semseg_val_iou_cat", "unknown class of task semseg 'cat'"),
        ("semseg_val_iou_", "expected one of <task>_val_miou"),
        ("semseg_miou", "expected one of <task>_val_miou"),
        ("cars_val_miou", "with <task> one of semseg, parts, boundaries"),
    ],
)
def test_an_unknown_score_or_class_is_refused(name: str, message: str):
    with pytest.raises(UserError, match=message):
        Metric.parse(name, CLASSES)


def test_an_unknown_class_of_a_thousand_lists_some_of_them():
    classes = {"semseg": [f"class {number}" for number in range(1000)]}
    with pytest.raises(
        UserError, match=r"did you mean 'class 7'\? Known: class 0, .* and 940 more\."
    ) as caught:
        Metric.parse("semseg_val_iou_clas 7", classes)
    assert len(str(caught.value)) < 1000


BOUNDARY = np.array([[30, 0, 0], [40, 4, 0], [45, 0, 0], [60, 6, 0]])


def test_boundary_f_score_is_the_mean_over_the_classes_that_have_a_boundary():
    precision, recall = 30 / 40, 45 / 60
    expected = (2 * precision * recall / (precision + recall) + 0) / 2
    assert mean_boundary_f1(BOUNDARY) == pytest.approx(expected)
    assert math.isnan(mean_boundary_f1(np.zeros((4, 3), int)))
    metric = Metric.parse("semseg_val_boundary_f1", CLASSES)
    assert (metric.words, metric.of("parts")) == ("boundary F-score", Metric("parts", "boundary_f1"))
    assert metric.from_counts(HITS, LABELED, PREDICTED, BOUNDARY) == pytest.approx(expected)
    assert math.isnan(metric.from_counts(HITS, LABELED, PREDICTED)), "not counted"
    assert metric.of_entry(dataclasses.replace(entry(IOU), boundary_f1=0.25)) == 0.25
    assert math.isnan(metric.of_entry(entry(IOU)))


def test_one_class_everywhere_has_no_boundary():
    metric = Metric("semseg", "boundary_f1")
    images = ImageCounts(("a",), HITS[None], LABELED[None], PREDICTED[None], BOUNDARY[None])
    assert metric.constant(images) == 0.0
    assert images.miou(score=metric.from_counts) == mean_boundary_f1(BOUNDARY)
    assert images.miou() == Metric("semseg").from_counts(HITS, LABELED, PREDICTED)
    assert math.isnan(metric.constant(dataclasses.replace(images, boundary=None)))
