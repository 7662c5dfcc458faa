"""The answering stage, look by look: are the deciding contrasts settled, and who is still a candidate?

Screening nominates a few raw and a few pre-trained candidates; they and the reference are trained on fresh
seeds, and only these trials are judged here. After fixed numbers of seeds (`AnsweringDesign.looks`) every
contrast gets a repeated confidence interval (Jennison & Turnbull 2000, chapter 9): over all looks together it
holds with 95 %, so one may stop whenever a contrast is settled.

"Best" needs no choice here. Pre-trained stays ahead by at least x if *some* pre-trained candidate is ahead
of *every* raw one by x (intersection–union); what any one of several candidates could make true is tested
with a share of the error (`Roles.parts`). With a tuned axis the reference too is trained at several values,
and gains and gaps are measured from the best of them in the same manner.

"Ahead by at least x" needs only one pre-trained candidate. So at first only the one that screened best is
trained, and gap and remaining gap have a lower end and no upper one. Once it is unlikely to stay ahead, the
others are trained on the same seeds, and only then may the answer be that the gap is closed or absent.

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
    """The answer to the question.

    With `NOT_NEEDED` and `HURTS` there is no gap to close: pre-training gains less than the margin, or loses
    more than it.
    """

    CLOSES = "closes"
    NARROWS = "narrows"
    DOES_NOT_CLOSE = "does not close"
    NOT_NEEDED = "not needed"
    HURTS = "hurts"
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
    NO_HELP = "pre-training helps by less than the margin"
    HARM = "pre-training loses more than the margin"
    NO_REFERENCE = "the gap or the improvement has no interval"
    BELOW_MARGIN = "the remaining gap is below the margin"
    IMPROVED = "the remaining gap is above the margin and regularization helps"
    NOT_IMPROVED = "the remaining gap is above the margin and no help of regularization is shown"
    AT_MARGIN = "the interval of the remaining gap contains the margin"
    GAP_ALONE = "the gap is above the margin and nothing was tried to close it"


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
        widened: whether all pre-trained candidates are trained, not the first one alone.
    """

    reference: str
    raw: tuple[str, ...]
    pretrained: tuple[str, ...]
    other_references: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    widened: bool = False

    @property
    def one_sided(self) -> bool:
        """Whether some pre-trained candidate is not trained: another one may be further ahead."""
        return not self.widened and len(self.pretrained) > 1

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
        cells = self.pretrained[:1] if self.one_sided else self.pretrained
        return tuple(cell for cell in cells if cell not in self.dropped)

    @property
    def active(self) -> tuple[str, ...]:
        """All cells that the next seeds train, the reference first."""
        return (*self.active_references, *self.active_raw, *self.active_pretrained)

    @property
    def arms(self) -> dict[str, str]:
        """The arm of each cell that was trained for a look so far, the dropped ones included."""
        pretrained = self.pretrained[:1] if self.one_sided else self.pretrained
        raw = dict.fromkeys((*self.references, *self.raw), "raw")
        return raw | dict.fromkeys(pretrained, "pretrained")

    def parts(self, cell: str, design: AnsweringDesign) -> float:
        """Into how many parts the error is divided of which the statements about a cell have one.

        Whatever any one of several candidates could make true is tested with a share of the error
        (Bonferroni): the one of each arm that screened best with `design.first_share`, the others with equal
        parts of the rest. A candidate that is dropped keeps its share: that it trails is found on the same
        seeds.
        """
        for cells in (self.references, self.raw, self.pretrained):
            if cell in cells:
                others = len(cells) - 1
                if not others:
                    return 1
                return 1 / design.first_share if cell == cells[0] else others / (1 - design.first_share)
        raise ValueError(f"{cell} is no candidate of this context")


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
        roles_before: the same without the pre-trained candidates that this look asks for.
        leaders: labels of the reference, the raw and the pre-trained candidate of the highest mean.
        spent: two-sided error of an interval spent so far.
        next_seeds: total seeds at the next look, which are the same where other candidates join; None after
            the last.
        next_trials: trials that the next look costs.
        chances: for each unsettled contrast, the chance that it is settled at the next look, and at the
            last one: `{"remaining": (0.3, 0.9)}`; of the gain, that it is shown.
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
    roles_before: Roles
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
    if gap.below(-margin):
        return Judgement(Label.HURTS, Cause.HARM)
    if gap.below(margin):
        return Judgement(Label.NOT_NEEDED, Cause.NO_HELP)
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
    scores, seeds = values.to_numpy(float, copy=True), values.index.to_numpy()
    column = {str(cell): place for place, cell in enumerate(values.columns)}
    has_ended = None if ended is None else ended.reindex_like(values).to_numpy(float)
    looks: list[Look] = []
    number = 1
    while number <= len(design.looks):
        active = [column[cell] for cell in roles.active]
        rows = _complete_in_turn(scores[:, active], None if has_ended is None else has_ended[:, active])
        used = rows[: design.looks[number - 1]]
        if len(used) < design.looks[number - 1]:
            break
        trained = scores[used][:, [column[cell] for cell in roles.arms]]
        look = _look_at(trained, seeds[used], roles, design, number, floor)
        looks.append(look)
        if look.label is not None:
            break
        # The same look again, with the candidates that it asks for.
        number += look.roles.widened == roles.widened
        roles = look.roles
        # What nobody asked for has no say.
        later = ~np.isin(np.arange(len(seeds)), used)
        for cell in roles.dropped:
            scores[later, column[cell]] = np.nan
    return looks


