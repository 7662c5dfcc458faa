"""The answering stage, look by look: are the deciding contrasts settled, and who is still a candidate?

Screening nominates a few raw and a few pre-trained candidates; they and the reference are trained on fresh
seeds, and only these trials are judged here. After fixed numbers of seeds (`AnsweringDesign.looks`) every
contrast gets a repeated confidence interval (Jennison & Turnbull 2000, chapter 9): over all looks together it
holds with 95 %, so one may stop whenever a contrast is settled.

"Best" needs no choice here. Pre-trained stays ahead by at least x if *some* pre-trained candidate is ahead
of *every* raw one by x (intersection–union); a statement that any one of k candidates could make true is
tested at 1/k of the error (Bonferroni), k the candidates that are left. The best of several means on the same
seeds would be optimistic. With a tuned axis the reference too is trained at several values, and gains and
gaps are measured from the best of them in the same manner.

All functions depend on the recorded values only: a resumed study repeats the same decisions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd

from study.analysis.answering.design import FEWEST_SEEDS, AnsweringDesign
from study.analysis.answering.differences import PairedDifferences, Side, chance_to_settle, paired_differences
from study.analysis.intervals import Interval, ratio_interval


class Label(StrEnum):
    """The answer to the question."""

    CLOSES = "closes"
    NARROWS = "narrows"
    DOES_NOT_CLOSE = "does not close"
    UNDETERMINED = "undetermined"


class Cause(StrEnum):
    """What a label is based on."""

    RAW_NOT_LEARNED = "the raw arm did not learn"
    PRETRAINED_NOT_LEARNED = "the pre-trained arm did not learn"
    STOPPED = "trials were stopped early"
    UNFINISHED = "trials have not finished"
    SCREENING = "the answering stage has not reached its first look"
    MORE_SEEDS = "the answering stage continues"
    GIVEN_UP = "the answering stage ended without settling it"
    NO_INTERVAL = "the remaining gap has no interval"
    NO_GAP = "pre-training is not shown to help by more than the margin"
    NO_REFERENCE = "the gap or the improvement has no interval"
    BELOW_MARGIN = "the remaining gap is below the margin"
    IMPROVED = "the remaining gap is above the margin and regularization helps"
    NOT_IMPROVED = "the remaining gap is above the margin and no help of regularization is shown"
    AT_MARGIN = "the interval of the remaining gap contains the margin"


@dataclass(frozen=True)
class Judgement:
    """A label with its cause."""

    label: Label
    cause: Cause


@dataclass(frozen=True)
class Learning:
    """Whether the arms learned anything.

    Args:
        floor: mIoU of the best constant prediction; None if unknown.
        raw, pretrained: mean mIoU of the arm's best setting; None without a final value.
    """

    floor: float | None
    raw: float | None
    pretrained: float | None

    def cause(self, margin: float) -> Cause | None:
        """Which arm does not beat the constant prediction by the margin, if any."""
        if self.floor is None:
            return None
        for value, cause in (
            (self.raw, Cause.RAW_NOT_LEARNED),
            (self.pretrained, Cause.PRETRAINED_NOT_LEARNED),
        ):
            if value is not None and value <= self.floor + margin:
                return cause
        return None


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which cell plays which part.

    Args:
        reference: the raw (trained from scratch) cell without regularization; with a tuned axis, at the value
            that is best in screening.
        other_references: the same at other tuned values that may be best.
        raw, pretrained: all candidates as nominated, the best of screening first.
        dropped: candidates of either arm, and references, that an earlier look gave up.
    """

    reference: str
    raw: tuple[str, ...]
    pretrained: tuple[str, ...]
    other_references: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """The reference at every tuned value that may be best, the best of screening first."""
        return (self.reference, *self.other_references)

    @property
    def active_references(self) -> tuple[str, ...]:
        """References still trained."""
        return tuple(cell for cell in self.references if cell not in self.dropped)

    @property
    def active_raw(self) -> tuple[str, ...]:
        """Raw candidates still trained."""
        return tuple(cell for cell in self.raw if cell not in self.dropped)

    @property
    def active_pretrained(self) -> tuple[str, ...]:
        """Pre-trained candidates still trained."""
        return tuple(cell for cell in self.pretrained if cell not in self.dropped)

    @property
    def active(self) -> tuple[str, ...]:
        """All cells that the next seeds train, the reference first."""
        return (*self.active_references, *self.active_raw, *self.active_pretrained)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look finds.

    Args:
        number: this look, from 1; `looks` are planned.
        used: the complete seeds that it uses.
        label: the verdict; None while more seeds are to be trained.
        reason: why the stage stops or continues, one sentence.
        gap, improvement, remaining, closure: repeated confidence intervals.
        settled: for `gap`, `improvement`, `remaining`: whether the interval excludes its threshold.
        roles: the roles from here on, with the candidates dropped so far.
        leaders: labels of the reference, the raw and the pre-trained candidate of the highest mean.
        spent: two-sided error of an interval spent so far.
        next_seeds: total seeds at the next look; None after the last.
        next_trials: trials that the next look costs.
        chances: for each unsettled contrast, the chance that it is settled at the next look, and at the
            last one: `{"remaining": (0.3, 0.9)}`.
        learning: whether the arms learned anything.
    """

    number: int
    looks: int
    used: tuple[int, ...]
    label: Label | None
    reason: str
    learning: Learning
    gap: Interval
    improvement: Interval
    remaining: Interval
    closure: Interval
    settled: Mapping[str, bool]
    roles: Roles
    leaders: Mapping[str, str]
    spent: float
    next_seeds: int | None
    next_trials: int
    chances: Mapping[str, tuple[float, float]]

    @property
    def seeds(self) -> int:
        """How many seeds it uses."""
        return len(self.used)


def judge(
    gap: Interval,
    improvement: Interval,
    remaining: Interval,
    margin: float,
    learning: Learning | None = None,
) -> Judgement:
    """The label of a context, and why: of a study of one stage, and of every look of a study of two.

    Args:
        learning: an arm that learned nothing makes the context undetermined, whatever its intervals say.
    """
    if learning is not None and (cause := learning.cause(margin)) is not None:
        return Judgement(Label.UNDETERMINED, cause)
    if not remaining.known:
        return Judgement(Label.UNDETERMINED, Cause.NO_INTERVAL)
    if gap.known and not gap.above(margin):
        return Judgement(Label.UNDETERMINED, Cause.NO_GAP)
    if not (gap.known and improvement.known):
        return Judgement(Label.UNDETERMINED, Cause.NO_REFERENCE)
    if remaining.below(margin):
        return Judgement(Label.CLOSES, Cause.BELOW_MARGIN)
    if remaining.above(margin) and improvement.above(0):
        return Judgement(Label.NARROWS, Cause.IMPROVED)
    if remaining.above(margin):
        return Judgement(Label.DOES_NOT_CLOSE, Cause.NOT_IMPROVED)
    return Judgement(Label.UNDETERMINED, Cause.AT_MARGIN)


def replay(
    values: pd.DataFrame,
    roles: Roles,
    design: AnsweringDesign,
    floor: float | None = None,
    ended: pd.DataFrame | None = None,
) -> list[Look]:
    """All looks that the complete seeds allow, from the first to the one that stops.

    A seed is complete once every active cell has a final score on it; a look uses the first complete seeds,
    in the order of the rows. It waits for an earlier seed that is still being trained, so that the order in
    which trials end decides nothing.

    Args:
        values: seeds × cells, final scores; the floor for a diverged trial, NaN where there is none.
        roles: as nominated.
        floor: mIoU of the best constant prediction, see `Learning`.
        ended: like `values`: 1 where the trial has ended, 0 where it has not, NaN where there is none;
            default: all have ended.
    """
    looks: list[Look] = []
    for number, seeds in enumerate(design.looks, start=1):
        active = list(roles.active)
        complete = _in_turn(values[active], None if ended is None else ended[active]).dropna()
        if len(complete) < seeds:
            break
        look = _look_at(values.loc[complete.index[:seeds]], roles, design, number, floor)
        looks.append(look)
        roles = look.roles
        if look.label is not None:
            break
    return looks


def _in_turn(values: pd.DataFrame, ended: pd.DataFrame | None) -> pd.DataFrame:
    """The seeds before the first one that may still become complete."""
    if ended is None:
        return values
    lost = ((ended == 1) & values.isna()).any(axis=1)
    waiting = (ended == 0).any(axis=1) & ~lost
    return values[~waiting.cummax()]


def _look_at(
    values: pd.DataFrame, roles: Roles, design: AnsweringDesign, number: int, floor: float | None
) -> Look:
    """The look at these seeds, on which all active cells have a score."""
    pairs = paired_differences(values.loc[:, list(roles.active)])
    # First of all, so that a candidate that clearly trails takes no share of the error.
    roles = _drop_trailing(pairs, roles, design)
    intervals = _intervals(pairs, roles, design, number)
    thresholds = {"gap": design.margin, "improvement": 0.0, "remaining": design.margin}
    settled = {
        name: intervals[name].above(threshold) or intervals[name].below(threshold)
        for name, threshold in thresholds.items()
    }
    last = number == len(design.looks)
    chances = {} if last else _chances(pairs, roles, design, number, settled)
    deciding = (intervals["gap"], intervals["improvement"], intervals["remaining"])
    by_intervals = judge(*deciding, design.margin)
    stops, reason = _stops(by_intervals, intervals, chances, design, last=last)
    learning = Learning(
        floor,
        _best_mean(values[[*roles.references, *roles.raw]]),
        _best_mean(values[list(roles.pretrained)]),
    )
    found = judge(*deciding, design.margin, learning)
    following = None if last or stops else design.looks[number]
    return Look(
        number=number,
        looks=len(design.looks),
        used=tuple(int(seed) for seed in values.index),
        label=found.label if stops else None,
        reason=reason if found == by_intervals else found.cause,
        **intervals,
        settled=settled,
        roles=roles,
        leaders=_leaders(pairs, roles),
        spent=design.spent[number - 1],
        next_seeds=following,
        next_trials=0 if following is None else (following - pairs.seeds) * len(roles.active),
        chances={name: (soon, end) for name, (soon, end, _) in chances.items()},
        learning=learning,
    )


def _best_mean(values: pd.DataFrame) -> float | None:
    """The best mean of a cell over the seeds that it has."""
    means = values.mean().dropna()
    return float(means.max()) if len(means) else None


def _intervals(
    pairs: PairedDifferences, roles: Roles, design: AnsweringDesign, number: int
) -> dict[str, Interval]:
    """Repeated confidence intervals of the four contrasts; see the module's docstring for max and min."""
    raw, pretrained, references = roles.active_raw, roles.active_pretrained, roles.active_references
    best_raw, best_pre = cross_fitted(pairs, raw), cross_fitted(pairs, pretrained)
    base = cross_fitted(pairs, references)
    estimates = {
        "gap": best_pre - base,
        "improvement": best_raw - base,
        "remaining": best_pre - best_raw,
    }
    n = pairs.seeds
    if n < FEWEST_SEEDS:
        method = f"no interval: {n} seed{'s' * (n > 1)}, at least {FEWEST_SEEDS} are needed"
        found = {
            name: Interval(float(value.mean()), None, None, n, method) for name, value in estimates.items()
        }
        return found | {"closure": Interval(None, None, None, n, method)}
    any_reference = design.tail_probability(number, len(references))
    any_raw = design.tail_probability(number, len(raw))
    any_pre = design.tail_probability(number, len(pretrained))
    ends = {
        name: (
            pairs.lower(left, right, any_left).min(axis=1).max(),
            pairs.upper(left, right, any_right).max(axis=0).min(),
        )
        for name, left, right, any_left, any_right in (
            ("gap", pretrained, references, any_pre, any_reference),
            ("improvement", raw, references, any_raw, any_reference),
            ("remaining", pretrained, raw, any_pre, any_raw),
        )
    }
    method = f"repeated confidence interval, look {number} of {len(design.looks)}, {n} seeds"
    found = {}
    for name, (low, high) in ends.items():
        estimate = float(estimates[name].mean())
        if not (np.isfinite(low) and np.isfinite(high)):
            found[name] = Interval(estimate, None, None, n, f"no interval: {n} seeds without any spread")
            continue
        estimate = float(np.clip(estimate, low, high))
        found[name] = Interval(estimate, float(low), float(high), n, method, design.confidence)
    closure = _closure(pairs, roles, 2 * design.tail_probability(number))
    gap, improvement = found["gap"].estimate, found["improvement"].estimate
    if closure.low is not None and closure.high is not None and gap and improvement is not None:
        # The share of what is reported as gap and gain, so that the three numbers fit together.
        closure = replace(closure, estimate=float(np.clip(improvement / gap, closure.low, closure.high)))
    return found | {"closure": replace(closure, confidence=design.confidence)}


