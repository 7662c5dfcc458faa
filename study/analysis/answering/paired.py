"""Paired differences between all cells of a context: mean, standard error and degrees of freedom."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

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
