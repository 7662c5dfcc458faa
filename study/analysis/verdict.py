"""From contrasts to a verdict: does regularization close the gap to the pre-trained model?

The margin is the largest difference in mIoU that a user would call none. One point (0.01) is the default:
repeats of one training with other seeds differ by 0.6 to 2 points, so a smaller difference would not change
which of two trainings one picks. A verdict needs intervals; without them it is `undetermined`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from study.analysis.cells import final_bounds
from study.analysis.contrasts import Contrasts, contrasts, final_values
from study.analysis.intervals import Interval, seeds_needed
from study.analysis.study import Context, Study, contexts

MARGIN = 0.01
MARGINS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)

Label = Literal["closes", "narrows", "does not close", "undetermined"]


@dataclass(frozen=True)
class Verdict:
    """What a context answers.

    Args:
        reason: why, in one sentence that holds the numbers.
        bounds: the label if every stopped trial had ended as badly, or as well, as it could; empty where
            no trial was stopped.
        by_margin: the label under other margins.
        decisive: for each contrast that decides: its threshold, and how many seeds would settle it.
    """

    context: Context
    contrasts: Contrasts
    label: Label
    reason: str
    bounds: Mapping[str, Label]
    by_margin: Mapping[float, Label]
    decisive: list[dict[str, Any]] = field(default_factory=list)


def judge(found: Contrasts, margin: float = MARGIN) -> tuple[Label, str]:
    """The label that the contrasts' intervals allow, and why."""
    if not found.remaining.known:
        return "undetermined", _why_unknown(found)
    if found.gap.known and not found.gap.above(margin):
        return "undetermined", (
            f"pre-training itself is not shown to help by more than the margin of {points(margin)}: it gains "
            f"{with_interval(found.gap)}, so there may be no gap to close"
        )
    if not (found.gap.known and found.improvement.known):
        seen = (
            f"pre-trained ends {ahead(found.remaining)} the best regularized raw model, but nothing says "
            "what regularization contributed."
        )
        return "undetermined", " ".join([seen, *found.missing])
    remaining = f"pre-trained ends {ahead(found.remaining)} the best regularized raw model"
    gained = f"regularization gains {with_interval(found.improvement)}"
    if found.remaining.below(margin):
        return "closes", f"{remaining}: no more than the margin of {points(margin)}; {gained}"
    if found.remaining.above(margin) and found.improvement.above(0):
        return "narrows", f"{gained}, but {remaining}: more than the margin of {points(margin)}"
    if found.remaining.above(margin):
        return "does not close", f"{remaining}: more than the margin of {points(margin)}; {gained}"
    return "undetermined", (f"{remaining}, and that interval holds the margin of {points(margin)}; {gained}")


def decide(study: Study, context: Context, margin: float = MARGIN) -> Verdict:
    """The verdict of a context; it stands unless what stopped trials could have become contradicts it."""
    found = contrasts(study, context)
    bounding = bounding_contrasts(study, context)
    label, reason = _judge_with_bounds(found, bounding, margin)
    return Verdict(
        context=context,
        contrasts=found,
        label=label,
        reason=reason[0].upper() + reason[1:].rstrip(".") + ".",
        bounds={name: judge(each, margin)[0] for name, each in bounding.items()},
        by_margin={each: _judge_with_bounds(found, bounding, each)[0] for each in MARGINS},
        decisive=decisive_contrasts(found, margin),
    )


def _judge_with_bounds(
    found: Contrasts, bounding: Mapping[str, Contrasts], margin: float
) -> tuple[Label, str]:
    label, reason = judge(found, margin)
    for name, each in bounding.items():
        other = judge(each, margin)[0]
        if "undetermined" not in (label, other) and other != label:
            return "undetermined", (
                f"completed trials alone say “{label}” ({reason}), but had the stopped ones ended {name}, "
                f"the answer would be “{other}”"
            )
    return label, reason


