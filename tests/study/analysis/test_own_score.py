"""A study that is judged by another score than mIoU: columns, verdict, figures and page are about it."""

import re

import numpy as np
import pytest

from segstrat.image_counts import ImageCounts, mean_boundary_f1, write_counts
from segstrat.store import Store
from study.analysis.study import Study, contexts
from study.frame import load, write_frames
from study.reporting.render import write_report

CLASSES = {"semseg": ["background", "cat", "cow", "dog"]}
RAW, PRETRAINED = (0.10, 0.11, 0.12), (0.50, 0.51, 0.52)


def with_classes(metric: str) -> dict:
    data = {
        "name": "figures",
        "digest": "d",
        "synthetic": True,
        "train_images": 1,
        "val_images": 1,
        "root": "",
    }
    return {"metric": metric, "data": data | {"classes": CLASSES}}


def dice(miou: float) -> float:
    """Of the fixture's trials, whose classes all have one IoU."""
    return 2 * miou / (1 + miou)


def test_columns_and_best_epoch_are_those_of_the_score(study_writer, make_trial):
    folder = study_writer(
        [make_trial({"pretrained": False, "weight_decay": 0.0, "seed": 0}, [0.1, 0.5, 0.4])],
        **with_classes("semseg_val_dice"),
    )
    write_frames(folder)
    trials, epochs = load(folder)
    row = trials.iloc[0]
    assert row["last_semseg_val_dice"] == pytest.approx(dice(0.4))
    assert row["semseg_val_dice"] == pytest.approx(dice(0.5))
    assert row["last_semseg_train_dice"] == pytest.approx(dice(0.5))
    assert (row["last_semseg_val_miou"], row["best_epoch"]) == (0.4, 2)
    assert list(epochs[epochs["split"] == "val"]["miou"]) == [0.1, 0.5, 0.4]


@pytest.mark.parametrize(
    ("metric", "score", "words"),
    [
        ("semseg_val_dice", dice, "mean Dice"),
        ("semseg_val_foreground_miou", float, "mIoU without background"),
        ("semseg_val_iou_cow", float, "IoU of cow"),
    ],
)
def test_the_verdict_is_about_the_score(study_writer, grid, answer_of, metric, score, words):
    plain = answer_of(study_writer(grid(RAW, PRETRAINED), name="plain"))
    own = answer_of(study_writer(grid(RAW, PRETRAINED), name="own", **with_classes(metric)))
    (before,), (after,) = plain.contexts, own.contexts
    assert after.score_name == f"validation {words}"
    assert before.score_name == "validation mIoU"
    assert own.label == plain.label
    trials = after.context.trials
    values = {
        bool(pretrained): part["last_semseg_val_miou"].mean()
        for pretrained, part in trials[trials["weight_decay"] == 0].groupby("pretrained")
    }
    frame = plain.study.trials[plain.study.trials["weight_decay"] == 0]
    expected = frame["last_semseg_val_miou"].map(score).groupby(frame["pretrained"].astype(bool)).mean()
    assert values == pytest.approx(expected.to_dict())
    if score is dice:
        assert after.contrasts.gap.estimate != pytest.approx(before.contrasts.gap.estimate, abs=1e-3)
    rows = own.study.epochs
    assert np.allclose(rows["miou"], plain.study.epochs["miou"].map(score))


def test_the_page_names_the_score(study_writer, grid):
    folder = study_writer(grid(RAW, PRETRAINED), **with_classes("semseg_val_iou_cow"))
    write_frames(folder)
    write_report(Store(folder), files=False)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Gap, in points (0.01 IoU of cow)" in text
    assert "val IoU of cow" in text
    assert re.search(r"validation IoU of cow", text)
    assert "points of mIoU" not in text
    assert "validation mIoU" not in text


def test_images_choose_and_report_by_the_score(study_writer, make_trial):
    folder = study_writer(
        [make_trial({"pretrained": False, "weight_decay": 0.0, "seed": 0}, 0.4)],
        **with_classes("semseg_val_iou_cow"),
    )
    (trial,) = (folder / "trials").iterdir()
    rng = np.random.default_rng(0)
    labeled = rng.integers(50, 100, (40, 4))
    hits, extra = labeled // 2, rng.integers(0, 30, (40, 4))
    val = ImageCounts(tuple(f"image{i}" for i in range(40)), hits, labeled, hits + extra)
    test = ImageCounts(("a", "b"), hits[:2], labeled[:2], hits[:2] + extra[:2])
    write_counts(Store(trial), {("semseg", "val"): val, ("semseg", "test"): test})
    write_frames(folder)
    row = load(folder)[0].iloc[0]

    def cow(counts: ImageCounts, keep=slice(None)) -> float:
        h, n, p = (each[keep, 2].sum() for each in (counts.hits, counts.labeled, counts.predicted))
        return h / (n + p - h)

    assert row["last_semseg_test_iou_cow"] == pytest.approx(cow(test))
    assert row["last_semseg_test_miou"] == pytest.approx(test.miou())
    halves = row["last_semseg_val_iou_cow_a"], row["last_semseg_val_iou_cow_b"]
    assert min(halves) < cow(val) < max(halves)
    assert len(row["last_semseg_test_iou_cow_jackknife"]) == 2
    floor = test.labeled[:, 2].sum() / test.labeled.sum()
    assert row["semseg_test_constant_iou_cow"] == pytest.approx(floor)
    study = Study.open(folder)
    (context,) = contexts(study, "semseg")
    assert context.images == "test images"
    assert context.floor == pytest.approx(floor)
    assert study.trials["last_semseg_test_miou"].item() == pytest.approx(cow(test))


def test_boundaries_of_images_choose_and_report(study_writer, make_trial):
    folder = study_writer(
        [make_trial({"pretrained": False, "weight_decay": 0.0, "seed": 0}, 0.4)],
        **with_classes("semseg_val_boundary_f1"),
    )
    (trial,) = (folder / "trials").iterdir()
    rng = np.random.default_rng(0)
    pixels, all_of = np.full((40, 4), 9), rng.integers(50, 100, (40, 2, 4))
    met = rng.integers(10, 50, (40, 2, 4))
    boundary = np.stack([met[:, 0], all_of[:, 0], met[:, 1], all_of[:, 1]], axis=1)
    val = ImageCounts(tuple(f"image{i}" for i in range(40)), pixels, pixels, pixels, boundary)
    test = ImageCounts(("a", "b"), pixels[:2], pixels[:2], pixels[:2], boundary[:2])
    write_counts(Store(trial), {("semseg", "val"): val, ("semseg", "test"): test})
    write_frames(folder)
    row = load(folder)[0].iloc[0]
    sums = boundary[:2].sum(0)
    precision, recall = sums[0] / sums[1], sums[2] / sums[3]
    expected = (2 * precision * recall / (precision + recall)).mean()
    assert row["last_semseg_test_boundary_f1"] == pytest.approx(expected)
    halves = row["last_semseg_val_boundary_f1_a"], row["last_semseg_val_boundary_f1_b"]
    assert min(halves) < mean_boundary_f1(boundary.sum(0)) < max(halves)
    assert row["semseg_test_constant_boundary_f1"] == 0.0
    study = Study.open(folder)
    (context,) = contexts(study, "semseg")
    assert (context.images, context.floor) == ("test images", 0.0)
    assert study.trials["last_semseg_test_miou"].item() == pytest.approx(expected)
    assert study.score_words("semseg") == "boundary F-score"
