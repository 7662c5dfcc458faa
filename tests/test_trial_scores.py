"""Which score of a trial chooses, and which one is reported."""

import math

import pytest

from segstrat.records import EpochReport, SplitScore, TrialStatus
from segstrat.trial_record import TrialRecord


def score(split, miou):
    return SplitScore(
        split=split, task="semseg", loss=1.0, miou=miou, miou_thesis=miou, pixel_accuracy=miou,
        class_accuracy=miou, iou=(miou,),
    )  # fmt: skip


def record(status=TrialStatus.COMPLETED, facts=None, **splits):
    report = EpochReport(
        epoch=4, epochs=4, status="completed", scores=tuple(score(*item) for item in splits.items()),
        learning_rate=0.1, seconds=1.0, images_per_second=1.0, data_wait=0.0,
    )  # fmt: skip
    return TrialRecord(status=status, facts=facts or {}, all_reports=(report,))


HALVES = {"half_miou": {"semseg": {"a": 0.32, "b": 0.28}}}


@pytest.mark.parametrize(
    ("splits", "facts", "choosing", "reported"),
    [
        ({"val": 0.3}, {}, 0.3, 0.3),
        ({"val": 0.3}, HALVES, 0.32, 0.28),
        ({"val": 0.3, "test": 0.25}, HALVES, 0.3, 0.25),
        ({"val": 0.3}, {"half_miou": {"semseg": {"a": 0.3, "b": None}}}, 0.3, 0.3),
        ({"val": 0.3}, {"half_miou": {"parts": {"a": 0.5, "b": 0.5}}}, 0.3, 0.3),
    ],
)
def test_images_that_choose_do_not_report(splits, facts, choosing, reported):
    found = record(facts=facts, **splits)
    assert found.choosing_score("semseg") == choosing
    assert found.reported_score("semseg") == reported


def test_a_diverged_trial_scores_like_a_constant_prediction():
    facts = {"constant_miou": {"semseg": {"val": 0.1, "test": 0.09}}}
    assert record(TrialStatus.DIVERGED, facts, val=0.3).reported_score("semseg") == 0.09
    assert record(TrialStatus.DIVERGED, facts, val=0.3).choosing_score("semseg") == 0.1
    assert record(TrialStatus.DIVERGED, {}, val=0.3).reported_score("semseg") == 0.0


@pytest.mark.parametrize("status", [TrialStatus.STOPPED, TrialStatus.FAILED, TrialStatus.UNFINISHED])
def test_only_a_completed_trial_has_a_final_score(status):
    assert math.isnan(record(status, HALVES, val=0.3).reported_score("semseg"))
    assert math.isnan(record(status, HALVES, val=0.3).choosing_score("semseg"))
