"""Intervals for the few numbers that a study yields: one paired difference per seed.

With 1 or 2 seeds there is no interval: two numbers say next to nothing about their own spread. From 3 seeds
on it is Student's t. docs/simulations.md measures its coverage, and that of what is not used: the percentile
and BCa bootstraps cover 80–86 % at five seeds instead of 95 %, the studentized bootstrap is wider than t for
no gain, and variance borrowed from other cells (Smyth 2004) covers too rarely where cells differ in spread.

Values without any spread have no interval either: that seeds agree to the last digit says that something did
not vary, not that the mean is known exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
MIN_SEEDS = 3
# Relative to the values; a smaller spread is rounding.
_NO_SPREAD = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; `low` and `high` are None where the seeds do not allow one.

    An end is infinite where only the other one was tested: "at least `low`".

    Args:
        estimate: the point estimate; None where there is no value at all.
        n: number of seeds.
        method: how the interval was made, or why there is none.
        confidence: with which the interval holds; less than planned where a finished study was extended.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    confidence: float = CONFIDENCE

    @property
    def level(self) -> str:
        """The confidence in words: `95 %`."""
        return f"{100 * self.confidence:.3g} %"

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above a threshold."""
        return self.low is not None and self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether the whole interval lies below a threshold."""
        return self.high is not None and self.high < threshold

    def __neg__(self) -> "Interval":
        """The interval of the opposite difference."""
        estimate, low, high = (
            None if value is None else -value for value in (self.estimate, self.high, self.low)
        )
        return replace(self, estimate=estimate, low=low, high=high)


def mean_interval(
    values: Sequence[float] | Floats, confidence: float = CONFIDENCE, *, variance_factor: float = 1.0
) -> Interval:
    """Interval of the mean of values (n,), one per seed; not-a-number values are left out.

    Args:
        variance_factor: by how much the mean's variance exceeds that of independent values; widens the
            interval by its square root.
    """
    x = np.asarray(values, dtype=float)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < MIN_SEEDS:
        estimate = float(x.mean()) if n else None
        return Interval(estimate, None, None, n, f"no interval: {_seeds(n)}, at least {MIN_SEEDS} are needed")
    mean, error = float(x.mean()), math.sqrt(variance_factor / n) * float(x.std(ddof=1))
    if _constant(x):
        return Interval(mean, None, None, n, f"no interval: {n} seeds without any spread")
    note = "" if variance_factor == 1.0 else f", variance × {variance_factor:g}"
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half, n, f"Student's t over {n} seeds{note}", confidence)


def ratio_interval(
    numerators: Sequence[float] | Floats,
    denominators: Sequence[float] | Floats,
    confidence: float = CONFIDENCE,
    *,
    variance_factor: float = 1.0,
) -> Interval:
    """Interval of mean(numerators) / mean(denominators) of paired values (n,), by Fieller's theorem (1954).

    Where the denominators' mean is not clearly different from zero the set is unbounded and no interval
    is given.
    """
    pairs = np.column_stack([np.asarray(numerators, float), np.asarray(denominators, float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n == 0:
        return Interval(None, None, None, 0, "no value")
    top, bottom = pairs.mean(axis=0)
    estimate = float(top / bottom) if bottom != 0 else None
    if n < MIN_SEEDS:
        method = f"no interval: {_seeds(n)}, at least {MIN_SEEDS} are needed"
        return Interval(estimate, None, None, n, method)
    if estimate is None or _constant(pairs[:, 0] - estimate * pairs[:, 1]):
        return Interval(estimate, None, None, n, f"no interval: {n} seeds without any spread")
    (v_top, v_both), (_, v_bottom) = variance_factor * np.cov(pairs, rowvar=False) / n
    t2 = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) ** 2
    a = bottom**2 - t2 * v_bottom
    if a <= 0:
        return Interval(estimate, None, None, n, "no interval: the gap itself may be zero")
    b = top * bottom - t2 * v_both
    root = math.sqrt(max(b**2 - a * (top**2 - t2 * v_top), 0.0))
    note = "" if variance_factor == 1.0 else f", variance × {variance_factor:g}"
    method = f"Fieller's theorem over {n} seeds{note}"
    return Interval(estimate, float((b - root) / a), float((b + root) / a), n, method, confidence)


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _constant(x: Floats) -> bool:
    return float(np.ptp(x)) <= _NO_SPREAD * max(float(np.abs(x).max()), 1.0)