def _complete_in_turn(scores: np.ndarray, ended: np.ndarray | None) -> np.ndarray:
    """Rows of the complete seeds before the first one that may still become complete."""
    missing = np.isnan(scores)
    complete = ~missing.any(axis=1)
    if ended is not None:
        lost = ((ended == 1) & missing).any(axis=1)
        waiting = (ended == 0).any(axis=1) & ~lost
        complete &= ~np.maximum.accumulate(waiting)
    return np.flatnonzero(complete)


def asked_for(values: pd.DataFrame, looks: Sequence[Look]) -> pd.DataFrame:
    """The scores that `looks` used: without those of dropped cells on later seeds."""
    values = values.copy()
    for look in looks:
        values.loc[~values.index.isin(look.used), list(look.roles.dropped)] = np.nan
    return values


def _look_at(
    scores: np.ndarray,
    seeds: np.ndarray,
    roles: Roles,
    design: AnsweringDesign,
    number: int,
    floor: float | None,
) -> Look:
    """The look at these seeds, on which all active cells have a score.

    Args:
        scores: seeds × the cells of `roles.arms`.
    """
    cells = list(roles.arms)
    pairs = paired_differences(scores, cells, roles.arms)
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
    next_step, reason = _next_step(by_intervals, intervals, chances, roles, design, last=last)
    is_raw = np.array([arm == "raw" for arm in roles.arms.values()])
    learning = Learning(floor, _best_mean(scores[:, is_raw]), _best_mean(scores[:, ~is_raw]))
    found = judge(*deciding, design.margin, learning)
    stops = next_step is NextStep.STOP
    leaders, following, trials = _leaders(pairs, roles), None, 0
    roles_before = roles
    if next_step is NextStep.WIDEN:
        widened = replace(roles, widened=True)
        following = pairs.seeds
        trials = (len(widened.active) - len(roles.active)) * pairs.seeds
        roles = widened
    elif next_step is NextStep.MORE_SEEDS:
        following = design.looks[number]
        trials = (following - pairs.seeds) * len(roles.active)
    return Look(
        number=number,
        looks=len(design.looks),
        used=tuple(int(seed) for seed in seeds),
        label=found.label if stops else None,
        reason=reason if found == by_intervals else found.cause,
        **intervals,
        settled=settled,
        roles=roles,
        roles_before=roles_before,
        leaders=leaders,
        spent=design.spent[number - 1],
        next_seeds=following,
        next_trials=trials,
        chances={name: (soon, end) for name, (soon, end, _) in chances.items()},
        learning=learning,
    )


def _best_mean(scores: np.ndarray) -> float | None:
    """The best mean of a cell (seeds, cells) over the seeds that it has."""
    counts = np.isfinite(scores).sum(axis=0)
    sums = np.nansum(scores, axis=0)
    means = sums[counts > 0] / counts[counts > 0]
    return float(means.max()) if len(means) else None


