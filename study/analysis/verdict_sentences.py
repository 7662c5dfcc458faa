"""A verdict in sentences, and why it is what it is; it was decided in `study.analysis.verdict`."""

from collections.abc import Sequence

import numpy as np

from segstrat.formatting import axis_name, join_words
from study.analysis.answering.decision import Cause, Label
from study.analysis.contrasts import Contrasts
from study.analysis.phrases import (
    ahead,
    count_seeds,
    count_words,
    percent,
    points,
    start_sentence,
    with_interval,
)
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict

QUESTIONS = {
    "gap": "Does pre-training help by more than the margin?",
    "remaining": "Does pre-trained stay ahead by more than the margin?",
    "improvement": "Does regularization help raw at all?",
}


def summarize(study: Study, verdicts: Sequence[Verdict]) -> tuple[Label, str]:
    """One label and one paragraph for all contexts of a task."""
    if not verdicts:
        return Label.UNDETERMINED, f"Undetermined: no trial of {study.name} learned the task of its metric."
    where, means = f"On {study.data_name}", join_words(stand_ins(study))
    if not means:
        gaps = "; ".join(_gap_only(verdict) for verdict in verdicts)
        return Label.UNDETERMINED, (
            f"{where}, this study varies no stand-in for pre-training (no treatment, no multi-task "
            f"training), so it shows the gap and not whether it can be closed. {start_sentence(gaps)}."
        )
    if len(verdicts) == 1 and verdicts[0].cause in (Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED):
        return verdicts[0].label, f"{where}, {_details(verdicts[0])[0].lower()}{_details(verdicts[0])[1:]}"
    if len(verdicts) == 1:
        return verdicts[0].label, f"{_opening(verdicts[0].label, where, means)} {_details(verdicts[0])}"
    details = "; ".join(f"{verdict.context.label}: {_brief(verdict)}" for verdict in verdicts)
    labels = {verdict.label for verdict in verdicts}
    if len(labels) == 1:
        return verdicts[0].label, f"{_opening(verdicts[0].label, where, means)} {details}."
    return Label.UNDETERMINED, f"{where}, the answer depends on the context. {details}."


def stand_ins(study: Study) -> list[str]:
    """What stands in for pre-training in this study, in words."""
    names = [axis_name(axis) for axis in study.axes("treatment") if study.trials[axis].nunique() > 1]
    return [*names, "multi-task training"] if study.varies_multi_task else names


def verdict_headline(label: Label, cause: Cause | None = None) -> str:
    """The verdict in a few words."""
    if cause is Cause.RAW_NOT_LEARNED:
        return "Undetermined: the raw arm did not learn here"
    if cause is Cause.PRETRAINED_NOT_LEARNED:
        return "Undetermined: the pre-trained arm did not learn here"
    return {
        Label.CLOSES: "Closes the gap",
        Label.NARROWS: "Narrows the gap",
        Label.DOES_NOT_CLOSE: "Does not close the gap",
        Label.UNDETERMINED: "Undetermined",
    }[label]


def reason(verdict: Verdict) -> str:
    """Why the verdict is what it is: one or two sentences with the numbers."""
    text = _blocking_reason(verdict) if verdict.blocked else _reason(verdict, verdict.cause)
    return start_sentence(text).rstrip(".") + "."


def _missing(found: Contrasts, context: Context) -> list[str]:
    """What the context lacks for an answer, one sentence each."""
    sentences = []
    for arm, name in ((found.raw, "raw"), (found.pretrained, "pre-trained")):
        if arm.values.empty:
            sentences.append(f"The study has no {name} trial.")
        elif arm.values.notna().sum().sum() == 0:
            counts = _status_counts(context, pretrained=name != "raw")
            sentences.append(f"No {name} trial was completed ({counts}).")
    if not found.raw.values.empty:
        if found.raw.reference is None:
            setting = context.reference_setting
            sentences.append(f"No raw trial is without regularization ({setting}), so there is no reference.")
        elif found.reference_values.isna().all():
            sentences.append(f"The raw reference ({found.raw.reference}) was not completed on any seed.")
        if found.raw.settings == found.raw.references:
            sentences.append("The study varies neither a treatment nor multi-task training of the raw arm.")
    for chosen, arm, name in (
        (found.best_raw, found.raw, "raw"),
        (found.best_pretrained, found.pretrained, "pre-trained"),
    ):
        lost = [str(seed) for seed, value in chosen.value.items() if np.isnan(value)]
        if lost and chosen.settings and arm.values.notna().any(axis=None):
            sentences.append(
                f"The {name} setting that the other seeds choose has no final value on seed "
                f"{', '.join(lost)}."
            )
    return sentences


def _status_counts(context: Context, *, pretrained: bool) -> str:
    """`3 stopped, 1 diverged` of one arm's trials."""
    counts = context.trials.loc[context.pretrained == pretrained, "status"].value_counts()
    return count_words({str(status): int(count) for status, count in counts.items()})


