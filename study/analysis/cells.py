"""Cells: arm × setting, with counts, means over seeds, and bounds where trials have no final value."""

import pandas as pd

from study.analysis.intervals import mean_interval
from study.analysis.names import setting_label
from study.analysis.study import Context, Study, contexts
from study.frame import STATUSES


def cell_table(study: Study, task: str) -> pd.DataFrame:
    """Every cell of a study for one task.

    Returns:
        one row per context × arm × setting: `context arm pretrained setting`, the strategy axes, `reference`
        (whether each axis has the reference's value), the number of trials in each status, and over the
        completed seeds `n`, `val_miou` with `low`/`high` (95 %), `train_miou`, `val_loss`, `train_loss`,
        `val_miou_best` (best epoch) and `val_miou_thesis`. Where trials were stopped or are unfinished,
        `bound_low`/`bound_high` say between which values the cell's mean would lie had they continued,
        see `final_bounds`.
    """
    rows = [row for context in contexts(study, task) for row in _context_rows(study, context)]
    return pd.DataFrame(rows)


def _context_rows(study: Study, context: Context) -> list[dict]:
    task = context.task
    bounds = final_bounds(study, context)
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
        interval = mean_interval(completed[study.column(task, "val", "miou")].to_numpy(float))
        counts = {status: int((trials["status"] == status).sum()) for status in STATUSES}
        known = bounds.loc[trials.index].dropna()
        bounded = counts["stopped"] + counts["unfinished"] > 0
        rows.append(
            {"context": context.label, "arm": trials["arm"].iloc[0]}
            | levels
            | {"setting": setting_label(setting), "reference": setting == dict(context.reference)}
            | counts
            | {"n": interval.n, "val_miou": interval.estimate, "low": interval.low, "high": interval.high}
            | {name: completed[column].mean() for name, column in means.items()}
            | {
                "bound_low": known["low"].mean() if bounded else None,
                "bound_high": known["high"].mean() if bounded else None,
            }
        )
    return rows


def final_bounds(study: Study, context: Context) -> pd.DataFrame:
    """Between which values each trial's final validation mIoU lies, under two stated assumptions.

    A stopped (or unfinished) trial would not have ended below the best value it had shown, nor above the
    best final value of its arm. A completed trial's bounds are its value; diverged and failed trials have
    none.

    Returns:
        columns `low` and `high`, indexed like the context's trials.
    """
    trials = context.trials
    final = trials[study.column(context.task, "val", "miou")].where(context.completed)
    ceiling = final.groupby(trials["arm"]).transform("max")
    open_ended = trials["status"].isin(["stopped", "unfinished"])
    shown = trials[f"{context.task}_val_miou"].where(open_ended)
    high = ceiling.where(open_ended & shown.notna())
    # A stopped trial may have been ahead of every trial that its arm completed.
    high = high.where(high.isna() | (high >= shown), shown)
    return pd.DataFrame({"low": final.fillna(shown), "high": final.fillna(high)}, index=trials.index)
