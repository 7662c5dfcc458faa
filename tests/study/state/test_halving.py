"""The halving rule on exact examples, and that only values decide, never timing."""

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from study.state.halving import Competitor, Decision, HalvingRule, decide, recorded_decisions, stop_rung

EPOCHS = 8  # rungs at epochs 2 and 4


@dataclass(frozen=True)
class Stop:
    rung: int
    epoch: int


class Group:
    """Trials of one group, in that order, fed one report at a time."""

    def __init__(self, names: Iterable[str], **rule: object) -> None:
        self.rule = HalvingRule(**rule)  # type: ignore[arg-type]
        self.epochs = self.rule.rung_epochs(EPOCHS)
        self.values: dict[str, dict[int, float]] = {name: {} for name in names}
        self.ended: set[str] = set()
        self.recorded: dict[str, int | None] = {}
        self.exempt: set[str] = set()
        self.unranked: set[str] = set()
        self.learned: dict[str, float] = {}

    def report(self, name: str, epoch: int, value: float) -> None:
        self.values[name][epoch] = value

    def end(self, name: str) -> None:
        self.ended.add(name)

    def record(self, name: str, rung: int | None) -> None:
        self.recorded[name] = rung
        self.end(name)

    def decisions(self) -> dict[str, tuple[Decision, ...]]:
        group = [
            Competitor(
                epochs=self.epochs,
                values=tuple(None if epoch is None else values.get(epoch) for epoch in self.epochs),
                ended=name in self.ended,
                learned=tuple(self.learned.get(name) for _ in self.epochs),
                exempt=name in self.exempt,
                ranked=name not in self.unranked,
                recorded=recorded_decisions(self.rule, self.recorded[name])
                if name in self.recorded
                else None,
            )
            for name, values in self.values.items()
        ]
        return dict(zip(self.values, decide(group, self.rule), strict=True))

    def stop(self, name: str) -> Stop | None:
        rung = stop_rung(self.decisions()[name])
        return None if rung is None else Stop(rung, self.epochs[rung] or 0)

    def settled(self, name: str) -> bool:
        return name in self.ended and Decision.OPEN not in self.decisions()[name]


def run_in_turn(group: Group, values: dict[str, list[float]]) -> dict[str, Stop | None]:
    """One trial after the other, each until it is stopped or out of values."""
    for name, series in values.items():
        for epoch, value in enumerate(series, start=1):
            group.report(name, epoch, value)
            if group.stop(name):
                break
        group.end(name)
    return {name: group.stop(name) for name in values}


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
    stops = run_in_turn(Group(values), values)
    # a and b have too few competitors; c is last of three (two may continue); d is second of four.
    assert stops == {"a": None, "b": None, "c": Stop(rung=0, epoch=2), "d": None}


def test_a_stopped_trial_does_not_compete_at_the_next_rung() -> None:
    values = {
        "a": [0.5, 0.5, 0.5, 0.5],
        "b": [0.3, 0.3, 0.9, 0.9],
        "c": [0.2, 0.2, 0.9, 0.9],  # stopped at the first rung: its .9 must count nowhere
        "d": [0.4, 0.4, 0.6, 0.6],
    }
    group = Group(values)
    for trial_id, series in values.items():
        for epoch, value in enumerate(series, start=1):
            group.report(trial_id, epoch, value)  # every trial trains on beyond its rung
        group.end(trial_id)
    # Second rung of d: a .5, b .9 and its own .6, second of three. With c's .9 it would be third of four.
    assert group.stop("c") == Stop(0, 2)
    assert group.stop("d") is None


def test_an_exempt_trial_competes_and_is_never_stopped() -> None:
    values = {"a": [0.5] * 8, "b": [0.4] * 8, "reference": [0.1] * 8, "d": [0.3] * 8, "e": [0.05] * 8}
    group = Group(values)
    group.exempt = {"reference"}
    stops = run_in_turn(group, values)
    assert stops["reference"] is None
    assert stops["d"] == Stop(0, 2), "third of four"
    # d did not pass, but its value at the rung counts, and so does the reference's: e is last of five.
    assert stops["e"] == Stop(0, 2)
    assert group.decisions()["reference"] == (Decision.PASS, Decision.PASS)


