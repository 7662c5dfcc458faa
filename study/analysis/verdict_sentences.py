"""A verdict in sentences, and why it is what it is; it was decided in `study.analysis.verdict`."""

from collections.abc import Sequence

import numpy as np

from segstrat.formatting import axis_name, join_words
from segstrat.scores import MIOU, WORDS
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
from study.analysis.study import LONGER, Context, Study
from study.analysis.verdict import Verdict


def contrast_question(context: Context, contrast: str) -> str:
    """What a contrast decides."""
    return {
        "gap": f"Does {context.pretraining_name} help by more than the margin?",
        "remaining": f"Does {context.pretrained_name} stay ahead by more than the margin?",
        "improvement": f"Does regularization help {context.raw_name} at all?",
    }[contrast]


def summarize(study: Study, verdicts: Sequence[Verdict]) -> tuple[Label, list[str]]:
    """One label for all contexts of a task, and the answer in at most three lines.

    Returns:
        the label; the answer in one sentence, the numbers behind it, and what is open or was not tested.
    """
    if not verdicts:
        return Label.UNDETERMINED, [f"Undetermined: no trial of {study.name} learned the task of its metric."]
    where, means = setting_words(study), join_words(stand_ins(study))
    if not means:
        gaps = "; ".join(_gap_only(verdict) for verdict in verdicts)
        return Label.UNDETERMINED, [
            f"This study varies no stand-in for pre-training (no treatment, no multi-task training), so it "
            f"shows the gap and not whether it can be closed ({where}).",
            f"{start_sentence(gaps)}.",
        ]
    labels = {verdict.label for verdict in verdicts}
    label = verdicts[0].label if len(labels) == 1 else Label.UNDETERMINED
    causes = {verdict.cause for verdict in verdicts}
    pretraining = verdicts[0].context.pretraining_name
    opening = _opening(label, means, causes.pop() if len(causes) == 1 else None, pretraining)
    if len(labels) > 1:
        opening = "The answer depends on the context"
    lines = [f"{opening} ({where})."]
    if len(verdicts) == 1 and (planned := verdicts[0].planned) is not None and planned.label is not None:
        # What was added after a look at the answer is told after the answer.
        answer = _opening(planned.label, means, None, pretraining)
        lines = [f"{answer} ({where}; as planned, {count_seeds(planned.seeds)}).", f"Extended: {lines[0]}"]
    if len(verdicts) == 1:
        lines += [_numbers(verdicts[0]), _open_questions(study, verdicts[0], means)]
    else:
        lines += [f"{start_sentence(each.context.label)}: {_brief(each)}." for each in verdicts]
    return label, [line for line in lines if line]


def setting_words(study: Study) -> str:
    """What was trained on what: `drawn scenes, FCN-8s with resnet18, 24 epochs`, as far as it is the same."""
    trials = study.trials
    words = [study.data_name]
    for axis in ("model", "backbone"):
        if axis in trials and trials[axis].nunique() == 1:
            words.append(str(trials[axis].iloc[0]))
    budgets = sorted({int(epochs) for epochs in trials["epochs_budget"].dropna()})
    if budgets:
        words.append(f"{join_range(budgets)} epoch{'s' * (budgets != [1])}")
    return ", ".join(words)


def join_range(values: Sequence[int]) -> str:
    """`24`, or `100 to 300`."""
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _numbers(verdict: Verdict) -> str:
    """Mean scores, and what remains of the gap; why there is no answer where something prevents one."""
    if verdict.blocked or not verdict.contrasts.remaining.known:
        return reason(verdict)
    found, means = verdict.contrasts, _mean_scores(verdict)
    lines = [f"Mean {verdict.score_name} of {count_seeds(found.remaining.n)}: {means}."]
    if verdict.label is Label.UNDETERMINED:
        lines.append(reason(verdict))
    elif verdict.label in (Label.NOT_NEEDED, Label.HURTS):
        what = start_sentence(verdict.context.pretraining_name)
        lines.append(f"{what} {_gains(found, verdict.context, verdict.margin)}.")
    else:
        lines.append(_remains(verdict))
    return " ".join(lines)


def _mean_scores(verdict: Verdict) -> str:
    """`0.312 pre-trained, 0.190 raw, 0.193 raw with weight decay 5e-4`."""
    found, context = verdict.contrasts, verdict.context
    scores = {
        context.pretrained_name: found.best_pretrained,
        context.raw_name: found.chosen_reference,
        f"{context.raw_name} with {found.best_raw.usual}": found.best_raw,
    }
    return ", ".join(f"{chosen.value.mean():.3f} {name}" for name, chosen in scores.items())


