"""The halving rule on exact examples, and that only values decide, never timing."""

import itertools
import math
import random

import pytest

from study.state.halving import HalvingRule, Rungs, Stop

EPOCHS = 8  # rungs at epochs 2 and 4


def make(values: dict[str, list[float]], arms: dict[str, str] | None = None, **rule: object) -> Rungs:
    """Rungs that know the trials of `values` in that order; nothing is reported yet."""
    rungs = Rungs(HalvingRule(**rule))  # type: ignore[arg-type]
    for order, trial_id in enumerate(values):
        rungs.add(trial_id, order=order, arm=(arms or {}).get(trial_id, "raw"), epochs=EPOCHS)
    return rungs


def run_in_turn(rungs: Rungs, values: dict[str, list[float]]) -> dict[str, Stop | None]:
    """One trial after the other, each until it is stopped or out of values."""
    for trial_id, series in values.items():
        for epoch, value in enumerate(series, start=1):
            rungs.report(trial_id, epoch, value)
            if rungs.stop(trial_id):
                break
        rungs.end(trial_id)
    return {trial_id: rungs.stop(trial_id) for trial_id in values}


@pytest.mark.parametrize(
    ("epochs", "validate_every", "expected"),
    [
        (100, 1, (25, 50)),
        (300, 1, (75, 150)),
        (3, 1, (1, 2)),
        (2, 1, (1, None)),  # both fractions round to epoch 1
        (1, 1, (None, None)),  # the only epoch is the end
        (100, 10, (30, 50)),  # the first validated epoch from the fraction on
        (10, 8, (8, None)),
        (10, 20, (None, None)),
    ],
)
def test_rung_epochs(epochs: int, validate_every: int, expected: tuple[int | None, ...]) -> None:
    assert HalvingRule().rung_epochs(epochs, validate_every) == expected


def test_the_third_trial_needs_to_be_among_the_better_half() -> None:
    values = {"a": [0.5] * 8, "b": [0.3] * 8, "c": [0.2] * 8, "d": [0.4] * 8}
    stops = run_in_turn(make(values), values)
    # a and b have too few competitors; c is last of three (two may go on); d is second of four.
    assert stops == {"a": None, "b": None, "c": Stop(rung=0, epoch=2), "d": None}


def test_a_stopped_trial_does_not_compete_at_the_next_rung() -> None:
    values = {
        "a": [0.5, 0.5, 0.5, 0.5],
        "b": [0.3, 0.3, 0.9, 0.9],
        "c": [0.2, 0.2, 0.9, 0.9],  # stopped at the first rung: its .9 must count nowhere
        "d": [0.4, 0.4, 0.6, 0.6],
    }
    rungs = make(values)
    for trial_id, series in values.items():
        for epoch, value in enumerate(series, start=1):
            rungs.report(trial_id, epoch, value)  # every trial trains on beyond its rung
        rungs.end(trial_id)
    # Second rung of d: a .5, b .9 and its own .6, second of three. With c's .9 it would be third of four.
    assert rungs.stop("c") == Stop(0, 2)
    assert rungs.stop("d") is None


def test_arms_do_not_compete() -> None:
    values = {f"pre{i}": [0.5 + i / 100] * 8 for i in range(5)} | {
        f"raw{i}": [0.05 + i / 100] * 8 for i in range(5)
    }
    arms = {name: name[:3] for name in values}
    assert set(run_in_turn(make(values, arms), values).values()) == {None}
    pooled = run_in_turn(make(values), values)
    assert all(pooled[f"raw{i}"] for i in range(5)), "one cut-off for both arms stops every raw trial"


def test_nan_never_passes_and_ranks_last() -> None:
    nan = math.nan
    values = {"a": [nan] * 8, "b": [0.1] * 8, "c": [0.05] * 8}
    stops = run_in_turn(make(values), values)
    assert stops["a"] == Stop(0, 2), "even with nobody to compete with"
    assert stops["c"] is None, "among nan, .1 and .05 it is second of three"


def test_ties_go_on() -> None:
    values = {name: [0.25] * 8 for name in "abcdef"}
    assert set(run_in_turn(make(values), values).values()) == {None}


