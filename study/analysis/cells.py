"""Cells: arm × setting, with counts, means over seeds, and what trials without a final value had shown."""

import pandas as pd

from segstrat.formatting import setting_label
from study.analysis.intervals import mean_interval
from study.analysis.study import Context, Study
from study.analysis.tuned import tuned_contexts
from study.frame import STATUSES


def cell_table(study: Study, task: str) -> pd.DataFrame:
    """Every cell of a study for one task; with a tuned axis, each setting at its chosen value.

    Returns:
        one row per context × arm × setting: `context arm pretrained setting`, the strategy axes, `reference`
        (whether each axis has the reference's value), the number of trials in each status, and over the
        completed seeds `n`, `val_miou` with `low`/`high` (95 %), `train_miou`, `val_loss`, `train_loss`,
        `val_miou_best` (best epoch) and `val_miou_thesis`. `shown` is the mean of the best values that
        stopped and unfinished trials had shown, see `best_shown`.
    """
    rows = [row for context in tuned_contexts(study, task) for row in _context_rows(study, context)]
    return pd.DataFrame(rows)


def _context_rows(study: Study, context: Context) -> list[dict]:
    task = context.task
    shown = best_shown(context)
    keys = ["pretrained", *context.strategies]
    means = {
        "train_miou": study.column(task, "train", "miou"),
        "val_loss": study.column(task, "val", "loss"),
        "train_loss": study.column(task, "train", "loss"),
        "val_miou_best": f"{task}_val_miou",
        "val_miou_thesis": study.column(task, "val", "miou_thesis"),
    }
    rows = []
    for values, trials in context.trials.groupby(keys, sort=True, dropna=False):
        levels = dict(zip(keys, values, strict=True))
        setting = {axis: levels[axis] for axis in context.strategies}
        completed = trials[trials["status"] == "completed"]
        label = context.settings[trials.index[0]] if context.tuned else setting_label(setting)
        interval = mean_interval(completed[study.column(task, "val", "miou")].to_numpy(float))
        counts = {status: int((trials["status"] == status).sum()) for status in STATUSES}
        rows.append(
            {"context": context.label, "arm": trials["arm"].iloc[0]}
            | levels
            | {"setting": label, "reference": setting == dict(context.reference)}
            | counts
            | {"n": interval.n, "val_miou": interval.estimate, "low": interval.low, "high": interval.high}
            | {name: completed[column].mean() for name, column in means.items()}
            | {"shown": shown.loc[trials.index].mean()}
        )
    return rows


def best_shown(context: Context) -> pd.Series:
    """The best validation mIoU that trials without a final value had shown when they ended; else NaN.

    It says nothing about how they would have ended: an interim value is never compared with a final one.
    """
    open_ended = context.trials["status"].isin(["stopped", "unfinished"])
    return context.trials[f"{context.task}_val_miou"].astype(float).where(open_ended)