def _remains(verdict: Verdict) -> str:
    """`Of the gap, 12.9 points (95 %: at least 1.0, 3 seeds) remain.`"""
    remaining, margin = verdict.contrasts.remaining, verdict.margin
    remain = "remains" if points(remaining.estimate).endswith("point") else "remain"
    if remaining.estimate is not None and remaining.estimate < 0:
        raw = f"regularized {verdict.context.raw_name}"
        ahead_by = f"{raw} ends {with_interval(-remaining, margin)} ahead"
        equal = f"; up to {points(margin)} count as no difference" if -remaining.estimate <= margin else ""
        return f"Nothing remains of the gap: {ahead_by}{equal}."
    return f"Of the gap, {with_interval(remaining, margin)} {remain}."


def _gains(found: Contrasts, context: Context, margin: float) -> str:
    """`gains 2.2 points (…)`; where its best setting is not the reference's, both are named."""
    gap = found.gap
    loses = (gap.estimate or 0.0) < 0
    words = f"{'loses' if loses else 'gains'} {with_interval(-gap if loses else gap, margin)}"
    best, plain = found.best_pretrained.usual, found.reference
    if best is None or plain is None or best == plain:
        return words
    return f"{words} with {best} on {context.raw_name} with {plain}"


def _open_questions(study: Study, verdict: Verdict, means: str) -> str:
    """What the intervals leave open, and which usual stand-ins this study does not vary."""
    found, words = verdict.contrasts, []
    answered = verdict.label in (Label.CLOSES, Label.NARROWS, Label.DOES_NOT_CLOSE)
    improvement = found.improvement
    if answered and improvement.known and not improvement.above(0) and not improvement.below(verdict.margin):
        verb = "help" if " and " in means else "helps"
        raw = verdict.context.raw_name
        words.append(f"Open: whether {means} {verb} {raw}: {with_interval(improvement)}.")
    elif answered and improvement.above(0):
        verb = "gain" if " and " in means else "gains"
        raw = verdict.context.raw_name
        words.append(f"{start_sentence(means)} {verb} {with_interval(improvement)} on {raw}.")
    if answered and found.shows_share(verdict.margin) and found.closure.known:
        words.append(f"That is {percent(found.closure)} of the gap.")
    missing = untested(study)
    if missing:
        words.append(f"Not tested: {join_words(missing)}.")
    return " ".join(words)


def untested(study: Study) -> list[str]:
    """Usual stand-ins for pre-training that the study does not vary."""
    varied = {axis for axis in study.axes("treatment") if study.trials[axis].nunique() > 1}
    found = [
        name
        for axes, name in (
            (("weight_decay",), "weight decay"),
            (("dropout",), "dropout"),
            (LONGER, "longer training"),
        )
        if not varied & set(axes)
    ]
    return found if study.varies_multi_task else [*found, "multi-task training"]


def stand_ins(study: Study) -> list[str]:
    """What stands in for pre-training in this study, in words."""
    names = [axis_name(axis) for axis in study.axes("treatment") if study.trials[axis].nunique() > 1]
    return [*names, "multi-task training"] if study.varies_multi_task else names


def reason(verdict: Verdict) -> str:
    """Why the verdict is what it is: one or two sentences with the numbers."""
    text = _blocking_reason(verdict) if verdict.blocked else _reason(verdict, verdict.cause)
    return start_sentence(text).rstrip(".") + "."


