"""Effects: differences between two groups of a context's trials, paired by seed, with a p-value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from study.analysis.intervals import MIN_SEEDS, Interval, mean_interval
from study.analysis.study import Context

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Effect:
    """A difference in shares of mIoU that a claim is about.

    Args:
        threshold: the claim says on which side of it the difference is.
        claimed_above: whether the claim puts the difference above the threshold, or below.
        p: two-sided, that the difference is the threshold; NaN where the seeds allow none. None where
            `interval` is valid over all looks of a sequential study and decides by itself.
        adjusted_p: the same, adjusted for the number of effects.
        blocked: why nothing is concluded whatever the numbers are; empty if nothing stands in the way.
    """

    what: str
    interval: Interval
    threshold: float = 0.0
    claimed_above: bool = True
    p: float | None = math.nan
    adjusted_p: float = math.nan
    blocked: str = ""

    @property
    def estimated_as_claimed(self) -> bool:
        """Whether the estimate is on the claimed side."""
        estimate = self.interval.estimate
        return estimate is not None and (estimate > self.threshold) is self.claimed_above

    @property
    def side(self) -> Literal["claimed", "reversed", ""]:
        """On which side of the threshold the difference is shown to be; empty if on neither."""
        if self.blocked:
            return ""
        if self.p is None:
            shown = self.interval.above(self.threshold) or self.interval.below(self.threshold)
        else:
            shown = self.adjusted_p < SIGNIFICANT
        if not shown:
            return ""
        return "claimed" if self.estimated_as_claimed else "reversed"


def make_effect(
    what: str,
    differences: pd.Series,
    *,
    threshold: float = 0.0,
    claimed_above: bool = True,
    variance_factor: float = 1.0,
    blocked: str = "",
) -> Effect:
    """The effect of paired differences, one per seed."""
    values = differences.to_numpy(float)
    return Effect(
        what,
        mean_interval(values, variance_factor=variance_factor),
        threshold,
        claimed_above,
        p_value(values, threshold, variance_factor),
        blocked=blocked,
    )


def p_value(values: np.ndarray, threshold: float, variance_factor: float = 1.0) -> float:
    """Two-sided p-value of Student's t that the mean is the threshold; NaN for too few seeds or no spread."""
    x = values[np.isfinite(values)]
    n = len(x)
    if n < MIN_SEEDS or not x.std() > 1e-12:
        return math.nan
    error = math.sqrt(variance_factor / n) * float(x.std(ddof=1))
    return float(2 * stats.t.sf(abs(float(x.mean()) - threshold) / error, n - 1))


def paired_difference(
    context: Context, values: pd.Series, left: pd.Series, right: pd.Series, keys: Sequence[str]
) -> pd.Series:
    """Left minus right, averaged within each seed over the cells that both have a value for.

    Args:
        values: one value per trial, NaN where it has no final one.
        left, right: masks of the two groups of trials.
        keys: axes on which the two must agree.

    Returns:
        one difference per seed, indexed by seed; empty where no cell has both.
    """
    frame = context.trials.assign(value=values)
    index = ["seed", *keys]
    sides = [frame[mask & frame["value"].notna()].set_index(index)["value"] for mask in (left, right)]
    if any(side.empty for side in sides):
        return pd.Series(dtype=float)
    difference = (sides[0] - sides[1]).dropna()
    return difference.groupby(level="seed").mean() if keys else difference
