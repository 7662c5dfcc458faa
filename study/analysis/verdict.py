"""From contrasts to a verdict: does regularization close the gap to the pre-trained model?

Numbers and labels only; `study.analysis.wording` puts them into sentences.

The margin is the largest difference in mIoU that a user would call none. One point (0.01) is the default:
repeats of one training with other seeds differ by 0.6 to 2 points, so a smaller difference would not change
which of two trainings one picks. A verdict needs intervals; without them it is `undetermined`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from study.analysis.cells import final_bounds
from study.analysis.contrasts import Contrasts, contrasts, final_values
from study.analysis.intervals import Interval, seeds_needed
from study.analysis.study import Context, Study, contexts

MARGIN = 0.01
MARGINS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)


class Label(StrEnum):
    """The answer to the question."""

    CLOSES = "closes"
    NARROWS = "narrows"
    DOES_NOT_CLOSE = "does not close"
    UNDETERMINED = "undetermined"


class Cause(StrEnum):
    """What a label rests on."""

    NO_INTERVAL = "the remaining gap has no interval"
    NO_GAP = "pre-training is not shown to help by more than the margin"
    NO_REFERENCE = "the gap or the improvement has no interval"
    BELOW_MARGIN = "the remaining gap is below the margin"
    IMPROVED = "the remaining gap is above the margin and regularization helps"
    NOT_IMPROVED = "the remaining gap is above the margin and no help of regularization is shown"
    AT_MARGIN = "the interval of the remaining gap contains the margin"
    OVERTURNED = "stopped trials could overturn the label"


@dataclass(frozen=True)
class Judgement:
    """A label with its cause."""

    label: Label
    cause: Cause


@dataclass(frozen=True)
class Decisive:
    """A contrast that decides, and what would settle it.

    Args:
        contrast: `gap`, `remaining` or `improvement`.
        left, right: the settings that are compared; None where there is none.
        threshold: the contrast matters by which side of it the truth lies on.
        settled: whether the interval is on one side of the threshold.
        seeds: how many seeds in all would settle it if mean and spread stay as they are; None if unknown
            or too many.
    """

    contrast: str
    left: str | None
    right: str | None
    threshold: float
    interval: Interval
    settled: bool
    seeds: int | None


@dataclass(frozen=True)
class Verdict:
    """What a context answers.

    Args:
        completed_only: the judgement of completed trials, before stopped ones could overturn it.
        bounds: the label if every stopped trial had ended as badly, or as well, as it could; empty where
            no trial was stopped.
        by_margin: the label under other margins.
        decisive: the contrasts that decide.
    """

    context: Context
    contrasts: Contrasts
    margin: float
    label: Label
    cause: Cause
    completed_only: Judgement
    bounds: Mapping[str, Label]
    by_margin: Mapping[float, Label]
    decisive: tuple[Decisive, ...] = ()

    @property
    def contradicting(self) -> tuple[str, Label] | None:
        """The first bound whose label contradicts that of the completed trials."""
        return next(_contradictions(self.completed_only, self.bounds), None)


def judge(found: Contrasts, margin: float = MARGIN) -> Judgement:
    """The label that the contrasts' intervals allow, and why."""
    if not found.remaining.known:
        return Judgement(Label.UNDETERMINED, Cause.NO_INTERVAL)
    if found.gap.known and not found.gap.above(margin):
        return Judgement(Label.UNDETERMINED, Cause.NO_GAP)
    if not (found.gap.known and found.improvement.known):
        return Judgement(Label.UNDETERMINED, Cause.NO_REFERENCE)
    if found.remaining.below(margin):
        return Judgement(Label.CLOSES, Cause.BELOW_MARGIN)
    if found.remaining.above(margin) and found.improvement.above(0):
        return Judgement(Label.NARROWS, Cause.IMPROVED)
    if found.remaining.above(margin):
        return Judgement(Label.DOES_NOT_CLOSE, Cause.NOT_IMPROVED)
    return Judgement(Label.UNDETERMINED, Cause.AT_MARGIN)


def decide(study: Study, context: Context, margin: float = MARGIN) -> Verdict:
    """The verdict of a context; it stands unless what stopped trials could have become contradicts it."""
    found = contrasts(study, context)
    bounding = bounding_contrasts(study, context)
    judgement = _judge_with_bounds(found, bounding, margin)
    return Verdict(
        context=context,
        contrasts=found,
        margin=margin,
        label=judgement.label,
        cause=judgement.cause,
        completed_only=judge(found, margin),
        bounds={name: judge(bound, margin).label for name, bound in bounding.items()},
        by_margin={value: _judge_with_bounds(found, bounding, value).label for value in MARGINS},
        decisive=decisive_contrasts(found, margin),
    )


def decide_all(study: Study, task: str, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each of the study's contexts."""
    return [decide(study, context, margin) for context in contexts(study, task)]


def bounding_contrasts(study: Study, context: Context) -> dict[str, Contrasts]:
    """The contrasts with stopped trials filled in at both ends of what they could have reached.

    Returns:
        `at their worst for raw` (stopped raw trials at their lower bound, pre-trained ones at their upper)
        and `at their best for raw` (the reverse); empty where no trial was stopped.
    """
    stopped = context.trials["status"] == "stopped"
    if not stopped.any():
        return {}
    bounds = final_bounds(study, context)
    final = final_values(study, context)
    filled = {}
    for name, raw_end, pretrained_end in (
        ("at their worst for raw", "low", "high"),
        ("at their best for raw", "high", "low"),
    ):
        end = bounds[raw_end].where(~context.pretrained, bounds[pretrained_end])
        filled[name] = contrasts(study, context, final.where(~stopped, end))
    return filled


def decisive_contrasts(found: Contrasts, margin: float) -> tuple[Decisive, ...]:
    """Which contrasts still straddle the threshold that matters, and the seeds that would settle them."""
    thresholds = {"gap": margin, "remaining": margin, "improvement": 0.0}
    settings = {
        "gap": (found.best_pretrained.usual, found.reference),
        "remaining": (found.best_pretrained.usual, found.best_raw.usual),
        "improvement": (found.best_raw.usual, found.reference),
    }
    rows = []
    for name, threshold in thresholds.items():
        interval: Interval = getattr(found, name)
        needed = seeds_needed(
            found.differences[name].to_numpy(), threshold, variance_factor=found.variance_factors[name]
        )
        left, right = settings[name]
        rows.append(
            Decisive(
                contrast=name,
                left=left,
                right=right,
                threshold=threshold,
                interval=interval,
                settled=interval.above(threshold) or interval.below(threshold),
                seeds=None if needed is None else max(needed, interval.n + 1),
            )
        )
    return tuple(rows)


def _judge_with_bounds(found: Contrasts, bounding: Mapping[str, Contrasts], margin: float) -> Judgement:
    judgement = judge(found, margin)
    bounds = {name: judge(bound, margin).label for name, bound in bounding.items()}
    if any(_contradictions(judgement, bounds)):
        return Judgement(Label.UNDETERMINED, Cause.OVERTURNED)
    return judgement


def _contradictions(judgement: Judgement, bounds: Mapping[str, Label]) -> Iterator[tuple[str, Label]]:
    """The bounds whose label differs, where both labels are determined."""
    for name, label in bounds.items():
        if Label.UNDETERMINED not in (judgement.label, label) and label != judgement.label:
            yield name, label
