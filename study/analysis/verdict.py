"""From contrasts to a verdict: does regularization close the gap to the pre-trained model?

Numbers and labels only; `study.analysis.verdict_sentences` puts them into sentences.

The margin is the largest difference in mIoU that a user would call none. One point (0.01) is the default:
repeats of one training with other seeds differ by 0.6 to 2 points, so a smaller difference would not change
which of two trainings one picks. A verdict needs intervals, complete trials and arms that learned something;
without them it is `undetermined`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from study.analysis.answering.forecast import seeds_needed
from study.analysis.answering.looks import Look
from study.analysis.answering.stages import (
    Stage,
    answering_design,
    answering_stage,
    comparable,
    stage_contrasts,
)
from study.analysis.contrasts import Contrasts, contrasts
from study.analysis.image_intervals import intervals_with_images
from study.analysis.intervals import Interval
from study.analysis.scores import Images, floor, trial_scores
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


# Causes that no interval can overcome: whatever they touch is undetermined.
BLOCKING = frozenset(
    (
        *(Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED, Cause.STOPPED, Cause.UNFINISHED),
        *(Cause.SCREENING, Cause.MORE_SEEDS),
    )
)


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
        threshold: the contrast matters by which side of it the truth is on.
        settled: whether the interval is on one side of the threshold.
        seeds: how many seeds in all would settle it if mean and spread stay as they are; None if unknown
            or too many.
        chances: that it is settled at the next and at the last look; None outside an answering stage.
    """

    contrast: str
    left: str | None
    right: str | None
    threshold: float
    interval: Interval
    settled: bool
    seeds: int | None
    chances: tuple[float, float] | None = None


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


@dataclass(frozen=True)
class Verdict:
    """What a context answers.

    Args:
        images: on which images the scores are computed.
        by_intervals: the judgement of the intervals alone; `label` and `cause` say whether it counts.
        by_margin: the label under other margins.
        decisive: the contrasts that decide.
        with_images: the contrasts' intervals over seeds and images; empty without the scores they need.
        stage: the answering stage; None for a study of one stage.
        look: the look that `contrasts` belong to; None for a study of one stage.
    """

    context: Context
    contrasts: Contrasts
    margin: float
    label: Label
    cause: Cause
    by_intervals: Judgement
    learning: Learning
    images: Images
    by_margin: Mapping[float, Label] = field(default_factory=dict)
    decisive: tuple[Decisive, ...] = ()
    with_images: Mapping[str, Interval] = field(default_factory=dict)
    stage: Stage | None = None
    look: Look | None = None

    @property
    def score_name(self) -> str:
        """What is compared, in words."""
        return "test mIoU" if self.images == "test images" else "validation mIoU"

    @property
    def blocked(self) -> bool:
        """Whether something other than the intervals makes the context undetermined."""
        return self.cause in BLOCKING


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


def decide_all(study: Study, task: str, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each of the study's contexts."""
    return [decide(study, context, margin) for context in contexts(study, task)]


def decide(study: Study, context: Context, margin: float = MARGIN) -> Verdict:
    """The verdict of a context: of its answering stage, or of the whole grid where there is one stage."""
    design = answering_design(study)
    if design is None or not comparable(context):
        return _verdict(study, context, contrasts(study, context), margin)
    stage = answering_stage(study, context, design)
    look = stage.last_look if stage else None
    if stage is None or look is None:
        return _verdict(study, context, contrasts(study, context), margin, stage)
    answering = stage.context
    return _verdict(study, answering, stage_contrasts(stage, look), margin, stage, look)


def incomplete(context: Context) -> Cause | None:
    """Why the trials of a context allow no comparison yet: early stopping nominates, it never answers."""
    statuses = set(context.trials["status"])
    if "stopped" in statuses:
        return Cause.STOPPED
    return Cause.UNFINISHED if "unfinished" in statuses else None


def _verdict(
    study: Study,
    context: Context,
    found: Contrasts,
    margin: float,
    stage: Stage | None = None,
    look: Look | None = None,
) -> Verdict:
    images = trial_scores(study, context).images
    split = "test" if images == "test images" else "val"
    learning = Learning(
        floor(study, context, split), _best_mean(found, raw=True), _best_mean(found, raw=False)
    )
    by_intervals = judge(found, margin)
    blocking = _blocking_cause(study, context, learning, margin, look)
    cause = blocking or by_intervals.cause
    label = Label.UNDETERMINED if blocking else by_intervals.label
    if look is not None and cause is Cause.AT_MARGIN:
        cause = Cause.GIVEN_UP
    return Verdict(
        context=context,
        contrasts=found,
        margin=margin,
        label=label,
        cause=cause,
        by_intervals=by_intervals,
        learning=learning,
        images=images,
        by_margin={value: Label.UNDETERMINED if blocking else judge(found, value).label for value in MARGINS},
        decisive=decisive_contrasts(found, margin, look),
        with_images=intervals_with_images(found, context, split),
        stage=stage,
        look=look,
    )


def _blocking_cause(
    study: Study, context: Context, learning: Learning, margin: float, look: Look | None
) -> Cause | None:
    if look is not None:
        return learning.cause(margin) or (Cause.MORE_SEEDS if look.label is None else None)
    if answering_design(study) is not None and comparable(context):
        return Cause.SCREENING
    return incomplete(context) or learning.cause(margin)


def _best_mean(found: Contrasts, *, raw: bool) -> float | None:
    """The mean of an arm's best setting over its seeds."""
    means = (found.raw if raw else found.pretrained).values.mean().dropna()
    return float(means.max()) if len(means) else None


def decisive_contrasts(found: Contrasts, margin: float, look: Look | None = None) -> tuple[Decisive, ...]:
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
                chances=look.chances.get(name) if look else None,
            )
        )
    return tuple(rows)
