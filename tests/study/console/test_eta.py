"""The time that is left: exact on small cases, and right within a quarter after the first rung."""

import heapq
import random

import pytest

from segstrat.config import TrialConfig
from segstrat.records import EpochReport
from study.console.eta import expected_epochs, in_words, pass_probability, seconds_left
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule, Rungs
from study.state.trial_states import TrialRow

RULE = HalvingRule()


def row(
    order: int,
    *,
    arm: str = "raw",
    epochs: int = 8,
    done: int = 0,
    state: str = "waiting",
    seconds: float = 2,
):
    config = TrialConfig(epochs=epochs, weight_decay=order / 1000)
    trial = PlannedTrial(trial_id=f"{arm}{order}", order=order, arm=arm, axes={}, config=config)
    result = TrialRow(trial, state=state)  # type: ignore[arg-type]
    result.reports = {epoch: report(epoch, epochs, seconds) for epoch in range(1, done + 1)}
    return result


def report(epoch: int, epochs: int, seconds: float) -> EpochReport:
    return EpochReport(
        epoch=epoch, epochs=epochs, status="running", scores=(), learning_rate=0.1, seconds=seconds,
        images_per_second=1.0, data_wait=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("competitors", "expected"), [(0, 1.0), (1, 1.0), (2, 2 / 3), (3, 1 / 2), (4, 3 / 5), (5, 1 / 2)]
)
def test_pass_probability(competitors, expected):
    assert pass_probability(competitors, RULE) == expected


def test_expected_epochs_of_an_arm():
    rows = [row(order) for order in range(4)]
    # Rungs at 2 and 4 of 8. The third trial passes the first with 2/3, and then has two competitors again.
    third = 2 + 2 / 3 * 2 + 2 / 3 * 2 / 3 * 4
    assert expected_epochs(rows[:3], RULE) == pytest.approx({"raw0": 8, "raw1": 8, "raw2": third})
    assert expected_epochs(rows, RULE)["raw3"] < 8
    assert expected_epochs(rows, HalvingRule(fractions=())) == pytest.approx({f"raw{i}": 8 for i in range(4)})


def test_ended_trials_count_as_they_are_and_arms_stay_apart():
    rows = [row(0, done=8, state="completed"), row(1, done=2, state="stopped"), row(2, arm="pre")]
    assert expected_epochs(rows, RULE) == {"raw0": 8, "raw1": 2, "pre2": 8}


def test_open_trials_are_dealt_to_places():
    none = HalvingRule(fractions=())
    rows = [row(0, done=4, state="running"), row(1, done=2, state="running"), row(2)]
    # 4 × 2 s and 6 × 2 s are left; the third takes the first free place: 8 + 10 (start) + 16.
    assert seconds_left(rows, none, concurrent=2) == 34
    assert seconds_left([row(0), row(1)], none, concurrent=2) is None
    assert seconds_left([row(0, done=8, state="completed")], none, concurrent=2) == 0


def test_trials_that_a_search_will_propose_are_counted_too():
    none = HalvingRule(fractions=())
    rows = [row(0, done=8, state="completed")]
    # A whole trial takes 10 s to start and 8 epochs of 2 s; three of them in two places.
    assert seconds_left(rows, none, concurrent=2, unproposed=3) == 52


def simulate(seed: int, concurrent: int) -> tuple[float, float]:
    """A study of two arms with random scores; returns (the estimate when every place has passed a rung,
    the time that was then really left)."""
    rng = random.Random(seed)
    rows = [
        row(order, arm="raw" if order % 2 else "pre", epochs=24 if order % 2 else 16) for order in range(24)
    ]
    pace = {"raw": 2.0, "pre": 3.0}
    rungs = Rungs(RULE)
    for each in rows:
        rungs.add(
            each.trial.trial_id, order=each.trial.order, arm=each.trial.arm, epochs=each.trial.config.epochs
        )
    events: list[tuple[float, int]] = []
    waiting = list(rows)
    now, at, estimate = 0.0, 0.0, None
    for _ in range(concurrent):
        each = waiting.pop(0)
        each.state = "running"
        heapq.heappush(events, (10 + pace[each.trial.arm], each.trial.order))
    while events:
        now, order = heapq.heappop(events)
        each = rows[order]
        trial = each.trial
        epoch = len(each.reports) + 1
        each.reports[epoch] = report(epoch, trial.config.epochs, pace[trial.arm] * rng.uniform(0.9, 1.1))
        rungs.report(trial.trial_id, epoch, rng.random())
        if rungs.stop(trial.trial_id) or epoch == trial.config.epochs:
            each.state = "stopped" if rungs.stop(trial.trial_id) else "completed"
            rungs.end(trial.trial_id)
            if waiting:
                each = waiting.pop(0)
                each.state = "running"
                heapq.heappush(events, (now + 10 + pace[each.trial.arm], each.trial.order))
        else:
            heapq.heappush(events, (now + pace[trial.arm], order))
        passed_rung = all(len(r.reports) >= 6 for r in rows[:concurrent])
        if estimate is None and passed_rung:
            at, estimate = now, seconds_left(rows, RULE, concurrent=concurrent)
    assert estimate is not None
    return estimate, now - at


@pytest.mark.parametrize("concurrent", [1, 2, 4])
def test_right_within_a_quarter_after_the_first_rung(concurrent):
    errors = []
    for seed in range(20):
        estimate, truth = simulate(seed, concurrent)
        errors.append(abs(estimate - truth) / truth)
    assert sorted(errors)[15] < 0.25, "three of four studies"
    assert sum(errors) / len(errors) < 0.2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40, "40 s"), (89.6, "90 s"), (600, "10 min"), (7200, "2.0 h"), (200000, "2.3 days")],
)
def test_in_words(seconds, words):
    assert in_words(seconds) == words
