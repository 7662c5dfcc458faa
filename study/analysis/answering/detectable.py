"""Before a study: the smallest difference between two settings that its seeds are likely to settle."""

import math

import numpy as np
import pandas as pd
from scipy import optimize, stats

from study.analysis.answering.design import FEWEST_SEEDS, AnsweringDesign
from study.analysis.answering.paired import paired_differences, t_quantile

# Seed standard deviation of mIoU before anything is measured: 1 point, as in docs/simulations.md.
ASSUMED_SEED_SD = 0.01


def detectable_difference(design: AnsweringDesign, seed_sd: float, *, chance: float = 0.8) -> float | None:
    """How far a true difference must lie from its threshold for its interval to exclude that threshold.

    Of two settings, whose scores vary independently over seeds; candidates that stay tied share the error
    and need more. Only the last look counts, so the chance is a lower bound.

    Args:
        seed_sd: standard deviation of one setting's score over seeds, a fraction of 1 as mIoU is.
        chance: with which the difference is settled by the last look.

    Returns:
        a difference of mIoU; None with too few seeds for an interval.
    """
    seeds = design.max_seeds
    if seeds < FEWEST_SEEDS:
        return None
    degrees = seeds - 1
    bound = float(t_quantile(design.tail_probability(len(design.looks)), degrees))

    def lacking(noncentrality: float) -> float:
        return float(stats.nct.sf(bound, degrees, noncentrality)) - chance

    noncentrality = float(optimize.brentq(lacking, 0.0, 10 * bound))
    return noncentrality * math.sqrt(2 / seeds) * seed_sd


def observed_seed_sd(values: pd.DataFrame) -> float | None:
    """Standard deviation of a setting's score over seeds, without what a seed does to all settings alike.

    Args:
        values: seeds × settings, complete.

    Returns:
        None with fewer than two seeds or settings.
    """
    if min(values.shape) < 2:
        return None
    found = paired_differences(values)
    sd = found.pooled_error * math.sqrt(found.seeds / 2)
    return sd if np.isfinite(sd) else None
