"""Effects: differences between two groups of a context's trials, paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.analysis.intervals import Interval
from study.analysis.study import Context


@dataclass(frozen=True)
class Effect:
    """A difference in shares of mIoU, with what it is a difference of."""

    what: str
    interval: Interval


def paired_difference(
    context: Context, values: pd.Series, left: pd.Series, right: pd.Series, keys: Sequence[str]
) -> pd.Series:
    """Left minus right, averaged within each seed over the cells that both completed.

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