def look_intervals(
    values: pd.DataFrame, roles: Roles, design: AnsweringDesign, number: int, variance: np.ndarray
) -> dict[str, Interval]:
    """The intervals of a look with a further variance of each difference, such as that over images.

    Args:
        values: the look's seeds × cells.
        roles: as the look had them, see `Look.roles_before`.
        variance: of the mean difference of two active cells, in their order, (m, m).
    """
    cells = list(roles.arms)
    pairs = paired_differences(values[cells].to_numpy(float), cells, roles.arms)
    at = pairs.index(roles.active)
    error = pairs.error.copy()
    error[np.ix_(at, at)] = np.sqrt(error[np.ix_(at, at)] ** 2 + variance)
    return _intervals(replace(pairs, error=error), roles, design, number)


def _intervals(
    pairs: PairedDifferences, roles: Roles, design: AnsweringDesign, number: int
) -> dict[str, Interval]:
    """Repeated confidence intervals of the four contrasts; see the module's docstring for max and min."""
    raw, pretrained, references = roles.active_raw, roles.active_pretrained, roles.active_references
    leaders = _leaders(pairs, roles)
    sides = {
        "gap": ("pretrained", pretrained, "reference", references),
        "improvement": ("raw", raw, "reference", references),
        "remaining": ("pretrained", pretrained, "raw", raw),
    }
    # Between the candidates of the highest means, which always lies between the ends below.
    estimates = {
        name: float(pairs.difference(leaders[left], leaders[right]).mean())
        for name, (left, _, right, _) in sides.items()
    }
    n = pairs.seeds
    if n < FEWEST_SEEDS:
        method = f"no interval: {n} seed{'s' * (n > 1)}, at least {FEWEST_SEEDS} are needed"
        found = {name: Interval(value, None, None, n, method) for name, value in estimates.items()}
        return found | {"closure": Interval(None, None, None, n, method)}
    method = f"repeated confidence interval, look {number} of {len(design.looks)}, {n} seeds"
    found = {}
    for name, (side, left, _, right) in sides.items():
        left_tails, right_tails = (
            [design.tail_probability(number, roles.parts(cell, design)) for cell in cells]
            for cells in (left, right)
        )
        low = float(pairs.lower(left, right, left_tails).min(axis=1).max())
        high = float(pairs.upper(left, right, right_tails).max(axis=0).min())
        if not (np.isfinite(low) and np.isfinite(high)):
            without = f"no interval: {n} seeds without any spread"
            found[name] = Interval(estimates[name], None, None, n, without)
            continue
        if side == "pretrained" and roles.one_sided:
            high = np.inf
        found[name] = Interval(estimates[name], low, high, n, method, design.confidence)
    return found | {"closure": _closure(pairs, roles, design, number)}


def _closure(pairs: PairedDifferences, roles: Roles, design: AnsweringDesign, number: int) -> Interval:
    """improvement / gap of the leaders, by Fieller's theorem.

    Which candidates lead is found on the same seeds, so the interval is the one with the error shared among
    all that might.
    """
    leaders = _leaders(pairs, roles)
    parts = max(roles.parts(cell, design) for cell in leaders.values())
    found = ratio_interval(
        pairs.difference(leaders["raw"], leaders["reference"]),
        pairs.difference(leaders["pretrained"], leaders["reference"]),
        1 - 2 * design.tail_probability(number, parts),
    )
    if roles.one_sided and found.low is not None:
        # A candidate that is not trained may have a larger gap, and the share of it be smaller.
        found = replace(found, low=min(found.low, 0.0))
    return replace(found, confidence=design.confidence)


class NextStep(StrEnum):
    """What follows a look."""

    STOP = "stop"
    WIDEN = "train the other pre-trained candidates"
    MORE_SEEDS = "more seeds"


