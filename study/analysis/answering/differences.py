"""Paired differences between the cells of a context: what the seeds so far show, and what more would buy.

The chance that more seeds settle a contrast is predictive (Spiegelhalter, Freedman & Blackburn 1986): it
averages over what the seeds so far leave open about the mean and about the spread, where conditional power at
the estimate would take both as known and promise too much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


# Degrees of freedom that the pooled variance of a difference counts for, beside the seeds' own.
PRIOR_DEGREES = 4


@dataclass(frozen=True)
class PairedDifferences:
    """Differences between cells over the same seeds.

    A variance from three to six seeds is hardly known, and all differences of a kind have about the same. So
    each one is moderated towards what all cells say (after Smyth 2004): with n seeds,
    (4 pooled + (n − 1) own) / (n + 3) with n + 3 degrees of freedom, and never less than pooled: a cell may
    have been spared by chance what befell the others of its arm. Pooled is, within an arm, twice the
    variance of its scores about cell and seed; between the arms it is the variance of the difference of the
    arms' means over seeds, plus what the cells of each arm scatter about its mean. The arms may differ in
    spread, and in what a seed does to them. docs/simulations.md measures what this costs where the cells of
    one arm differ in spread.

    Args:
        cells: labels, m of them.
        values: final scores, (n, m), no NaN.
        mean: mean difference row − column, (m, m).
        error: its standard error, (m, m).
        degrees: degrees of freedom of that error, (m, m).
        deviations: of each arm: standard deviation of a score about its cell and seed; NaN if unknown.
    """

    cells: tuple[str, ...]
    values: Floats
    mean: Floats
    error: Floats
    degrees: Floats
    deviations: Mapping[str, float]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.values)

    def lower(self, left: Sequence[str], right: Sequence[str], tails: Sequence[float]) -> Floats:
        """One-sided lower confidence limits of left − right, (left, right).

        Args:
            tails: the error of each left cell's limits.
        """
        block = np.ix_(self.index(left), self.index(right))
        return (
            self.mean[block] - t_quantile(np.array(tails)[:, None], self.degrees[block]) * self.error[block]
        )

    def upper(self, left: Sequence[str], right: Sequence[str], tails: Sequence[float]) -> Floats:
        """The upper limits, likewise, with the error of each right cell's limits."""
        return -self.lower(right, left, tails).T

    def error_within(self, arm: str) -> float:
        """Standard error of a difference between two cells of an arm."""
        return math.sqrt(2 / self.seeds) * self.deviations[arm]

    def column(self, cell: str) -> Floats:
        """Scores of one cell, one per seed (n,)."""
        return self.values[:, self.cells.index(cell)]

    def difference(self, left: str, right: str) -> Floats:
        """Paired differences of two cells, one per seed (n,)."""
        return self.column(left) - self.column(right)

    def index(self, labels: Sequence[str]) -> list[int]:
        """Positions of cells."""
        return [self.cells.index(label) for label in labels]


def paired_differences(scores: Floats, cells: Sequence[str], arms: Mapping[str, str]) -> PairedDifferences:
    """All differences between the cells that have a score on every seed.

    Args:
        scores: seeds × cells. A cell that lacks a seed, because it was dropped, takes part in the pooled
            variance only.
        cells: label of each column.
        arms: the arm of each cell.
    """
    complete = np.isfinite(scores).all(axis=0)
    array = scores[:, complete]
    of_column = np.array([arms[cell] for cell in cells])
    cells = tuple(cell for cell, has in zip(cells, complete, strict=True) if has)
    n, m = array.shape
    mean = array.mean(axis=0)
    mean = mean[:, None] - mean[None, :]
    if n < 2:
        unknown = np.full((m, m), np.nan)
        return PairedDifferences(cells, array, mean, unknown, unknown, dict.fromkeys(arms.values(), np.nan))
    own = (array[:, :, None] - array[:, None, :]).var(axis=0, ddof=1)
    deviations = {
        arm: residual_deviation(scores[:, of_column == arm]) for arm in dict.fromkeys(arms.values())
    }
    pooled = _pooled(array, [arms[cell] for cell in cells], deviations)
    degrees = n - 1 + PRIOR_DEGREES
    moderated = np.maximum(pooled, (PRIOR_DEGREES * pooled + (n - 1) * own) / degrees)
    variance = np.where(np.isnan(pooled), own, moderated)
    error = np.sqrt(variance / n)
    # No spread is not certainty: two cells that agree on every seed get the error of the other cells.
    all_cells = residual_deviation(array)
    fallback = math.sqrt(2 / n) * all_cells if all_cells > 0 else np.nan
    identical = error <= _NO_SPREAD * max(float(np.abs(array).max()), 1.0)
    return PairedDifferences(
        cells=cells,
        values=array,
        mean=mean,
        error=np.where(identical, fallback, error),
        degrees=np.where(np.isnan(pooled), n - 1.0, float(degrees)),
        deviations=deviations,
    )


def _pooled(values: Floats, arms: Sequence[str], deviations: Mapping[str, float]) -> Floats:
    """The variance of each difference that all cells together say, (m, m); NaN where they say nothing."""
    pooled = np.full((len(arms), len(arms)), np.nan)
    of_arm = np.array(arms)
    names = list(dict.fromkeys(arms))
    # An arm of one cell has no scatter about its mean.
    about = {
        name: 0.0 if (of_arm == name).sum() == 1 else (1 - 1 / (of_arm == name).sum()) * deviations[name] ** 2
        for name in names
    }
    for left in names:
        for right in names:
            rows, columns = np.flatnonzero(of_arm == left), np.flatnonzero(of_arm == right)
            if left == right:
                found = 2 * deviations[left] ** 2
            else:
                level = values[:, rows].mean(axis=1) - values[:, columns].mean(axis=1)
                found = float(level.var(ddof=1)) + about[left] + about[right]
            pooled[np.ix_(rows, columns)] = found
    return pooled


def residual_deviation(values: Floats) -> float:
    """Standard deviation of scores about the additive effects of their cells and seeds.

    Args:
        values: (seeds, cells), NaN where there is none.

    Returns:
        NaN with fewer than two seeds or cells.
    """
    known = np.isfinite(values)
    if known.all():
        n, m = values.shape
        degrees = (n - 1) * (m - 1)
        residuals = values - values.mean(axis=0)
        residuals = residuals - residuals.mean(axis=1, keepdims=True)
    else:
        seeds, cells = np.nonzero(known)
        # Seeds and cells without a score have no column that varies, and so no part in the rank.
        design = np.hstack([seeds[:, None] == np.unique(seeds), cells[:, None] == np.unique(cells)]).astype(
            float
        )
        y = values[known] - values[known].mean() if len(seeds) else values[known]
        effects, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
        degrees = len(y) - int(rank)
        residuals = y - design @ effects
    return math.sqrt(float((residuals**2).sum()) / degrees) if degrees > 0 else math.nan


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
    sd = residual_deviation(values.to_numpy(float))
    return sd if np.isfinite(sd) else None
