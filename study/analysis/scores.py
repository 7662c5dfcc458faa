"""The score of each trial: which one chooses a setting, and which one is reported.

On which images a context reports is fixed, see `study.analysis.study.reporting_images`. A completed trial
without a score there, such as one whose pixel counts were lost, makes its seed incomplete.
"""

from dataclasses import dataclass

import pandas as pd

from segstrat.image_counts import HALVES
from study.analysis.study import Context, Study
from study.frame.columns import HALVED, TEST


@dataclass(frozen=True)
class ScorePair:
    """Two scores of every trial, indexed like `context.trials`; NaN where there is none.

    Args:
        choosing: by which settings are chosen.
        reported: what is reported of the chosen setting.
    """

    choosing: pd.Series
    reported: pd.Series


def trial_scores(study: Study, context: Context) -> tuple[ScorePair, ...]:
    """The primary scores of a context: one pair, or one per half of the images.

    A contrast is the mean over the pairs.
    """
    task = context.task
    if context.images == HALVED:
        a, b = (final_values(study, context, f"last_{task}_val_miou_{half}") for half in HALVES)
        return ScorePair(a, b), ScorePair(b, a)
    validation = final_values(study, context)
    if context.images == TEST:
        return (ScorePair(validation, final_values(study, context, f"last_{task}_test_miou")),)
    return (ScorePair(validation, validation),)


def seeds_by_cells(context: Context, values: pd.Series) -> pd.DataFrame:
    """Values of the context's trials (seeds × cells), in the order of the trials; NaN where there is none."""
    trials = context.trials
    table = pd.DataFrame({"seed": trials["seed"].astype(int), "cell": trials["cell"], "value": values})
    wide = table.pivot(index="seed", columns="cell", values="value").astype(float)
    return wide.reindex(columns=list(dict.fromkeys(trials["cell"])))


def final_values(
    study: Study, context: Context, column: str | None = None, *, survivors: bool = False
) -> pd.Series:
    """Final values of the context's trials; by default validation mIoU at the last epoch.

    Only completed trials have a final value. A diverged trial counts with the floor: intention to treat. If
    only the seeds that survived counted, a setting that often diverges would look good.

    Args:
        survivors: leave diverged trials out instead.
    """
    name = column or study.column(context.task, "val", "miou")
    if name not in context.trials:
        values = pd.Series(float("nan"), index=context.trials.index)
    else:
        values = context.trials[name].astype(float).where(context.completed)
    if survivors:
        return values
    return values.where(context.trials["status"] != "diverged", context.floor or 0.0)