def _closure(pairs: PairedDifferences, roles: Roles, error: float) -> Interval:
    """improvement / gap of the leaders, by Fieller's theorem."""
    leaders = _leaders(pairs, roles)
    return ratio_interval(
        pairs.difference(leaders["raw"], leaders["reference"]),
        pairs.difference(leaders["pretrained"], leaders["reference"]),
        1 - error,
    )


def cross_fitted(pairs: PairedDifferences, cells: Sequence[str]) -> np.ndarray:
    """Each seed's score of the cell that is best on all other seeds (n,): no seed reports what it chose."""
    scores = pairs.values[:, pairs.index(cells)]
    others = scores.sum(axis=0) - scores if len(scores) > 1 else scores
    return scores[np.arange(len(scores)), others.argmax(axis=1)]


def _stops(
    found: Judgement,
    intervals: Mapping[str, Interval],
    chances: Mapping[str, tuple[float, float, float]],
    design: AnsweringDesign,
    *,
    last: bool,
) -> tuple[bool, str]:
    """Whether the stage ends with this look, and why it does or does not.

    Args:
        found: what the intervals say now.
        chances: of each unsettled contrast: to be settled at the next look, at the last look, and at the
            last look on the side that changes the label.
    """
    if not intervals["remaining"].known:
        return last, f"fewer than {FEWEST_SEEDS} seeds" if last else "too few seeds"
    if intervals["gap"].below(design.margin):
        return True, "pre-training does not help by more than the margin: there is no gap to close"
    if found.cause is Cause.BELOW_MARGIN:
        return True, "what remains of the gap is below the margin"
    if found.cause is Cause.IMPROVED:
        return True, "regularization helps, but more than the margin remains"
    if found.cause is Cause.NOT_IMPROVED:
        if intervals["improvement"].below(design.margin):
            return True, "more than the margin remains and regularization helps by less than it"
        if last:
            return True, "more than the margin remains and no help was shown by the last look"
        if chances["improvement"][2] < design.futility:
            return True, "more than the margin remains and more seeds would hardly show any help"
        return False, "more than the margin remains; whether regularization helps is open"
    if last:
        no_gap = found.cause is Cause.NO_GAP
        return True, f"the last look does not {'show that pre-training helps' if no_gap else 'settle it'}"
    for name, what in (
        ("remaining", "what remains of the gap"),
        ("gap", "whether pre-training helps by more than the margin"),
    ):
        if name in chances:
            if chances[name][2] < design.hopeless:
                return True, f"the seeds that are left would hardly settle {what}"
            break
    return False, "a deciding contrast is open"