def _missing(found: Contrasts, context: Context) -> list[str]:
    """What the context lacks for an answer, one sentence each."""
    sentences = []
    raw = context.raw_name
    arms = (
        (found.best_raw, found.raw, raw),
        (found.best_pretrained, found.pretrained, context.pretrained_name),
    )
    for _, arm, name in arms:
        if arm.values.empty:
            sentences.append(f"The study has no {name} trial.")
        elif arm.values.notna().sum().sum() == 0:
            counts = _status_counts(context, pretrained=name != raw)
            sentences.append(f"No {name} trial was completed ({counts}).")
    if not found.raw.values.empty:
        if found.raw.reference is None:
            setting = context.reference_setting
            sentences.append(
                f"No {raw} trial is without regularization ({setting}), so there is no reference."
            )
        elif found.reference_values.isna().all():
            sentences.append(f"The {raw} reference ({found.raw.reference}) was not completed on any seed.")
        if found.raw.settings == found.raw.references and not found.gap_alone:
            sentences.append(
                f"The study varies neither a treatment nor multi-task training of the {raw} arm."
            )
    for chosen, arm, name in arms:
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
        arm = verdict.context.raw_name if raw else verdict.context.pretrained_name
        return (
            f"the {arm} arm did not learn here. Its best setting ends at a mean "
            f"{verdict.context.score} of {value:.3f}; {constant_words(verdict.context)} scores "
            f"{learning.floor:.3f}, and the difference is within the margin of {points(verdict.margin)}. "
            "Train longer, or with another learning rate, before asking what closes the gap"
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
    best_raw, pretraining = f"the best regularized {context.raw_name} model", context.pretraining_name
    remaining = f"{context.pretrained_name} ends {ahead(found.remaining, margin)} {best_raw}"
    improved = f"regularization gains {with_interval(found.improvement)}"
    above = f"more than the margin of {points(margin)}"
    match cause:
        case Cause.NO_INTERVAL:
            return _without_interval(found, context)
        case Cause.NO_GAP:
            gained = f"it {_gains(found, context, margin)}"
            return (
                f"{pretraining} itself is not shown to help by more than the margin of {points(margin)}: "
                f"{gained}, so there may be no gap to close"
            )
        case Cause.GAP_ALONE:
            return f"{context.pretrained_name} ends {ahead(found.gap, margin)} {context.raw_name}: {above}"
        case Cause.NO_HELP:
            return (
                f"{pretraining} itself helps by less than the margin of {points(margin)}: it "
                f"{_gains(found, context, margin)}. There is no gap to close"
            )
        case Cause.HARM:
            return (
                f"{pretraining} itself makes the network worse by more than the margin of {points(margin)}: "
                f"it {_gains(found, context, margin)}. There is no gap to close"
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
    counted = found.gap if found.gap_alone else found.remaining
    n = counted.n
    if counted.estimate is None:
        lacking = _missing(found, context)
        both = f"both a {context.raw_name} and a {context.pretrained_name} trial"
        return " ".join(lacking) or f"No seed has final values of {both}."
    side = "behind" if counted.estimate < 0 else "ahead of"
    other = context.raw_name if found.gap_alone else f"the best regularized {context.raw_name} model"
    text = (
        f"{'One seed is' if n == 1 else f'{count_seeds(n)} are'} too few for an interval. There, "
        f"{context.pretrained_name} ends {points(abs(counted.estimate))} {side} {other}"
    )
    if found.same_seed:
        text += " (chosen on this same seed)"
    if found.gap.estimate is not None and not found.gap_alone:
        side = "behind" if found.gap.estimate < 0 else "ahead of"
        text += f" and {points(abs(found.gap.estimate))} {side} the unregularized one"
    return " ".join([f"{text}.", *_missing(found, context)])


def _opening(label: Label, means: str, cause: Cause | None, pretraining: str) -> str:
    start = start_sentence(pretraining)
    close, narrow, do = ("close", "narrow", "do") if " and " in means else ("closes", "narrows", "does")
    if cause in (Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED):
        return f"Undetermined: {cause} here"
    return {
        Label.CLOSES: f"Yes: {means} {close} the gap to {pretraining} here",
        Label.NARROWS: f"In part: {means} {narrow} the gap to {pretraining} here without closing it",
        Label.DOES_NOT_CLOSE: f"No: {means} {do} not close the gap to {pretraining} here",
        Label.NOT_NEEDED: f"{start} is not needed here: it helps by less than the margin",
        Label.HURTS: f"{start} hurts here: the network ends better without it",
        Label.UNDETERMINED: f"Undetermined: whether {means} {close} the gap to {pretraining} here",
    }[label]


def _brief(verdict: Verdict) -> str:
    remaining, gap = verdict.contrasts.remaining, verdict.contrasts.gap
    label = f"{verdict.label} ({verdict.cause})" if verdict.label is Label.UNDETERMINED else verdict.label
    text = f"{label}, gap {with_interval(gap, verdict.margin)}"
    if remaining.estimate is None:
        return text
    return f"{text}, of which {with_interval(remaining, verdict.margin)} remain"


def _gap_only(verdict: Verdict) -> str:
    prefix = f"{verdict.context.label}: " if verdict.context.label else ""
    context = verdict.context
    return f"{prefix}{context.pretrained_name} ends {ahead(verdict.contrasts.gap)} {context.raw_name}"


def constant_words(context: Context) -> str:
    """The best constant prediction, in words."""
    return (
        "calling every pixel the most frequent class"
        if context.score == WORDS[MIOU]
        else "one class everywhere"
    )