def test_a_larger_factor_keeps_fewer() -> None:
    scores = {"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3, "e": 0.55, "f": 0.35}
    values = {name: [score] * 8 for name, score in scores.items()}
    stops = run_in_turn(make(values, reduction_factor=3), values)
    # First rung: c is 3rd of 3 (one may pass), d 4th of 4 (two may), e 2nd of 5 (two), f 5th of 6 (two).
    # Second rung: only a, b and e are left, and e is 2nd of 3 where one may pass.
    assert {name: stop.rung for name, stop in stops.items() if stop} == {"c": 0, "d": 0, "e": 1, "f": 0}


def test_the_same_as_the_quantile_of_all_values() -> None:
    numpy = pytest.importorskip("numpy")
    rng = random.Random(0)
    for _ in range(200):
        factor = rng.choice([2, 3, 4])
        values = {str(i): [rng.random()] * EPOCHS for i in range(rng.randint(3, 9))}
        rungs = make(values, reduction_factor=factor, fractions=(0.25,))
        stops = run_in_turn(rungs, values)
        seen: list[float] = []
        for name, series in values.items():
            cut = numpy.quantile([*seen, series[0]], 1 - 1 / factor)
            expected = len(seen) >= 2 and series[0] < cut - 1e-12
            assert bool(stops[name]) == expected
            seen.append(series[0])


def test_a_decision_waits_for_the_trials_before_it() -> None:
    values = {"a": [0.5] * 8, "b": [0.4] * 8, "c": [0.1] * 8}
    rungs = make(values)
    rungs.report("b", 2, 0.4)
    for epoch in range(1, 9):
        rungs.report("c", epoch, 0.1)
        assert rungs.stop("c") is None
    rungs.end("c")
    assert not rungs.settled("c"), "c trained to its end, but a has not reached the rung"
    rungs.report("a", 2, 0.5)
    assert rungs.stop("c") == Stop(0, 2), "its record is cut at the rung it did not pass"
    assert rungs.settled("c")
    assert not rungs.settled("a"), "a is still running"


def test_a_failed_trial_settles_its_rungs() -> None:
    values = {"a": [0.5], "b": [0.4] * 8, "c": [0.3] * 8, "d": [0.2] * 8}
    rungs = make(values)
    for name in "bcd":
        rungs.report(name, 2, values[name][1])
    assert rungs.stop("d") is None
    rungs.end("a")  # failed in its first epoch: nothing to compete with
    assert rungs.stop("c") is None, "only b stands before it"
    assert rungs.stop("d") == Stop(0, 2)


def test_no_fractions_stop_nobody() -> None:
    values = {name: [score] * 8 for name, score in zip("abcd", (0.9, 0.5, 0.2, math.nan), strict=True)}
    rungs = make(values, fractions=())
    assert set(run_in_turn(rungs, values).values()) == {None}
    assert all(rungs.settled(name) for name in values)


def interleave(
    series: dict[str, list[float]], ends: dict[str, int], rng: random.Random
) -> dict[str, Stop | None]:
    """Reports in a random interleaving; a trial goes on until its stop is known, however late that is."""
    rungs = make(series)
    at = dict.fromkeys(series, 0)
    live = list(series)
    while live:
        name = rng.choice(live)
        if at[name] >= ends[name]:
            rungs.end(name)
            live.remove(name)
            continue
        at[name] += 1
        rungs.report(name, at[name], series[name][at[name] - 1])
        if rungs.stop(name):
            rungs.end(name)
            live.remove(name)
    assert all(rungs.settled(name) for name in series)
    return {name: rungs.stop(name) for name in series}


@pytest.mark.parametrize("case", range(40))
def test_only_values_decide(case: int) -> None:
    rng = random.Random(case)
    names = [f"t{i}" for i in range(rng.randint(3, 10))]
    series = {n: [rng.choice([rng.random(), rng.random(), math.nan]) for _ in range(EPOCHS)] for n in names}
    ends = {n: rng.choice([EPOCHS, EPOCHS, EPOCHS, rng.randint(0, 7)]) for n in names}  # some fail early
    first = interleave(series, ends, rng)
    for _ in range(15):
        assert interleave(series, ends, rng) == first


def test_replay_of_a_killed_study_gives_the_same_decisions() -> None:
    rng = random.Random(7)
    series = {f"t{i}": [rng.random() for _ in range(EPOCHS)] for i in range(9)}
    whole = interleave(series, dict.fromkeys(series, EPOCHS), rng)
    for finished in itertools.chain(range(10)):
        rungs = make(series)
        for name in list(series)[:finished]:  # outcomes on disk
            stop = whole[name]
            for epoch in range(1, (stop.epoch if stop else EPOCHS) + 1):
                rungs.report(name, epoch, series[name][epoch - 1])
            rungs.recall(name, stop.rung if stop else None)
        rest = {name: series[name] for name in list(series)[finished:]}
        run_in_turn(rungs, rest)
        assert {name: rungs.stop(name) for name in series} == whole


def test_a_recorded_decision_stands() -> None:
    values = {"a": [0.5] * 8, "b": [0.4] * 8, "c": [0.3] * 8}
    rungs = make(values)
    for name in "abc":
        rungs.report(name, 2, values[name][1])
    rungs.recall("c", None)
    assert rungs.stop("c") is None
    assert rungs.settled("c")