def _chances(
    pairs: PairedDifferences,
    roles: Roles,
    design: AnsweringDesign,
    number: int,
    settled: Mapping[str, bool],
) -> dict[str, tuple[float, float, float]]:
    """Chances to settle the open contrasts between the leaders; see `_stops`."""
    if pairs.seeds < 2:
        return dict.fromkeys(settled, (0.0, 1.0, 1.0))
    leaders = _leaders(pairs, roles)
    contrasts: dict[str, tuple[str, str, float, Side]] = {
        "gap": (leaders["pretrained"], leaders["reference"], design.margin, "either"),
        "improvement": (leaders["raw"], leaders["reference"], 0.0, "above"),
        "remaining": (leaders["pretrained"], leaders["raw"], design.margin, "either"),
    }
    many_raw, many_pre = len(roles.active_raw), len(roles.active_pretrained)
    comparisons = {"gap": many_pre, "improvement": many_raw, "remaining": many_raw}
    found = {}
    for name, (left, right, threshold, side) in contrasts.items():
        if settled[name]:
            continue
        row, column = pairs.index([left, right])

        def chance(
            look: int,
            side: Side,
            at: tuple[int, int] = (row, column),
            threshold: float = threshold,
            name: str = name,
        ) -> float:
            return chance_to_settle(
                float(pairs.mean[at]),
                float(pairs.error[at]),
                float(pairs.degrees[at]),
                pairs.seeds,
                threshold=threshold,
                seeds_then=design.looks[look - 1],
                tail=design.tail_probability(look, comparisons[name]),
                side=side,
            )

        end = len(design.looks)
        found[name] = (chance(number + 1, "either"), chance(end, "either"), chance(end, side))
    return found