def _blocking_reason(verdict: Verdict) -> str:
    """Why the intervals do not count, and what they would say."""
    learning, cause = verdict.learning, verdict.cause
    if cause in (Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED):
        raw = cause is Cause.RAW_NOT_LEARNED
        value = learning.raw if raw else learning.pretrained
        return (
            f"the {'raw' if raw else 'pre-trained'} arm did not learn here. Its best setting ends at a mean "
            f"mIoU of {value:.3f}; calling every pixel the most frequent class scores {learning.floor:.3f}, "
            f"and the difference is within the margin of {points(verdict.margin)}. Train longer, or "
            "with another learning rate, before asking what closes the gap"
        )
    if cause is Cause.SCREENING and verdict.problem:
        return f"the answering stage cannot start: {verdict.problem}"
    if cause is Cause.SCREENING:
        return (
            "screening only nominates candidates; the answering stage has not reached its first look "
            "(`--resume` continues it)"
        )
    if cause is Cause.MORE_SEEDS and verdict.look is not None:
        look = verdict.look
        state = f"ended: {verdict.problem}" if verdict.problem else f"continues: {look.reason}"
        return (
            f"after {count_seeds(look.seeds)} (look {look.number} of {look.looks}) the answering stage "
            f"{state}. So far {_reason(verdict, verdict.by_intervals.cause)}"
        )
    counts = count_words(_open_counts(verdict.context))
    why = (
        f"{counts} trials. Early stopping nominates candidates and never answers, because a stopped setting "
        "could have ended best"
        if cause is Cause.STOPPED
        else f"{counts} trials: this is an interim view"
    )
    inner = start_sentence(_reason(verdict, verdict.by_intervals.cause).rstrip("."))
    return f"{why}. {inner} (completed trials alone: “{verdict.by_intervals.label}”)"


def _open_counts(context: Context) -> dict[str, int]:
    statuses = ("stopped", "unfinished")
    return {status: int((context.trials["status"] == status).sum()) for status in statuses}


def _reason(verdict: Verdict, cause: Cause) -> str:
    found, context, margin = verdict.contrasts, verdict.context, verdict.margin
    remaining = f"pre-trained ends {ahead(found.remaining, margin)} the best regularized raw model"
    improved = f"regularization gains {with_interval(found.improvement)}"
    above = f"more than the margin of {points(margin)}"
    match cause:
        case Cause.NO_INTERVAL:
            return _without_interval(found, context)
        case Cause.NO_GAP:
            gained = f"it gains {with_interval(found.gap, margin)}"
            if found.gap.below(margin):
                return (
                    f"pre-training itself does not help by more than the margin of {points(margin)}: "
                    f"{gained}, so there is no gap to close"
                )
            return (
                f"pre-training itself is not shown to help by more than the margin of {points(margin)}: "
                f"{gained}, so there may be no gap to close"
            )
        case Cause.NO_REFERENCE:
            text = f"{remaining}, but nothing says what regularization contributed."
            return " ".join([text, *_missing(found, context)])
        case Cause.BELOW_MARGIN:
            return f"{remaining}: no more than the margin of {points(margin)}; {improved}"
        case Cause.IMPROVED:
            return f"{improved}, but {remaining}: {above}"
        case Cause.NOT_IMPROVED:
            return f"{remaining}: {above}; {improved}"
        case Cause.GIVEN_UP if verdict.look is not None:
            look = verdict.look
            ended = f"The answering stage ended after {count_seeds(look.seeds)}: {look.reason}"
            return f"{remaining}; {improved}. {ended}"
    return f"{remaining}, and that interval contains the margin of {points(margin)}; {improved}"


def _without_interval(found: Contrasts, context: Context) -> str:
    n = found.remaining.n
    if found.remaining.estimate is None:
        lacking = _missing(found, context)
        return " ".join(lacking) or "No seed has final values of both a raw and a pre-trained trial."
    side = "behind" if found.remaining.estimate < 0 else "ahead of"
    text = (
        f"{'One seed is' if n == 1 else f'{count_seeds(n)} are'} too few for an interval. There, "
        f"pre-trained ends {points(abs(found.remaining.estimate))} {side} the best regularized raw model"
    )
    if found.same_seed:
        text += " (chosen on this same seed)"
    if found.gap.estimate is not None:
        side = "behind" if found.gap.estimate < 0 else "ahead of"
        text += f" and {points(abs(found.gap.estimate))} {side} the unregularized one"
    return " ".join([f"{text}.", *_missing(found, context)])


def _opening(label: Label, where: str, means: str) -> str:
    close, narrow, do = ("close", "narrow", "do") if " and " in means else ("closes", "narrows", "does")
    return {
        Label.CLOSES: f"{where}, {means} {close} the gap to pre-training.",
        Label.NARROWS: f"{where}, {means} {narrow} the gap to pre-training without closing it.",
        Label.DOES_NOT_CLOSE: f"{where}, {means} {do} not close the gap to pre-training.",
        Label.UNDETERMINED: f"{where}, it is undetermined whether {means} {close} the gap to pre-training.",
    }[label]


def _details(verdict: Verdict) -> str:
    closure = verdict.contrasts.closure
    if verdict.label is Label.UNDETERMINED or closure.estimate is None:
        return reason(verdict)
    return f"{reason(verdict)} That is {percent(closure)} of the gap."


def _brief(verdict: Verdict) -> str:
    remaining, gap = verdict.contrasts.remaining, verdict.contrasts.gap
    label = f"{verdict.label} ({verdict.cause})" if verdict.label is Label.UNDETERMINED else verdict.label
    text = f"{label}, gap {with_interval(gap, verdict.margin)}"
    if remaining.estimate is None:
        return text
    return f"{text}, of which {with_interval(remaining, verdict.margin)} remain"


def _gap_only(verdict: Verdict) -> str:
    prefix = f"{verdict.context.label}: " if verdict.context.label else ""
    return f"{prefix}pre-trained ends {ahead(verdict.contrasts.gap)} raw"
