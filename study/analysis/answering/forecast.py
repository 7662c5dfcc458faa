"""What more seeds would buy: the chance that an interval clears a threshold once they are there.

The chance is predictive (Spiegelhalter, Freedman & Blackburn 1986): it averages over what the seeds so far
leave open about the mean and about the spread, where conditional power at the estimate would take both as
known and promise too much.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from study.analysis.answering.paired import t_quantile

Side = Literal["above", "below", "either"]
_QUANTILES = (np.arange(40) + 0.5) / 40


def chance_to_settle(
    mean: float,
    error: float,
    degrees: float,
    seeds: int,
    *,
    threshold: float,
    seeds_then: int,
    tail: float,
    side: Side = "either",
) -> float:
    """Chance that the interval after `seeds_then` seeds lies on one side of a threshold.

    Args:
        mean, error, degrees: of the contrast so far: estimate, its standard error, degrees of freedom.
        seeds: seeds so far, fewer than `seeds_then`.
        tail: one-sided tail probability of that later interval's ends.
        side: which side counts.
    """
    more = seeds_then - seeds
    if more <= 0:
        raise ValueError(f"{seeds_then} seeds are no more than the {seeds} there are")
    if error <= 0:
        return float(mean > threshold) if side == "above" else float(mean != threshold)
    variance = seeds * error**2
    # What the variance of one seed may be, given the seeds so far: scaled inverse chi-square.
    plausible = degrees * variance / (2 * special.gammaincinv(degrees / 2, _QUANTILES))
    spread_then = np.sqrt((degrees * variance + more * plausible) / (degrees + more))
    half = t_quantile(tail, degrees + more) * spread_then / math.sqrt(seeds_then)
    shift = np.sqrt(plausible * more / (seeds * seeds_then))
    distance = mean - threshold
    above = special.ndtr((distance - half) / shift)
    below = special.ndtr((-distance - half) / shift)
    chances = {"above": above, "below": below, "either": above + below}[side]
    return float(np.mean(chances))


def seeds_needed(
    values: Sequence[float] | NDArray[np.float64],
    threshold: float,
    *,
    chance: float = 0.8,
    tail: float = 0.025,
    variance_factor: float = 1.0,
    most: int = 200,
) -> int | None:
    """Fewest seeds, in all, with which the interval settles with at least this chance.

    Args:
        values: paired differences so far, one per seed.
        variance_factor: by how much the mean's variance exceeds that of independent values.

    Returns:
        None with fewer than three values, which say too little about their spread, and where more than
        `most` seeds would be needed.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 3 or not x.std():
        return None
    error = math.sqrt(variance_factor / n) * float(x.std(ddof=1))
    for seeds in range(n + 1, most + 1):
        found = chance_to_settle(
            float(x.mean()), error, n - 1, n, threshold=threshold, seeds_then=seeds, tail=tail
        )
        if found >= chance:
            return seeds
    return None
