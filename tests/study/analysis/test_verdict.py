import dataclasses
import math

import pandas as pd
import pytest

from study.analysis.answering.decision import Cause, Learning
from study.analysis.contrasts import Arm, Chosen, Contrasts
from study.analysis.intervals import Interval
from study.analysis.phrases import ahead, points, with_interval
from study.analysis.study import Context
from study.analysis.verdict import MARGIN, Verdict, decisive_contrasts, judge_contrasts
from study.analysis.verdict_sentences import reason


def interval(low, high, n=5):
    return Interval((low + high) / 2, low, high, n, "test")


UNKNOWN = Interval(0.03, None, None, 1, "no interval: 1 seed, at least 3 are needed")
NOTHING = Interval(None, None, None, 0, "no value")


def found(gap, improvement, remaining, seeds=(0,)):
    values = pd.DataFrame({"weight decay 0": 0.25, "weight decay 5e-4": 0.3}, index=list(seeds))
    arm = Arm(values, values, "weight decay 0")
    chosen = Chosen({0: ("weight decay 5e-4",)}, pd.Series([0.3]), same_seed=False, candidates=1)
    return Contrasts(
        gap=gap, improvement=improvement, remaining=remaining, closure=NOTHING,
        raw=arm, pretrained=arm, chosen_reference=chosen, best_raw=chosen, best_pretrained=chosen,
        differences={name: pd.Series([0.01, 0.02, 0.03]) for name in ("gap", "improvement", "remaining")},
        variance_factors=dict.fromkeys(("gap", "improvement", "remaining"), 1.0),
    )  # fmt: skip


GAP = interval(0.05, 0.07)
CONTEXT = Context("semseg", {}, {"weight_decay": 0.0}, pd.DataFrame({"pretrained": [], "status": []}))


def reason_of(contrasts, margin=MARGIN):
    judgement = judge_contrasts(contrasts, margin)
    verdict = Verdict(
        CONTEXT, contrasts, margin, judgement.label, judgement.cause, judgement,
        Learning(None, None, None), "the images that chose",
    )  # fmt: skip
    return judgement.label, reason(verdict)


@pytest.mark.parametrize(
    ("gap", "improvement", "remaining", "label"),
    [
        (GAP, interval(0.05, 0.07), interval(-0.005, 0.008), "closes"),
        (GAP, interval(0.05, 0.12), interval(-0.03, -0.01), "closes"),  # raw even overtakes
        (GAP, interval(0.01, 0.03), interval(0.02, 0.05), "narrows"),
        (GAP, interval(-0.01, 0.02), interval(0.03, 0.06), "does not close"),
        (GAP, interval(-0.03, -0.01), interval(0.06, 0.09), "does not close"),
        (GAP, interval(0.03, 0.06), interval(0.0, 0.03), "undetermined"),  # holds the margin
        (interval(-0.01, 0.02), interval(0.0, 0.02), interval(-0.005, 0.005), "undetermined"),  # no gap shown
        (interval(0.002, 0.008), interval(0.0, 0.02), interval(-0.005, 0.005), "not needed"),
        (interval(-0.172, -0.029), interval(0.0, 0.02), interval(-0.2, 0.0), "hurts"),
        (interval(0.05, math.inf), interval(-0.01, 0.02), interval(0.03, math.inf), "does not close"),
        (UNKNOWN, UNKNOWN, UNKNOWN, "undetermined"),
        (NOTHING, NOTHING, NOTHING, "undetermined"),
        (NOTHING, NOTHING, interval(0.02, 0.05), "undetermined"),  # no reference
    ],
)
def test_the_label_follows_the_intervals(gap, improvement, remaining, label):
    assert judge_contrasts(found(gap, improvement, remaining), MARGIN).label == label


def test_the_margin_decides():
    narrow = found(GAP, interval(0.04, 0.05), interval(0.012, 0.018))
    assert judge_contrasts(narrow, 0.01).label == "narrows"
    assert judge_contrasts(narrow, 0.015).label == "undetermined"
    assert judge_contrasts(narrow, 0.02).label == "closes"


def test_reasons_hold_the_numbers():
    label, text = reason_of(found(GAP, interval(0.01, 0.03), interval(0.02, 0.05)))
    assert label == "narrows"
    assert "2 points (95 % interval 1.0 to 3.0, 5 seeds)" in text
    assert "3.5 points (95 % interval 2.0 to 5.0, 5 seeds) ahead of" in text
    assert "margin of 1 point" in text


def test_a_single_seed_says_so_without_an_interval():
    _, text = reason_of(found(UNKNOWN, UNKNOWN, UNKNOWN))
    assert "One seed is too few for an interval" in text
    assert "95 %" not in text


def test_missing_parts_are_named():
    nothing = found(NOTHING, NOTHING, NOTHING)
    empty = Arm(pd.DataFrame(), pd.DataFrame(), None)
    nobody = Chosen({}, pd.Series(dtype=float), same_seed=False, candidates=0)
    _, text = reason_of(dataclasses.replace(nothing, raw=empty, best_raw=nobody))
    assert text == "The study has no raw trial."


@pytest.mark.parametrize(
    ("value", "text"), [(0.012, "1.2 points"), (0.01, "1 point"), (-0.004, "−0.4 points"), (0.1, "10 points")]
)
def test_points(value, text):
    assert points(value) == text


def test_behind_is_not_a_negative_lead():
    assert ahead(interval(-0.03, -0.01)) == "2 points (95 % interval 1.0 to 3.0, 5 seeds) behind"
    assert with_interval(UNKNOWN) == "3 points (1 seed, no interval)"
    assert with_interval(NOTHING) == "an unknown number of points"


def test_a_bound_shows_on_which_side_of_margin_and_zero_it_is():
    assert "interval 1.03 to 18.3," in with_interval(interval(0.0103, 0.183), 0.01)
    assert "interval 0.98 to 18.3," in with_interval(interval(0.0098, 0.183), 0.01)
    assert "interval 1.0 to 18.3," in with_interval(interval(0.0103, 0.183)), "nothing is compared with 1"
    assert "interval −0.02 to 0.004," in with_interval(interval(-0.0002, 0.00004), 0.01)
    assert "interval 0.0 to 1.0," in with_interval(interval(0.0, 0.01), 0.01)
    assert "interval 1.000 to 3.0," in with_interval(interval(0.0100001, 0.03), 0.01), "no end of digits"


def test_decisive_contrasts_ask_for_seeds_only_where_unsettled():
    rows = decisive_contrasts(found(GAP, interval(-0.01, 0.02), interval(0.0, 0.03)), MARGIN)
    by_name = {row.contrast: row for row in rows}
    assert by_name["gap"].settled
    assert not by_name["remaining"].settled
    # Mean .02 and spread .01 of three seeds against a threshold of .01: were both exact, 7 seeds would do.
    assert by_name["remaining"].seeds > 7
    assert not by_name["improvement"].settled


@pytest.mark.parametrize(
    ("floor", "raw", "pretrained", "cause"),
    [
        (0.104, 0.104, 0.272, Cause.RAW_NOT_LEARNED),
        (0.104, 0.112, 0.272, Cause.RAW_NOT_LEARNED),
        (0.104, 0.2, 0.11, Cause.PRETRAINED_NOT_LEARNED),
        (0.104, 0.12, 0.272, None),
        (None, 0.104, 0.272, None),
        (0.104, None, None, None),
    ],
)
def test_an_arm_must_beat_the_constant_prediction_by_the_margin(floor, raw, pretrained, cause):
    assert Learning(floor, raw, pretrained).cause(0.01) == cause
