"""Paired differences between the cells of a context: what the seeds so far show, and what more would buy.

The chance that more seeds settle a contrast is predictive (Spiegelhalter, Freedman & Blackburn 1986): it
averages over what the seeds so far leave open about the mean and about the spread, where conditional power at
the estimate would take both as known and promise too much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special, stats

from study.analysis.answering.design import FEWEST_SEEDS, AnsweringDesign

Floats = NDArray[np.float64]

# Relative to the scores; a smaller spread is rounding.
_NO_SPREAD = 1e-12


def t_quantile(tail: float, degrees: Floats | float) -> Floats:
    """Upper quantile of Student's t; `scipy.stats.t.isf` gives the same a hundred times slower."""
    return -np.asarray(special.stdtrit(degrees, tail), dtype=float)


@dataclass(frozen=True)
class PairedDifferences:
    """Differences between cells over the same seeds.

    Args:
        cells: labels, m of them.
        values: final scores, (n, m), no NaN.
        mean: mean difference row − column, (m, m).
        error: its standard error, (m, m).
        degrees: degrees of freedom of that error, (m, m).
    """

    cells: tuple[str, ...]
    values: Floats
    mean: Floats
    error: Floats
    degrees: Floats

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.values)

    def lower(self, left: Sequence[str], right: Sequence[str], tail: float) -> Floats:
        """One-sided lower confidence limits of left − right with error `tail`, (left, right)."""
        block = np.ix_(self.index(left), self.index(right))
        return self.mean[block] - t_quantile(tail, self.degrees[block]) * self.error[block]

    def upper(self, left: Sequence[str], right: Sequence[str], tail: float) -> Floats:
        """The upper limits, likewise."""
        return -self.lower(right, left, tail).T

    @property
    def pooled_error(self) -> float:
        """Standard error of a difference, from the residuals of all cells about cell and seed."""
        n, cells = self.values.shape
        residuals = self.values - self.values.mean(axis=0)
        residuals = residuals - residuals.mean(axis=1, keepdims=True)
        return math.sqrt(2 * float((residuals**2).sum()) / ((n - 1) * (cells - 1)) / n)

    def column(self, cell: str) -> Floats:
        """Scores of one cell, one per seed (n,)."""
        return self.values[:, self.cells.index(cell)]

    def difference(self, left: str, right: str) -> Floats:
        """Paired differences of two cells, one per seed (n,)."""
        return self.column(left) - self.column(right)

    def index(self, labels: Sequence[str]) -> list[int]:
        """Positions of cells."""
        return [self.cells.index(label) for label in labels]


def paired_differences(values: pd.DataFrame) -> PairedDifferences:
    """All differences between the columns of values (seeds × cells), which must be complete."""
    array = values.to_numpy(float)
    n = len(array)
    mean = array.mean(axis=0)
    if n < 2:
        unknown = np.full((len(mean), len(mean)), np.nan)
        return PairedDifferences(
            tuple(map(str, values.columns)), array, mean[:, None] - mean[None, :], unknown, unknown
        )
    spread = (array[:, :, None] - array[:, None, :]).var(axis=0, ddof=1)
    found = PairedDifferences(
        cells=tuple(map(str, values.columns)),
        values=array,
        mean=mean[:, None] - mean[None, :],
        error=np.sqrt(spread / n),
        degrees=np.full(spread.shape, float(n - 1)),
    )
    # No spread is not certainty: two cells that agree on every seed get the error of the other cells.
    identical = found.error <= _NO_SPREAD * max(float(np.abs(array).max()), 1.0)
    pooled = found.pooled_error if found.pooled_error > 0 else np.nan
    return replace(found, error=np.where(identical, pooled, found.error))


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
