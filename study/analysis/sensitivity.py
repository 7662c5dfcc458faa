"""Sensitivity analysis: the same contrasts at another epoch, by another metric, at equal epochs or compute.

The primary view gives each arm its own budget, and in the thesis raw trains three times as long.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from segstrat.formatting import format_duration
from study.analysis.contrasts import Contrasts, contrasts, final_values
from study.analysis.study import Context, Study
from study.analysis.verdict import MARGIN, Label, judge


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


def sensitivity_views(study: Study, context: Context, margin: float = MARGIN) -> list[View]:
    """The primary view first, then the others that the frame allows."""
    task = context.task
    found = []
    if study.value:
        found.append(
            ("last epoch", "Primary: each arm's own budget, its last epoch.", final_values(study, context))
        )
    columns = {
        f"{task}_val_miou": ("best epoch", "As the thesis reports: the epoch with the best validation mIoU."),
        f"{study.value}{task}_val_miou_thesis": (
            "thesis metric",
            "Predictions on void pixels count into the union, as in the thesis code.",
        ),
    }
    for column, (name, note) in columns.items():
        if column in context.trials and context.trials[column].notna().any():
            found.append((name, note, final_values(study, context, column)))
    for name, note, values in (equal_epochs(study, context), equal_compute(study, context)):
        if values is not None:
            found.append((name, note, values))
    result = []
    for name, note, values in found:
        primary = name == "last epoch"
        view = contrasts(study, context, None if primary else values)
        result.append(View(name, note, view, judge(view, margin).label))
    return result


def equal_epochs(study: Study, context: Context) -> tuple[str, str, pd.Series | None]:
    """Validation mIoU of completed trials after the shortest budget of any arm.

    The series is None where all arms have one budget, or where there are no learning curves.
    """
    budgets = context.trials["epochs_budget"].astype(int)
    shortest = int(budgets.min())
    note = (
        f"All arms after {shortest} epochs. A longer schedule has not annealed its learning rate by then, so "
        "its arm is shown below what it could reach in that time."
    )
    if budgets.nunique() == 1:
        return "equal epochs", note, None
    return "equal epochs", note, _values_until(study, context, lambda curve: curve["epoch"] <= shortest)


def equal_compute(study: Study, context: Context) -> tuple[str, str, pd.Series | None]:
    """Validation mIoU of completed trials after the training time of the cheaper side.

    Time is what was measured; the cost of pre-training itself is not part of it. None where the sides differ
    by less than 10 %, or where there are no learning curves.
    """
    seconds = _seconds_per_epoch(study, context)
    totals = seconds.groupby("trial_id").sum() if len(seconds) else pd.Series(dtype=float)
    done = context.trials[context.completed]
    cost = done.assign(cost=done["trial_id"].map(totals)).groupby("pretrained")["cost"].mean().dropna()
    name = "equal compute"
    if len(cost) < 2 or cost.max() < 1.1 * cost.min():
        return name, "", None
    limit = float(cost.min())
    note = (
        f"All arms after {format_duration(limit)} of training, the cheaper side's mean. The cost of "
        "pre-training is left out, and a longer schedule has not annealed its learning rate by then."
    )
    elapsed = seconds.groupby("trial_id").cumsum()

    def within(curve: pd.DataFrame) -> pd.Series:
        keys = pd.MultiIndex.from_frame(curve[["trial_id", "epoch"]])
        return pd.Series(elapsed.reindex(keys).to_numpy() <= limit, index=curve.index)

    return name, note, _values_until(study, context, within)


def _values_until(
    study: Study, context: Context, allowed: Callable[[pd.DataFrame], pd.Series]
) -> pd.Series | None:
    """Each completed trial's last validation mIoU among the allowed epochs."""
    epochs = study.epochs
    done = context.trials[context.completed]
    curve = epochs[
        (epochs["task"] == context.task)
        & (epochs["split"] == "val")
        & epochs["trial_id"].isin(done["trial_id"])
    ]
    if curve.empty:
        return None
    curve = curve[allowed(curve)].dropna(subset=["miou"]).sort_values("epoch")
    last = curve.groupby("trial_id")["miou"].last()
    return context.trials["trial_id"].map(last).astype(float)


def _seconds_per_epoch(study: Study, context: Context) -> pd.Series:
    """Wall time of each epoch, indexed by trial and epoch."""
    epochs = study.epochs[study.epochs["trial_id"].isin(context.trials["trial_id"])]
    if epochs.empty:
        return pd.Series(dtype=float)
    return epochs.groupby(["trial_id", "epoch"])["seconds"].first()
