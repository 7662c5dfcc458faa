"""Cells: arm × treatment, with counts, means over seeds, and bounds where trials were stopped."""

import pandas as pd

from study.analysis.intervals import mean_interval
from study.analysis.names import setting_label
from study.analysis.study import Context, Study, contexts
from study.frame import STATUSES


def cell_table(study: Study, task: str) -> pd.DataFrame:
    """Every cell of a study for one task.

    Returns:
        a row for each context × arm × setting: `context arm pretrained setting`, the strategy axes, the
        number of trials in each status, and over the completed seeds `val_miou` with `low`/`high` (95 %),
        `train_miou`, `val_loss`, `train_loss`, `val_miou_best` (best epoch) and `val_miou_thesis`. Where
        trials were stopped, `bound_low`/`bound_high` say between which values the cell's mean would lie had
        they gone on: at their best value so far, or at the best final value of their arm.
    """
    rows = []
    for context in contexts(study, task):
        bounds = final_bounds(study, context)
        keys = ["pretrained", *context.strategies]
        for values, trials in context.trials.groupby(keys, sort=True, dropna=False):
            setting = dict(zip(keys, values, strict=True))
            done = trials[trials["status"] == "completed"]
            interval = mean_interval(done[study.column(task, "val", "miou")].to_numpy(float))
            count = {status: int((trials["status"] == status).sum()) for status in STATUSES}
            among = bounds.loc[trials.index].dropna()
            rows.append(
                {"context": context.label, "arm": trials["arm"].iloc[0]}
                | setting
                | {"setting": setting_label({axis: setting[axis] for axis in context.strategies})}
                | count
                | {"n": interval.n, "val_miou": interval.estimate, "low": interval.low, "high": interval.high}
                | {
                    name: done[column].mean()
                    for name, column in {
                        "train_miou": study.column(task, "train", "miou"),
                        "val_loss": study.column(task, "val", "loss"),
                        "train_loss": study.column(task, "train", "loss"),
                        "val_miou_best": f"{task}_val_miou",
                        "val_miou_thesis": study.column(task, "val", "miou_thesis"),
                    }.items()
                }
                | {
                    "bound_low": among["low"].mean() if count["stopped"] else None,
                    "bound_high": among["high"].mean() if count["stopped"] else None,
                }
            )
    return pd.DataFrame(rows)


def final_bounds(study: Study, context: Context) -> pd.DataFrame:
    """Between which values each trial's final validation mIoU lies, under two stated assumptions.

    A stopped (or unfinished) trial would not have ended below the best value it had shown, nor above the
    best final value of its arm. A completed trial's bounds are its value; diverged and failed trials have
    none, they are counted.

    Returns:
        columns `low` and `high`, indexed like the context's trials.
    """
    trials = context.trials
    final = trials[study.column(context.task, "val", "miou")].where(trials["status"] == "completed")
    ceiling = final.groupby(trials["arm"]).transform("max")
    open_ended = trials["status"].isin(["stopped", "unfinished"])
    shown = trials[f"{context.task}_val_miou"].where(open_ended)
    high = ceiling.where(open_ended & shown.notna())
    # A stopped trial may have been ahead of every trial that its arm completed.
    high = high.where(high.isna() | (high >= shown), shown)
    return pd.DataFrame({"low": final.fillna(shown), "high": final.fillna(high)}, index=trials.index)
