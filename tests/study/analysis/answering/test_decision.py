"""The decisions at the looks, on simulated scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.simulated_grid import answering_values, grid, run_study
from study.analysis.answering.decision import Roles, look_intervals, replay
from study.analysis.answering.design import AnsweringDesign

ROLES = Roles(reference="a", raw=("b", "c"), pretrained=("d", "e"))
DESIGN = AnsweringDesign(max_seeds=12, looks=(4, 8, 12))


def scores(means, *, seeds=12, spread=0.006, rng=None):
    """Scores of the cells of `ROLES`, with a seed effect that all cells share."""
    rng = rng or np.random.default_rng(0)
    noise = rng.normal(0, spread, (seeds, 5)) + rng.normal(0, 0.02, (seeds, 1))
    return pd.DataFrame(np.asarray(means) + noise, columns=list("abcde"), index=range(100, 100 + seeds))


def labels(means, design=DESIGN, runs=20, **options):
    rng = np.random.default_rng(1)
    found = [replay(scores(means, rng=rng, **options), ROLES, design)[-1].label for _ in range(runs)]
    return max(set(found), key=found.count)


@pytest.mark.parametrize(
    ("means", "label"),
    [
        ([0.20, 0.30, 0.29, 0.30, 0.29], "closes"),
        ([0.20, 0.25, 0.22, 0.30, 0.29], "narrows"),
        ([0.20, 0.20, 0.19, 0.30, 0.29], "does not close"),
        ([0.20, 0.20, 0.19, 0.20, 0.19], "not needed"),
        ([0.20, 0.20, 0.19, 0.10, 0.09], "hurts"),
    ],
)
def test_each_truth_has_its_label(means, label):
    assert labels(means) == label


def test_a_study_that_is_settled_stops_before_the_last_look():
    looks = replay(scores([0.20, 0.25, 0.22, 0.35, 0.30]), ROLES, DESIGN)
    assert looks[-1].label == "narrows"
    assert looks[-1].seeds < 12
    assert all(look.label is None for look in looks[:-1])
    assert looks[-1].next_seeds is None
    assert looks[-1].next_trials == 0


def test_without_any_help_the_study_gives_up_before_the_last_look():
    looks = replay(scores([0.20, 0.195, 0.17, 0.30, 0.29], seeds=40), ROLES, AnsweringDesign(max_seeds=40))
    assert looks[-1].label == "does not close"
    assert looks[-1].seeds < 40


def test_a_look_uses_complete_seeds_only_and_repeats_itself():
    values = scores([0.20, 0.24, 0.22, 0.30, 0.29])
    partial = values.copy()
    partial.iloc[2, 3] = np.nan
    partial.iloc[8:, :] = np.nan
    (look,) = replay(partial, ROLES, DESIGN)
    assert look.used == (100, 101, 103, 104)
    assert [look] == replay(values.drop(index=102).iloc[:5], ROLES, DESIGN)
    assert replay(values.iloc[:3], ROLES, DESIGN) == []
    first = replay(values.iloc[:4], ROLES, DESIGN)
    assert replay(values, ROLES, DESIGN)[: len(first)] == first, "more seeds never change an earlier look"


def test_a_dropped_candidate_needs_no_more_seeds():
    values = scores([0.20, 0.26, 0.20, 0.28, 0.20])
    looks = replay(values, ROLES, DESIGN)
    assert looks[0].roles.dropped == ("c",)
    later = values.copy()
    later.loc[104:, "c"] = np.nan
    assert replay(later, ROLES, DESIGN) == looks


def test_what_stays_ahead_is_shown_with_the_first_pretrained_candidate_alone():
    values = scores([0.20, 0.20, 0.19, 0.30, 0.29])
    looks = replay(values.assign(e=np.nan), ROLES, DESIGN)
    assert looks[-1].label == "does not close"
    for interval in (looks[-1].gap, looks[-1].remaining):
        assert interval.low > 0.01
        assert interval.high == np.inf
    assert looks[-1].improvement.high < np.inf
    assert replay(values.assign(e=0.9), ROLES, DESIGN) == looks, "what was not asked for has no say"


def test_only_all_pretrained_candidates_together_can_be_caught_up_with():
    values = scores([0.20, 0.30, 0.29, 0.30, 0.29])
    alone = replay(values.assign(e=np.nan), ROLES, DESIGN)
    assert [look.number for look in alone] == [1]
    assert alone[0].label is None
    assert alone[0].next_seeds == alone[0].seeds == 4
    assert alone[0].next_trials == 4, "the other candidate on the seeds so far"
    looks = replay(values, ROLES, DESIGN)
    assert [look.number for look in looks[:2]] == [1, 1]
    assert not looks[1].roles.one_sided
    assert looks[-1].label == "closes"
    hidden = replay(values.assign(e=values["d"] + 0.05), ROLES, DESIGN)
    assert hidden[-1].label != "closes"


def test_a_single_pretrained_candidate_has_both_ends_at_once():
    roles = Roles(reference="a", raw=("b", "c"), pretrained=("d",))
    looks = replay(scores([0.20, 0.30, 0.29, 0.30, 0.29]), roles, DESIGN)
    assert all(look.remaining.high < np.inf for look in looks)
    assert looks[-1].label == "closes"


def test_a_further_variance_widens_every_end_by_the_same_rule():
    """Over images too: the critical values and the shares of the error stay those of the look."""
    values = scores([0.20, 0.24, 0.239, 0.30, 0.299])
    look = replay(values, ROLES, DESIGN)[0]
    used = values.loc[list(look.used)]
    cells = len(look.roles_before.active)
    same, wider = (
        look_intervals(used, look.roles_before, DESIGN, 1, np.full((cells, cells), variance))
        for variance in (0.0, 0.01**2)
    )
    assert same["gap"] == look.gap
    assert wider["gap"].low < look.gap.low
    assert wider["improvement"].low < look.improvement.low < look.improvement.high < wider["improvement"].high


def test_estimates_add_up_and_lie_in_their_intervals():
    look = replay(scores([0.20, 0.24, 0.239, 0.30, 0.299]), ROLES, DESIGN)[-1]
    assert look.gap.estimate == pytest.approx(look.improvement.estimate + look.remaining.estimate)
    for interval in (look.gap, look.improvement, look.remaining, look.closure):
        assert interval.low <= interval.estimate <= interval.high


def test_the_share_that_is_closed_is_that_of_the_reported_gain_and_gap():
    looks = [
        look
        for seed in range(20)
        for look in replay(scores([0.2, 0.2, 0.2, 0.3, 0.3], rng=np.random.default_rng(seed)), ROLES, DESIGN)
    ]
    known = [look for look in looks if look.closure.known]
    assert len(known) > 10
    for look in known:
        assert look.closure.estimate == pytest.approx(look.improvement.estimate / look.gap.estimate)
        assert look.closure.low <= look.closure.estimate <= look.closure.high


def test_more_candidates_need_more_evidence():
    """Something is the best of three tied cells on any seeds; that alone must not look like a gain."""
    values = scores([0.2, 0.21, 0.21, 0.3, 0.3], seeds=5)
    one = replay(values, Roles(reference="a", raw=("b",), pretrained=("d",)), AnsweringDesign.single_look(5))
    both = replay(values, ROLES, AnsweringDesign.single_look(5))
    assert both[0].improvement.low < one[0].improvement.low


def test_collapsed_arms_are_no_certainty():
    values = scores([0.104, 0.104, 0.104, 0.3, 0.29])
    values[["a", "b", "c"]] = 0.104
    look = replay(values, ROLES, DESIGN)[-1]
    assert look.improvement.low < 0 < look.improvement.high
    constant = pd.DataFrame(0.104, index=range(12), columns=list("abcde"))
    assert not replay(constant, ROLES, DESIGN)[0].gap.known


def test_a_cell_that_diverges_on_half_of_its_seeds_does_not_close():
    """The survivors alone would: three of six seeds end as high as pre-trained."""
    values = scores([0.20, 0.30, 0.22, 0.30, 0.29], seeds=6)
    values.loc[[101, 103, 105], "b"] = 0.05
    look = replay(values, ROLES, AnsweringDesign.single_look(6))[-1]
    assert look.label != "closes"


def test_two_seeds_have_no_interval_and_no_verdict():
    looks = replay(scores([0.2, 0.3, 0.2, 0.3, 0.2], seeds=2), ROLES, AnsweringDesign.single_look(2))
    assert looks[-1].label == "undetermined"
    assert not looks[-1].gap.known


def test_the_chances_say_what_the_next_seeds_may_settle():
    looks = replay(scores([0.20, 0.25, 0.22, 0.30, 0.29]), ROLES, DESIGN)
    for look in looks[:-1]:
        assert set(look.chances) == {name for name, done in look.settled.items() if not done}
        assert all(0 <= soon <= 1 and 0 <= end <= 1 for soon, end in look.chances.values())
    assert looks[-1].spent <= 0.05


# False answers over the whole procedure, screening included. docs/simulations.md has more repetitions.


@pytest.mark.parametrize("shape", [pytest.param("peak", marks=pytest.mark.slow), "tied raw"])
def test_false_closes_are_rare_when_the_remaining_gap_is_the_margin(shape):
    truth, rng = grid(shape, 7 / 8), np.random.default_rng(10)
    assert truth.truth["remaining"] == pytest.approx(0.01)
    found = [run_study(truth, rng, AnsweringDesign()).last.label for _ in range(150)]
    assert found.count("closes") / 150 <= 0.05


def test_false_narrows_are_rare_without_a_gain():
    truth, rng = grid("tied", 0), np.random.default_rng(11)
    found = [run_study(truth, rng, AnsweringDesign()).last.label for _ in range(150)]
    assert found.count("narrows") / 150 <= 0.05


@pytest.mark.slow
def test_looking_naively_would_close_too_often():
    """The rule before this one: plain intervals after every seed from 3 to 15."""
    truth, rng = grid("clear", 7 / 8), np.random.default_rng(12)
    roles = Roles(reference="raw 0", raw=("raw 3",), pretrained=("pre 2",))
    naive = planned = 0
    for _ in range(200):
        values = answering_values(truth, rng, 20)
        naive += any(
            replay(values.iloc[:n], roles, AnsweringDesign.single_look(n))[0].label == "closes"
            for n in range(3, 16)
        )
        planned += replay(values, roles, AnsweringDesign())[-1].label == "closes"
    assert naive / 200 > 0.04, "far above the 2.5 % of one look"
    assert planned / 200 <= 0.025


def test_gains_are_measured_from_the_best_value_of_the_reference():
    """Raw gains four points over the reference at the value that screening preferred, and none at another."""
    rng = np.random.default_rng(0)
    means = {"ref (low)": 0.30, "ref (high)": 0.34, "raw": 0.34, "pre": 0.45}
    values = pd.DataFrame({cell: mean + rng.normal(0, 0.005, 10) for cell, mean in means.items()})
    roles = Roles(reference="ref (low)", other_references=("ref (high)",), raw=("raw",), pretrained=("pre",))
    design = AnsweringDesign(max_seeds=10, looks=(5, 10), futility=0.0)
    (look, *_) = replay(values, roles, design)
    assert look.leaders["reference"] == "ref (high)"
    assert not look.improvement.above(0)
    assert look.gap.estimate == pytest.approx(0.11, abs=0.01)
    assert "ref (low)" in look.roles.dropped
    alone = replay(values, Roles(reference="ref (low)", raw=("raw",), pretrained=("pre",)), design)[0]
    assert alone.improvement.above(0)


def test_several_references_share_the_error():
    rng = np.random.default_rng(1)
    values = pd.DataFrame(0.3 + rng.normal(0, 0.01, (10, 4)), columns=["ref a", "ref b", "raw", "pre"])
    values["pre"] += 0.1
    design = AnsweringDesign(max_seeds=10, looks=(10,), drop_t=100.0)
    one = replay(values, Roles(reference="ref a", raw=("raw",), pretrained=("pre",)), design)[0]
    both = Roles(reference="ref a", other_references=("ref b",), raw=("raw",), pretrained=("pre",))
    two = replay(values, both, design)[0]
    assert two.improvement.low <= one.improvement.low, "raw must be ahead of both"


def test_a_choice_of_starting_points_does_not_await_whether_regularization_helps():
    """Pre-trained is far ahead, and the gain of raw is positive and small: worth more seeds only if asked."""
    rng = np.random.default_rng(2)
    means = {"ref": 0.30, "raw": 0.312, "pre": 0.50}
    values = pd.DataFrame({cell: mean + rng.normal(0, 0.004, 26) for cell, mean in means.items()})
    roles = Roles(reference="ref", raw=("raw",), pretrained=("pre",))
    design = AnsweringDesign()
    awaited = replay(values, roles, replace(design, error=design.error / 3))
    chosen = replay(values, roles, design.of_comparisons(3))
    assert awaited[0].label is None
    assert awaited[-1].label == "narrows"
    assert [look.label for look in chosen] == ["does not close"]
    assert chosen[0].reason == "more than the margin remains"
    assert chosen[0].remaining == awaited[0].remaining, "the same error of each comparison"
    assert design.of_comparisons(1) is design