def _leaders(pairs: PairedDifferences, roles: Roles) -> dict[str, str]:
    means = dict(zip(pairs.cells, pairs.values.mean(axis=0), strict=True))
    return {
        "reference": max(roles.active_references, key=lambda cell: means[cell]),
        "raw": max(roles.active_raw, key=lambda cell: means[cell]),
        "pretrained": max(roles.active_pretrained, key=lambda cell: means[cell]),
    }


def _drop_trailing(pairs: PairedDifferences, roles: Roles, design: AnsweringDesign) -> Roles:
    """The roles without the candidates that clearly trail the leader of their arm.

    The standard error is pooled over all cells: with three seeds a difference's own would be too unsure, and
    an interval does not depend on it.
    """
    if pairs.seeds < 2:
        return roles
    limit = (design.drop_t + design.drop_slope / pairs.seeds) * pairs.pooled_error
    leaders = _leaders(pairs, roles)
    trailing = tuple(
        cell
        for arm, cells in (
            ("reference", roles.active_references),
            ("raw", roles.active_raw),
            ("pretrained", roles.active_pretrained),
        )
        for cell in cells
        if cell != leaders[arm] and pairs.difference(leaders[arm], cell).mean() > limit
    )
    return replace(roles, dropped=(*roles.dropped, *trailing))
