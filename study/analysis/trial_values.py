"""One comparable value per trial, for analyses that use every trial of a context: effects and surfaces.

Only completed trials have a final value. Where a scheduler stopped trials, those that remain were selected by
their own values, and differences among them are too small (see docs/reading-results.md). All trials of the
context are then compared at an earlier point that every trial reached, and the result says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.scores import final_values
from study.analysis.study import Context, Study


@dataclass(frozen=True)
class TrialValues:
    """Validation mIoU of the trials of a context, at the same point of each trial's own budget.

    Args:
        values: one per trial, indexed like the context's trials; NaN where there is none.
        fraction: the share of its epochs after which a trial is read; 1 for final values.
        counts: number of trials in each status.
    """

    values: pd.Series
    fraction: float
    counts: Mapping[str, int]

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
        return TrialValues(final_values(study, context, survivors=survivors), 1.0, counts)
    fraction = float((stopped["epochs_run"] / stopped["epochs_budget"]).min())
    values = _values_at(study, context, fraction).where(status != "failed")
    floor = np.nan if survivors else context.floor or 0.0
    return TrialValues(values.where(status != "diverged", floor), fraction, counts)


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
