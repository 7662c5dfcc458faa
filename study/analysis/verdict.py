"""From contrasts to a verdict: does regularization close the gap to the pre-trained model?

Numbers and labels only; `study.analysis.verdict_sentences` puts them into sentences.

The margin is the largest difference in mIoU that a user would call none. One point (0.01) is the default:
repeats of one training with other seeds differ by 0.6 to 2 points, so a smaller difference would not change
which of two trainings one picks. A verdict needs intervals, complete trials and arms that learned something;
without them it is `undetermined`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from segstrat.errors import UserError
from study.analysis.answering.decision import Cause, Judgement, Label, Learning, Look, judge
from study.analysis.answering.differences import seeds_needed
from study.analysis.answering.stages import (
    AnsweringStage,
    answering_stage,
    candidates,
    design_of,
    intervals_with_images,
    stage_contrasts,
)
from study.analysis.contrasts import Contrasts, contrasts, contrasts_with_images
from study.analysis.intervals import Interval
from study.analysis.study import SCREENING, Context, Study, contexts
from study.frame.build import TEST

MARGIN = 0.01
MARGINS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)


# Causes that no interval can overcome: whatever they touch is undetermined.
BLOCKING = frozenset(
    (
        *(Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED, Cause.STOPPED, Cause.UNFINISHED),
        *(Cause.SCREENING, Cause.MORE_SEEDS),
    )
)


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
        planned: what the study was planned to end with, where it was extended afterwards.
        problem: why the answering stage cannot go on, '' if it can.
    """

    context: Context
    contrasts: Contrasts
    margin: float
    label: Label
    cause: Cause
    by_intervals: Judgement
    learning: Learning
    images: str
    by_margin: Mapping[float, Label] = field(default_factory=dict)
    decisive: tuple[Decisive, ...] = ()
    with_images: Mapping[str, Interval] = field(default_factory=dict)
    stage: AnsweringStage | None = None
    look: Look | None = None
    planned: Look | None = None
    problem: str = ""

    def blocked_by(self, cause: Cause) -> "Verdict":
        """The same numbers, of which `cause` says that they do not count."""
        undetermined = dict.fromkeys(self.by_margin, Label.UNDETERMINED)
        return replace(self, label=Label.UNDETERMINED, cause=cause, by_margin=undetermined)

    @property
    def score_name(self) -> str:
        """What is compared, in words."""
        return f"{'test' if self.images == TEST else 'validation'} {self.context.score}"

    @property
    def blocked(self) -> bool:
        """Whether something other than the intervals makes the context undetermined."""
        return self.cause in BLOCKING


def judge_contrasts(found: Contrasts, margin: float, learning: Learning | None = None) -> Judgement:
    """The label of contrasts, see `judge`; of the gap where nothing was tried to close it."""
    judgement = judge(found.gap, found.improvement, found.remaining, margin, learning)
    if not (found.gap_alone and found.gap.known and judgement.cause is Cause.NO_INTERVAL):
        return judgement
    if found.gap.above(margin):
        return Judgement(Label.DOES_NOT_CLOSE, Cause.GAP_ALONE)
    return Judgement(Label.UNDETERMINED, Cause.NO_GAP)


def decide_all(study: Study, task: str, margin: float = MARGIN) -> list[Verdict]:
    """A verdict for each of the study's contexts."""
    return [decide(study, context, margin) for context in contexts(study, task)]


def decide(study: Study, context: Context, margin: float = MARGIN) -> Verdict:
    """The verdict of a context: of its answering stage, or of the whole grid where there is one stage."""
    design = design_of(study)
    if design is None or not context.answerable:
        return _verdict(context, contrasts(study, context), margin)
    recorded = (study.manifest.get("answering") or {}).get(context.key) or {}
    problem = str(recorded.get("problem") or "")
    try:
        stage = answering_stage(study, context, design, candidates(study, context, design))
    except UserError as error:
        found = _verdict(context, contrasts(study, context), margin)
        running = (context.in_stage(SCREENING).trials["status"] == "unfinished").any()
        return replace(found.blocked_by(Cause.SCREENING), problem="" if running else str(error))
    look = stage.last_look
    if look is None:
        found = _verdict(context, contrasts(study, context), margin)
        return replace(found.blocked_by(Cause.SCREENING), stage=stage, problem=problem)
    found = _verdict(stage.context, stage_contrasts(stage, look), margin, look)
    planned = None
    if design.extended_from:
        planned = answering_stage(study, context, design.before_extension, stage.roles).last_look
    return replace(
        found,
        stage=stage,
        planned=planned,
        with_images=intervals_with_images(stage, look, _split(stage.context)),
        problem=problem if look.label is None else "",
    )


def incomplete(context: Context) -> Cause | None:
    """Why the trials of a context allow no comparison yet: early stopping nominates, it never answers."""
    statuses = set(context.trials["status"])
    if "stopped" in statuses:
        return Cause.STOPPED
    return Cause.UNFINISHED if "unfinished" in statuses else None


def _verdict(context: Context, found: Contrasts, margin: float, look: Look | None = None) -> Verdict:
    """The verdict of contrasts: those of a look, or of all trials that there are."""
    learning = look.learning if look else Learning(context.floor, *_best_means(found))
    judgement = judge_contrasts(found, margin, learning)
    verdict = Verdict(
        context=context,
        contrasts=found,
        margin=margin,
        label=judgement.label,
        cause=Cause.GIVEN_UP if look and judgement.cause is Cause.AT_MARGIN else judgement.cause,
        by_intervals=judge_contrasts(found, margin),
        learning=learning,
        images=context.images,
        by_margin={
            # With the margin of the verdict: whether an arm learned anything does not depend on the reader's.
            value: judge_contrasts(found, value).label
            if learning.cause(margin) is None
            else Label.UNDETERMINED
            for value in MARGINS
        },
        decisive=decisive_contrasts(found, margin, look),
        with_images={} if look else contrasts_with_images(found, context, _split(context)),
        look=look,
    )
    blocking = learning.cause(margin)
    if look is None:
        blocking = incomplete(context) or blocking
    elif look.label is None:
        blocking = blocking or Cause.MORE_SEEDS
    return verdict.blocked_by(blocking) if blocking else verdict


def _split(context: Context) -> str:
    """The split that a context reports on."""
    return "test" if context.images == TEST else "val"


def _best_means(found: Contrasts) -> tuple[float | None, float | None]:
    """The mean of each arm's best setting over its seeds, raw first."""
    means = [arm.values.mean().dropna() for arm in (found.raw, found.pretrained)]
    raw, pretrained = (float(mean.max()) if len(mean) else None for mean in means)
    return raw, pretrained


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
