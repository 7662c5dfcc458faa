"""Sensitivity analysis: the same contrasts at another epoch, by another metric, at equal epochs or compute.

The primary view gives each arm its own budget, and in the thesis raw trains three times as long.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from segstrat.config import SELF
from segstrat.formatting import axis_name, format_duration, format_value
from segstrat.scores import MIOU, WORDS
from study.analysis.answering.decision import Label
from study.analysis.cells import full_context
from study.analysis.contrasts import Contrasts, contrasts
from study.analysis.phrases import start_sentence
from study.analysis.scores import final_values
from study.analysis.study import LONGER, SCREENING, Context, Study
from study.analysis.verdict import MARGIN, Verdict, judge_contrasts
from study.frame.build import VALIDATION

# Arms whose training times differ by less cost the same: the clock of a shared machine is not exact.
SAME_COMPUTE = 1.1


@dataclass(frozen=True)
class View:
    """One row of the sensitivity analysis.

    Args:
        note: what is compared, in a sentence.
    """

    name: str
    note: str
    contrasts: Contrasts
    label: Label


def sensitivity_views(study: Study, verdict: Verdict, margin: float = MARGIN) -> list[View]:
    """The primary view first, then the others that the frame allows.

    What makes the verdict undetermined whatever its intervals say (early stopping, an arm that did not
    learn) makes every view undetermined.
    """
    context = verdict.context
    note = f"The verdict: each arm's own budget, {_primary_epoch(study)}, on {verdict.images}."
    views = [View("primary", note, verdict.contrasts, verdict.label)]
    others = [
        ("survivors", _survivors_note(context), context, _survivors(study, context)),
        ("all validation images", _same_images_note(), context, _same_images(study, verdict)),
        (
            "best epoch",
            _best_epoch_note(context),
            context,
            _column(study, context, f"{context.task}_val_miou"),
        ),
        ("thesis metric", _thesis_metric_note(), context, _thesis_metric(study, context)),
        ("same schedule", _same_schedule_note(), *_same_schedule(study, context)),
        ("equal epochs", *_equal_epochs(study, context)),
        ("equal compute", *_equal_compute(study, context)),
        ("equal time", *_equal_time(study, context)),
    ]
    for name, note, compared, values in others:
        if values is not None:
            found = contrasts(study, compared, values)
            label = Label.UNDETERMINED if verdict.blocked else judge_contrasts(found, margin).label
            views.append(View(name, note, found, label))
    return [*views, *_common_values(study, verdict, margin)]


def _common_values(study: Study, verdict: Verdict, margin: float) -> list[View]:
    """Each value of a tuned axis, such as the learning rate, in both arms; none with a single value."""
    views = []
    context = full_context(study, verdict.context)
    screened = context.in_stage(SCREENING)
    source = "the trials of this study"
    if verdict.stage is not None or len(screened.trials):
        context, source = screened, "screening, which trains few seeds and only nominates"
    for axis in context.tuned:
        values = sorted(context.trials[axis].dropna().unique())
        for value in values if len(values) > 1 else ():
            name = f"{axis_name(axis)} {format_value(value)}"
            note = f"{start_sentence(name)} in both arms, in place of each setting's best; from {source}."
            found = contrasts(study, replace(context, trials=context.trials[context.trials[axis] == value]))
            label = Label.UNDETERMINED if verdict.blocked else judge_contrasts(found, margin).label
            views.append(View(name, note, found, label))
    return views


def _primary_epoch(study: Study) -> str:
    return "its last epoch" if study.value else "its best epoch"


def _survivors_note(context: Context) -> str:
    diverged = int((context.trials["status"] == "diverged").sum())
    return (
        f"Without diverged trials ({diverged}), which otherwise count with the score of a constant "
        "prediction (intention to treat)."
    )


def _survivors(study: Study, context: Context) -> pd.Series | None:
    if not (context.trials["status"] == "diverged").any():
        return None
    return final_values(study, context, survivors=True)


def _same_images_note() -> str:
    return "Settings are chosen and reported on the same validation images, which is optimistically biased."


def _same_images(study: Study, verdict: Verdict) -> pd.Series | None:
    return None if verdict.images == VALIDATION else final_values(study, verdict.context)


def _best_epoch_note(context: Context) -> str:
    return f"As the thesis reports: the epoch with the best validation {context.score}."


def _thesis_metric_note() -> str:
    return "Predictions on void pixels count into the union, as in the thesis code."


def _thesis_metric(study: Study, context: Context) -> pd.Series | None:
    if context.score != WORDS[MIOU]:
        return None
    return _column(study, context, f"{study.value}{context.task}_val_miou_thesis")


def _column(study: Study, context: Context, column: str) -> pd.Series | None:
    if column not in context.trials or not context.trials[column].notna().any():
        return None
    if column == study.column(context.task, "val", "miou"):
        return None
    return final_values(study, context, column)


def _same_schedule_note() -> str:
    return "Without the settings of a longer schedule, which is not regularization."


def _same_schedule(study: Study, context: Context) -> tuple[Context, pd.Series | None]:
    """The context without its longer schedules; None where no treatment varies the schedule."""
    axis = next((axis for axis in LONGER if axis in context.strategies), None)
    if axis is None or context.trials[axis].nunique() < 2:
        return context, None
    kept = context.trials[context.trials[axis] == context.reference[axis]]
    shorter = replace(context, trials=kept)
    return shorter, final_values(study, shorter)


def _equal_epochs(study: Study, context: Context) -> tuple[str, Context, pd.Series | None]:
    """Validation mIoU after the shortest budget of any trial; None where all have one budget."""
    budgets = context.trials["epochs_budget"].astype(int)
    shortest = int(budgets.min())
    note = (
        f"All arms after {shortest} epochs. A longer schedule has not annealed its learning rate by then, so "
        "its arm is shown below what it could reach in that time."
    )
    if budgets.nunique() == 1:
        return note, context, None
    return note, context, _values_until(study, context, lambda curve: curve["epoch"] <= shortest)


def _equal_compute(study: Study, context: Context) -> tuple[str, Context, pd.Series | None]:
    """Validation mIoU after the training time of the cheaper arm.

    Time is what was measured; the cost of pre-training itself is not part of it. None where the arms have
    the same epochs and the same network, because then measured times differ by chance, where their times
    differ by less than 10 %, or where there are no learning curves.
    """
    seconds = _seconds_per_epoch(study, context)
    totals = seconds.groupby("trial_id").sum() if len(seconds) else pd.Series(dtype=float)
    completed = context.trials[context.completed]
    cost = (
        completed.assign(cost=completed["trial_id"].map(totals).astype(float))
        .groupby("pretrained")["cost"]
        .mean()
    )
    cost = cost.dropna()
    if _same_work(context) or len(cost) < 2 or cost.max() < SAME_COMPUTE * cost.min():
        return "", context, None
    limit = float(cost.min())
    note = (
        f"All arms after {format_duration(limit)} of training, the cheaper arm's mean. The cost of "
        "pre-training is left out, and a longer schedule has not annealed its learning rate by then."
    )
    elapsed = seconds.groupby("trial_id").cumsum()

    def within(curve: pd.DataFrame) -> pd.Series:
        keys = pd.MultiIndex.from_frame(curve[["trial_id", "epoch"]])
        return pd.Series(elapsed.reindex(keys).to_numpy() <= limit, index=curve.index)

    return note, context, _values_until(study, context, within)


def _equal_time(study: Study, context: Context) -> tuple[str, Context, pd.Series | None]:
    """Validation mIoU after equal time, that of self-supervision included.

    Each arm may use the time that the longest setting of the other one takes, so a longer schedule among
    raw's treatments gives raw the time of self-supervision as longer training. None without self-supervision,
    or where it alone takes longer than that.
    """
    if SELF not in context.starts:
        return "", context, None
    seconds = _seconds_per_epoch(study, context)
    before = study.self_seconds(context.trials)
    before.index = pd.Index(context.trials["trial_id"])
    completed = context.trials[context.completed]
    if not len(seconds) or completed.empty or before[completed["trial_id"]].isna().any():
        return "", context, None
    totals = seconds.groupby("trial_id").sum() + before
    cells = completed.assign(cost=completed["trial_id"].map(totals)).groupby(["pretrained", "cell"])["cost"]
    longest = cells.mean().groupby("pretrained").max()
    if len(longest) < 2:
        return "", context, None
    limit = float(longest.min())
    elapsed = seconds.groupby("trial_id").cumsum()

    def within(curve: pd.DataFrame) -> pd.Series:
        keys = pd.MultiIndex.from_frame(curve[["trial_id", "epoch"]])
        spent = elapsed.reindex(keys).to_numpy() + curve["trial_id"].map(before).to_numpy()
        return pd.Series(spent <= limit, index=curve.index)

    values = _values_until(study, context, within)
    if values is None or values[context.completed].isna().any():
        return "", context, None
    note = (
        f"All trials after {format_duration(limit)}, self-supervision included. A longer schedule has "
        "not annealed its learning rate by then."
    )
    return note, context, values


def _same_work(context: Context) -> bool:
    """Whether every trial trains equally long on equally many images in equally large crops."""
    axes = ["epochs_budget", "crop_size", "width", "tasks", "label_fraction", "model", "backbone"]
    known = [axis for axis in axes if axis in context.trials]
    return len(context.trials[known].drop_duplicates()) <= 1


def _values_until(
    study: Study, context: Context, allowed: Callable[[pd.DataFrame], pd.Series]
) -> pd.Series | None:
    """Each completed trial's last validation mIoU among the allowed epochs; the floor for diverged ones."""
    epochs = study.epochs
    completed = context.trials[context.completed]
    if epochs.empty:
        return None
    curve = epochs[
        (epochs["task"] == context.task)
        & (epochs["split"] == "val")
        & epochs["trial_id"].isin(completed["trial_id"])
    ]
    if curve.empty:
        return None
    curve = curve[allowed(curve)].dropna(subset=["miou"]).sort_values("epoch")
    last = curve.groupby("trial_id")["miou"].last()
    values = context.trials["trial_id"].map(last).astype(float)
    return values.where(context.completed, final_values(study, context))


def _seconds_per_epoch(study: Study, context: Context) -> pd.Series:
    """Wall time of each epoch, indexed by trial and epoch."""
    if study.epochs.empty:
        return pd.Series(dtype=float)
    epochs = study.epochs[study.epochs["trial_id"].isin(context.trials["trial_id"])]
    return epochs.groupby(["trial_id", "epoch"])["seconds"].first()