def _next_step(
    found: Judgement,
    intervals: Mapping[str, Interval],
    chances: Mapping[str, tuple[float, float, float]],
    roles: Roles,
    design: AnsweringDesign,
    *,
    last: bool,
) -> tuple[NextStep, str]:
    """What follows a look, and why.

    Args:
        found: what the intervals say now.
        chances: of each unsettled contrast: to be settled at the next look, at the last look, and at the
            last look on the side that changes the label.
    """
    if not intervals["remaining"].known and not last:
        return NextStep.MORE_SEEDS, "too few seeds"
    match found.cause:
        case Cause.HARM:
            return NextStep.STOP, "pre-training makes the network worse by more than the margin"
        case Cause.NO_HELP:
            return NextStep.STOP, "pre-training helps by less than the margin: there is no gap to close"
        case Cause.BELOW_MARGIN:
            return NextStep.STOP, "what remains of the gap is below the margin"
        case Cause.IMPROVED:
            return NextStep.STOP, "regularization helps, but more than the margin remains"
        case Cause.NOT_IMPROVED if intervals["improvement"].below(design.margin):
            return NextStep.STOP, "more than the margin remains and regularization helps by less than it"
        case Cause.NOT_IMPROVED if last:
            return NextStep.STOP, "more than the margin remains and no help was shown by the last look"
        case Cause.NOT_IMPROVED if design.futility >= 1:
            return NextStep.STOP, "more than the margin remains"
        case Cause.NOT_IMPROVED if chances["improvement"][2] < design.futility:
            return NextStep.STOP, "more than the margin remains and more seeds would hardly show any help"
        case Cause.NOT_IMPROVED:
            return NextStep.MORE_SEEDS, "more than the margin remains; whether regularization helps is open"
    if roles.one_sided and (last or _stays_ahead(chances) < design.widen):
        return NextStep.WIDEN, "the first pre-trained candidate may not stay ahead; the others are trained"
    if not intervals["remaining"].known:
        return NextStep.STOP, f"fewer than {FEWEST_SEEDS} of its seeds are complete"
    if last:
        no_gap = found.cause is Cause.NO_GAP
        what = "show that pre-training helps" if no_gap else "settle it"
        return NextStep.STOP, f"the last look does not {what}"
    for name, what in (
        ("remaining", "what remains of the gap"),
        ("gap", "whether pre-training helps by more than the margin"),
    ):
        if name in chances:
            if not roles.one_sided and chances[name][1] < design.hopeless:
                return NextStep.STOP, f"the seeds that are left would hardly settle {what}"
            break
    return NextStep.MORE_SEEDS, "a deciding contrast is open"


def _stays_ahead(chances: Mapping[str, tuple[float, float, float]]) -> float:
    """The chance that the last look finds pre-trained ahead, of the reference and of the raw candidates."""
    return min((chances[name][2] for name in ("gap", "remaining") if name in chances), default=1.0)


def _chances(
    pairs: PairedDifferences,
    roles: Roles,
    design: AnsweringDesign,
    number: int,
    settled: Mapping[str, bool],
) -> dict[str, tuple[float, float, float]]:
    """Chances to settle the open contrasts between the leaders; see `_next_step`."""
    if pairs.seeds < 2:
        return dict.fromkeys(settled, (0.0, 1.0, 1.0))
    leaders = _leaders(pairs, roles)
    # While one pre-trained candidate is alone, it can be shown ahead and nothing else.
    both: Side = "above" if roles.one_sided else "either"
    contrasts: dict[str, tuple[str, str, float, Side]] = {
        "gap": (leaders["pretrained"], leaders["reference"], design.margin, both),
        "improvement": (leaders["raw"], leaders["reference"], 0.0, "above"),
        "remaining": (leaders["pretrained"], leaders["raw"], design.margin, both),
    }
    found = {}
    for name, (left, right, threshold, either) in contrasts.items():
        if settled[name]:
            continue
        row, column = pairs.index([left, right])
        parts = roles.parts(left, design)

        def chance(
            look: int,
            side: Side,
            at: tuple[int, int] = (row, column),
            threshold: float = threshold,
            parts: float = parts,
        ) -> float:
            return chance_to_settle(
                float(pairs.mean[at]),
                float(pairs.error[at]),
                float(pairs.degrees[at]),
                pairs.seeds,
                threshold=threshold,
                seeds_then=design.looks[look - 1],
                tail=design.tail_probability(look, parts),
                side=side,
            )

        end = len(design.looks)
        found[name] = (chance(number + 1, either), chance(end, either), chance(end, "above"))
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

    The standard error is that of the arm: with three seeds a difference's own would be too unsure.
    """
    if pairs.seeds < 2:
        return roles
    errors = design.drop_t + design.drop_slope / pairs.seeds
    leaders = _leaders(pairs, roles)
    trailing = tuple(
        cell
        for leader, cells, arm in (
            ("reference", roles.active_references, "raw"),
            ("raw", roles.active_raw, "raw"),
            ("pretrained", roles.active_pretrained, "pretrained"),
        )
        for cell in cells
        if cell != leaders[leader]
        and pairs.difference(leaders[leader], cell).mean() > errors * pairs.error_within(arm)
    )
    return replace(roles, dropped=(*roles.dropped, *trailing))