def trailing(learned: dict[str, float], **rule: object) -> dict[str, Stop | None]:
    """What becomes of trials that no rank may stop, the later the lower their value."""
    group = Group(learned, **rule)
    group.learned, group.unranked = learned, set(learned)
    values = {name: [0.5 - 0.05 * place] * 8 for place, name in enumerate(learned)}
    return run_in_turn(group, values)


def test_what_trails_the_best_by_far_is_stopped_and_no_rank_matters() -> None:
    stops = trailing({"a": 0.30, "b": 0.10, "c": 0.16, "d": 0.0, "e": 0.15})
    # 20 % of .30 are .06, 50 % are .15; c and e are behind it in rank and stay.
    assert stops == {"a": None, "b": Stop(1, 4), "c": None, "d": Stop(0, 2), "e": None}


def test_only_earlier_trials_are_compared_with_so_that_the_first_one_stays() -> None:
    assert trailing({"a": 0.0, "b": 0.3, "c": 0.01}) == {"a": None, "b": None, "c": Stop(0, 2)}


def test_nothing_trails_where_nothing_has_been_learned() -> None:
    """As long as every trial predicts one class alone, none is worse than the others."""
    assert set(trailing({"a": 0.0, "b": 0.0, "c": 0.0}).values()) == {None}


@pytest.mark.parametrize("unknown", [math.nan, None])
def test_an_unknown_amount_stops_nothing_and_counts_for_nothing(unknown: float | None) -> None:
    stops = trailing({"a": 0.3, "b": unknown, "c": 0.2})  # type: ignore[dict-item]
    assert stops == {"a": None, "b": None, "c": None}


def test_the_reference_may_trail() -> None:
    group = Group("ab")
    group.learned, group.exempt = {"a": 0.3, "b": 0.0}, {"b"}
    assert run_in_turn(group, {"a": [0.5] * 8, "b": [0.1] * 8}) == {"a": None, "b": None}


def test_a_trial_waits_for_what_earlier_ones_have_learned() -> None:
    group = Group("ab")
    group.learned, group.unranked = {"a": 0.3, "b": 0.0}, {"a", "b"}
    group.report("b", 2, 0.1)
    assert group.decisions()["b"][0] is Decision.OPEN
    group.report("a", 2, 0.5)
    assert group.stop("b") == Stop(0, 2)


def test_a_study_of_an_earlier_version_keeps_its_rule() -> None:
    manifest = {"name": "asha", "reduction_factor": 2, "rung_fractions": [0.25, 0.5], "min_competitors": 2}
    rule = HalvingRule.from_dict(manifest)
    assert rule.least_shares == ()
    learned = {"a": 0.3, "b": 0.0, "c": 0.0}
    assert set(trailing(learned, least_shares=rule.least_shares).values()) == {None}
    assert rule.words(ranked=False) == "none"
    assert HalvingRule.from_dict(HalvingRule().to_dict()) == HalvingRule()


def test_the_words_say_what_may_be_stopped() -> None:
    rule = HalvingRule()
    bounds = (
        "less than 20% after 25% of its epochs, less than 50% after 50% of its epochs of what the best one"
    )
    assert bounds in rule.words(ranked=False)
    assert "never the reference, never the answering stage" in rule.words(ranked=False)
    assert "best 1/2" not in rule.words(ranked=False)
    assert "best 1/2" in rule.words(ranked=True)
    assert HalvingRule.of("none").words(ranked=True) == "none"


def test_an_exempt_trial_need_not_wait_for_earlier_ones() -> None:
    group = Group("ab")
    group.exempt = {"b"}
    group.report("b", 2, 0.1)
    group.report("b", 4, 0.1)
    group.end("b")
    assert group.settled("b")


def test_nan_never_passes_and_ranks_last() -> None:
    nan = math.nan
    values = {"a": [nan] * 8, "b": [0.1] * 8, "c": [0.05] * 8}
    stops = run_in_turn(Group(values), values)
    assert stops["a"] == Stop(0, 2), "even with nobody to compete with"
    assert stops["c"] is None, "among nan, .1 and .05 it is second of three"


def test_ties_go_on() -> None:
    values = {name: [0.25] * 8 for name in "abcdef"}
    assert set(run_in_turn(Group(values), values).values()) == {None}


