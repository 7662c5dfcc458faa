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
from dataclasses import replace

import numpy as np
import pandas as pd

from study.analysis.answering.design import FEWEST_SEEDS, AnsweringDesign
from study.analysis.answering.forecast import Side, chance_to_settle
from study.analysis.answering.looks import Label, Look, Roles
from study.analysis.answering.paired import PairedDifferences, paired_differences
from study.analysis.intervals import Interval, ratio_interval


def decide_look(values: pd.DataFrame, roles: Roles, design: AnsweringDesign) -> Look | None:
    """Judges the latest look for which there are enough complete seeds.

    A seed is complete once every active cell has a final score on it; the look uses the first complete
    seeds, in the order of the rows.

    Args:
        values: seeds × cells, final scores; the floor for a diverged trial, NaN where there is none yet.
        roles: as the look before left them.

    Returns:
        None while there are too few complete seeds for the first look.
    """
    complete = values.loc[:, list(roles.active)].dropna()
    reached = [number for number, seeds in enumerate(design.looks, start=1) if seeds <= len(complete)]
    if not reached:
        return None
    number = reached[-1]
    pairs = paired_differences(complete.iloc[: design.looks[number - 1]])
    return _judge(pairs, roles, design, number)


def replay(values: pd.DataFrame, roles: Roles, design: AnsweringDesign) -> list[Look]:
    """All looks that the complete seeds allow, from the first to the one that stops; see `decide_look`."""
    looks: list[Look] = []
    for number in range(1, len(design.looks) + 1):
        complete = values.loc[:, list(roles.active)].dropna()
        if len(complete) < design.looks[number - 1]:
            break
        pairs = paired_differences(complete.iloc[: design.looks[number - 1]])
        look = _judge(pairs, roles, design, number)
        looks.append(look)
        roles = look.roles
        if look.label is not None:
            break
    return looks


def _judge(pairs: PairedDifferences, roles: Roles, design: AnsweringDesign, number: int) -> Look:
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
    label, reason = _verdict(intervals, chances, design, last=last)
    following = None if last or label is not None else design.looks[number]
    return Look(
        number=number,
        looks=len(design.looks),
        seeds=pairs.seeds,
        label=label,
        reason=reason,
        **intervals,
        settled=settled,
        roles=roles,
        leaders=_leaders(pairs, roles),
        spent=design.spent[number - 1],
        next_seeds=following,
        next_trials=0 if following is None else (following - pairs.seeds) * len(roles.active),
        chances={name: (soon, end) for name, (soon, end, _) in chances.items()},
    )


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


def _verdict(
    intervals: Mapping[str, Interval],
    chances: Mapping[str, tuple[float, float, float]],
    design: AnsweringDesign,
    *,
    last: bool,
) -> tuple[Label | None, str]:
    """The label, or None to continue, and why.

    Args:
        chances: of each unsettled contrast: to be settled at the next look, at the last look, and at the
            last look on the side that changes the label.
    """
    gap, improvement, remaining = (intervals[name] for name in ("gap", "improvement", "remaining"))
    margin = design.margin
    if not remaining.known:
        return ("undetermined", f"fewer than {FEWEST_SEEDS} seeds") if last else (None, "too few seeds")
    if gap.below(margin):
        return "undetermined", "pre-training does not help by more than the margin: there is no gap to close"
    if remaining.below(margin) and gap.above(margin):
        return "closes", "what remains of the gap is below the margin"
    if remaining.above(margin) and improvement.above(0):
        return "narrows", "regularization helps, but more than the margin remains"
    if remaining.above(margin):
        if improvement.below(margin):
            return "does not close", "more than the margin remains and regularization helps by less than it"
        if last:
            return "does not close", "more than the margin remains and no help was shown by the last look"
        if chances["improvement"][2] < design.futility:
            return "does not close", "more than the margin remains and more seeds would hardly show any help"
        return None, "more than the margin remains; whether regularization helps is open"
    if last:
        return "undetermined", "the last look does not settle it"
    if "remaining" in chances and chances["remaining"][2] < design.hopeless:
        return "undetermined", "the seeds that are left would hardly settle what remains of the gap"
    return None, "a deciding contrast is open"


def _chances(
    pairs: PairedDifferences,
    roles: Roles,
    design: AnsweringDesign,
    number: int,
    settled: Mapping[str, bool],
) -> dict[str, tuple[float, float, float]]:
    """Chances to settle the open contrasts between the leaders; see `_verdict`."""
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