def decide_all(study: Study, task: str, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each of the study's contexts."""
    return [decide(study, context, margin) for context in contexts(study, task)]


def bounding_contrasts(study: Study, context: Context) -> dict[str, Contrasts]:
    """The contrasts with stopped trials filled in at both ends of what they could have reached.

    Returns:
        `at their worst for raw` (stopped raw trials at their lower bound, pre-trained ones at their upper)
        and `at their best for raw` (the reverse); empty where no trial was stopped.
    """
    trials = context.trials
    if not (trials["status"] == "stopped").any():
        return {}
    bounds = final_bounds(study, context)
    final = final_values(study, context)
    stopped = trials["status"] == "stopped"
    pretrained = trials["pretrained"].astype(bool)
    filled = {}
    for name, raw_end, pretrained_end in (
        ("at their worst for raw", "low", "high"),
        ("at their best for raw", "high", "low"),
    ):
        end = bounds[raw_end].where(~pretrained, bounds[pretrained_end])
        filled[name] = contrasts(study, context, final.where(~stopped, end))
    return filled


def decisive_contrasts(found: Contrasts, margin: float) -> list[dict[str, Any]]:
    """Which contrasts still straddle the threshold that matters, and the seeds that would settle them."""
    rows = []
    thresholds = {"gap": margin, "remaining": margin, "improvement": 0.0}
    questions = {
        "gap": "Does pre-training help by more than the margin?",
        "remaining": "Does pre-trained stay ahead by more than the margin?",
        "improvement": "Does regularization help raw at all?",
    }
    cells = {
        "gap": (found.pretrained.usual, found.reference),
        "remaining": (found.pretrained.usual, found.raw.usual),
        "improvement": (found.raw.usual, found.reference),
    }
    for name, threshold in thresholds.items():
        interval: Interval = getattr(found, name)
        needed = seeds_needed(
            found.differences[name].to_numpy(), threshold, variance_factor=found.variance_factors[name]
        )
        left, right = cells[name]
        rows.append(
            {
                "contrast": name,
                "question": questions[name],
                "left": left,
                "right": right,
                "threshold": threshold,
                "interval": interval,
                "settled": interval.above(threshold) or interval.below(threshold),
                "seeds": None if needed is None else max(needed, interval.n + 1),
            }
        )
    return rows


def points(value: float | None, *, signed: bool = False) -> str:
    """A difference of mIoU in points, 0.012 as `1.2 points`."""
    if value is None or pd.isna(value):
        return "an unknown number of points"
    number = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    number = number.removesuffix(".0") if not signed else number
    return f"{number.replace('-', '−')} point{'' if number in ('1', '+1.0') else 's'}"


def with_interval(interval: Interval) -> str:
    """`3.1 points (95 % interval 1.0 to 5.2, 5 seeds)`."""
    if interval.estimate is None:
        return "an unknown number of points"
    if interval.low is None or interval.high is None:
        seeds = f"{interval.n} seed{'' if interval.n == 1 else 's'}"
        return f"{points(interval.estimate)} ({seeds}, no interval)"
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in (interval.low, interval.high))
    return f"{points(interval.estimate)} (95 % interval {low} to {high}, {interval.n} seeds)"


def ahead(interval: Interval) -> str:
    """`3.1 points (…) ahead of`, `0.4 points (…) behind`, for a difference of left minus right."""
    behind = interval.estimate is not None and interval.estimate < 0
    return f"{with_interval(-interval if behind else interval)} {'behind' if behind else 'ahead of'}"


def _why_unknown(found: Contrasts) -> str:
    n = found.remaining.n
    if found.remaining.estimate is None:
        return " ".join(found.missing) or "No seed has final values of both a raw and a pre-trained trial."
    side = "behind" if found.remaining.estimate < 0 else "ahead of"
    text = (
        f"{'One seed allows' if n == 1 else f'{n} seeds allow'} no interval. There, pre-trained ends "
        f"{points(abs(found.remaining.estimate))} {side} the best regularized raw model"
    )
    if found.same_seed:
        text += " (picked on that very seed)"
    if found.gap.estimate is not None:
        side = "behind" if found.gap.estimate < 0 else "ahead of"
        text += f" and {points(abs(found.gap.estimate))} {side} the unregularized one"
    return " ".join([f"{text}.", *found.missing])