def test_a_larger_factor_keeps_fewer() -> None:
    scores = {"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3, "e": 0.55, "f": 0.35}
    values = {name: [score] * 8 for name, score in scores.items()}
    stops = run_in_turn(Group(values, reduction_factor=3), values)
    # First rung: c is 3rd of 3 (one may pass), d 4th of 4 (two may), e 2nd of 5 (two), f 5th of 6 (two).
    # Second rung: only a, b and e are left, and e is 2nd of 3 where one may pass.
    assert {name: stop.rung for name, stop in stops.items() if stop} == {"c": 0, "d": 0, "e": 1, "f": 0}


def test_the_same_as_the_quantile_of_all_values() -> None:
    numpy = pytest.importorskip("numpy")
    rng = random.Random(0)
    for _ in range(200):
        factor = rng.choice([2, 3, 4])
        values = {str(i): [rng.random()] * EPOCHS for i in range(rng.randint(3, 9))}
        group = Group(values, reduction_factor=factor, fractions=(0.25,))
        stops = run_in_turn(group, values)
        seen: list[float] = []
        for name, series in values.items():
            cut = numpy.quantile([*seen, series[0]], 1 - 1 / factor)
            expected = len(seen) >= 2 and series[0] < cut - 1e-12
            assert bool(stops[name]) == expected
            seen.append(series[0])


def test_a_decision_waits_for_the_trials_before_it() -> None:
    values = {"a": [0.5] * 8, "b": [0.4] * 8, "c": [0.1] * 8}
    group = Group(values)
    group.report("b", 2, 0.4)
    for epoch in range(1, 9):
        group.report("c", epoch, 0.1)
        assert group.stop("c") is None
    group.end("c")
    assert not group.settled("c"), "c trained to its end, but a has not reached the rung"
    group.report("a", 2, 0.5)
    assert group.stop("c") == Stop(0, 2), "its record is cut at the rung it did not pass"
    assert group.settled("c")
    assert not group.settled("a"), "a is still running"


def test_a_failed_trial_settles_its_rungs() -> None:
    values = {"a": [0.5], "b": [0.4] * 8, "c": [0.3] * 8, "d": [0.2] * 8}
    group = Group(values)
    for name in "bcd":
        group.report(name, 2, values[name][1])
    assert group.stop("d") is None
    group.end("a")  # failed in its first epoch: nothing to compete with
    assert group.stop("c") is None, "only b stands before it"
    assert group.stop("d") == Stop(0, 2)


def test_no_fractions_stop_nobody() -> None:
    values = {name: [score] * 8 for name, score in zip("abcd", (0.9, 0.5, 0.2, math.nan), strict=True)}
    group = Group(values, fractions=())
    assert set(run_in_turn(group, values).values()) == {None}
    assert all(group.settled(name) for name in values)


def interleave(
    series: dict[str, list[float]], ends: dict[str, int], rng: random.Random
) -> dict[str, Stop | None]:
    """Reports in a random interleaving; a trial continues until its stop is known, however late that is."""
    group = Group(series)
    at = dict.fromkeys(series, 0)
    live = list(series)
    while live:
        name = rng.choice(live)
        if at[name] >= ends[name]:
            group.end(name)
            live.remove(name)
            continue
        at[name] += 1
        group.report(name, at[name], series[name][at[name] - 1])
        if group.stop(name):
            group.end(name)
            live.remove(name)
    assert all(group.settled(name) for name in series)
    return {name: group.stop(name) for name in series}


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
        group = Group(series)
        for name in list(series)[:finished]:  # outcomes on disk
            stop = whole[name]
            for epoch in range(1, (stop.epoch if stop else EPOCHS) + 1):
                group.report(name, epoch, series[name][epoch - 1])
            group.record(name, stop.rung if stop else None)
        rest = {name: series[name] for name in list(series)[finished:]}
        run_in_turn(group, rest)
        assert {name: group.stop(name) for name in series} == whole


def test_a_recorded_decision_stands() -> None:
    values = {"a": [0.5] * 8, "b": [0.4] * 8, "c": [0.3] * 8}
    group = Group(values)
    for name in "abc":
        group.report(name, 2, values[name][1])
    group.record("c", None)
    assert group.stop("c") is None
    assert group.settled("c")
