"""The score of each trial: which one chooses a setting, and which one is reported.

On which images a context reports is fixed, see `study.analysis.study.reporting_images`. A completed trial
without a score there, such as one whose pixel counts were lost, makes its seed incomplete.

Effects and surfaces use every trial of a context. Where a scheduler stopped trials, those that remain were
selected by their own values, and differences among them are too small (see docs/reading-results.md). All
trials are then compared at an earlier point that every trial reached, and the result says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segstrat.image_counts import HALVES
from segstrat.scores import MIOU, WORDS
from study.analysis.study import Context, Study
from study.frame.build import HALVED, TEST


@dataclass(frozen=True)
class ScorePair:
    """Two scores of every trial, indexed like `context.trials`; NaN where there is none.

    Args:
        choosing: by which settings are chosen.
        reported: what is reported of the chosen setting.
    """

    choosing: pd.Series
    reported: pd.Series


def reported_column(task: str, images: str, score: str = MIOU) -> str:
    """The column of `trials` whose values the answering stage reports on these images.

    What is nominated on the first half of the validation images is reported on the second one.
    """
    return {
        TEST: f"last_{task}_test_{score}",
        HALVED: f"last_{task}_val_{score}_{HALVES[-1]}",
    }.get(images, f"last_{task}_val_{score}")


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
        return (ScorePair(validation, final_values(study, context, reported_column(task, TEST))),)
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


@dataclass(frozen=True)
class TrialValues:
    """Validation scores of the trials of a context, at the same point of each trial's own budget.

    Args:
        values: one per trial, indexed like the context's trials; NaN where there is none.
        fraction: the share of its epochs after which a trial is read; 1 for final values.
        counts: number of trials in each status.
        score: what is compared, in words.
    """

    values: pd.Series
    fraction: float
    counts: Mapping[str, int]
    score: str = WORDS[MIOU]

    @property
    def final(self) -> bool:
        """Whether these are final values."""
        return self.fraction == 1.0

    @property
    def when(self) -> str:
        """The point at which trials are compared, in words."""
        if self.final:
            return "at the last epoch"
        return f"after {100 * self.fraction:.0f} % of each trial's epochs, before any was stopped"


def trial_values(study: Study, context: Context, *, survivors: bool = False) -> TrialValues:
    """Final values, or values at the latest common point where trials were stopped.

    A diverged trial counts with the floor (intention to treat).

    Args:
        survivors: leave diverged trials out instead.
    """
    trials = context.trials
    status = trials["status"].astype(str)
    counts = {str(name): int(count) for name, count in status.value_counts().items()}
    stopped = trials[status == "stopped"]
    if stopped.empty:
        return TrialValues(final_values(study, context, survivors=survivors), 1.0, counts, context.score)
    fraction = float((stopped["epochs_run"] / stopped["epochs_budget"]).min())
    values = _values_at(study, context, fraction).where(status != "failed")
    floor = np.nan if survivors else context.floor or 0.0
    return TrialValues(values.where(status != "diverged", floor), fraction, counts, context.score)


def _values_at(study: Study, context: Context, fraction: float) -> pd.Series:
    """Validation mIoU at the scored epoch nearest to a fraction of each trial's budget."""
    trials, epochs = context.trials, study.epochs
    unknown = pd.Series(np.nan, index=trials.index)
    if epochs.empty:
        return unknown
    scored = epochs[(epochs["task"] == context.task) & (epochs["split"] == "val")].dropna(subset=["miou"])
    target = fraction * trials.set_index("trial_id")["epochs_budget"]
    distance = (scored["epoch"] - scored["trial_id"].map(target)).abs()
    nearest = scored.assign(distance=distance).dropna(subset=["distance"])
    nearest = nearest.sort_values(["distance", "epoch"]).drop_duplicates("trial_id").set_index("trial_id")
    reached = trials["epochs_run"] >= np.floor(fraction * trials["epochs_budget"])
    return trials["trial_id"].map(nearest["miou"]).astype(float).where(reached)
