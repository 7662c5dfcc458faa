"""Linear effects with a pooled error: what a least-squares fit knows of a design, whatever the values."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from study.analysis.intervals import CONFIDENCE

Floats = NDArray[np.float64]


# As elsewhere: fewer degrees of freedom say next to nothing about the spread.
MIN_DEGREES = 2
# A component of the error is pooled unless its F test rejects at this level (Bancroft 1964).
POOLING_LEVEL = 0.25
ROUNDING = 1e-9


@dataclass(frozen=True)
class PooledError:
    """The standard deviation of one trial that a kind of effect is compared with.

    Args:
        sd: estimate; NaN where the design leaves no degrees of freedom.
        source: where it comes from, in words.
    """

    sd: float
    degrees: int
    source: str

    @property
    def known(self) -> bool:
        """Whether intervals can be computed; an exact fit is no certainty."""
        return self.degrees >= MIN_DEGREES and self.sd > ROUNDING


@dataclass(frozen=True)
class EffectModel:
    """Effects of one kind in one design.

    Args:
        weights: effects = weights @ values, (effects, trials); NaN rows cannot be estimated.
        pooled: orthonormal basis of the terms whose residual is the error, (trials, rank).
        refined: those terms and the interactions of the seed with this kind of effect; None with one seed.
        sources: the error in words, for `pooled` and for `refined`.
    """

    weights: Floats
    pooled: Floats
    refined: Floats | None
    sources: tuple[str, str]

    def estimates(self, y: Floats) -> tuple[Mapping[str, Floats], PooledError]:
        """Estimate, 95 % interval and p-value of each effect, and the error they were compared with.

        Args:
            y: a value per trial (trials,).

        Returns:
            arrays `estimate low high p` (effects,), NaN where unknown.
        """
        error = self.error(y)
        estimate = self.weights @ y if len(y) else np.full(len(self.weights), np.nan)
        if not error.known:
            unknown = np.full(len(estimate), np.nan)
            return {"estimate": estimate, "low": unknown, "high": unknown, "p": unknown}, error
        errors = error.sd * np.linalg.norm(self.weights, axis=1)
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, error.degrees) * errors
        p = 2 * stats.t.sf(np.abs(estimate) / errors, error.degrees)
        return {"estimate": estimate, "low": estimate - half, "high": estimate + half, "p": p}, error

    def error(self, y: Floats) -> PooledError:
        """The pooled error, unless effects of this kind vary more over seeds (F test at 25 %)."""
        total, degrees = _residual(self.pooled, y)
        if self.refined is not None:
            rest, rest_degrees = _residual(self.refined, y)
            own = degrees - rest_degrees
            if own >= MIN_DEGREES and rest_degrees > 0:
                ratio = ((total - rest) / own) / max(rest / rest_degrees, ROUNDING**2)
                if ratio > stats.f.ppf(1 - POOLING_LEVEL, own, rest_degrees):
                    return PooledError(float(np.sqrt((total - rest) / own)), own, self.sources[1])
        sd = float(np.sqrt(total / degrees)) if degrees else np.nan
        return PooledError(sd, degrees, self.sources[0])


def effect_weights(design: Floats, wanted: Floats) -> Floats:
    """Least-squares estimates of combinations of a design's parameters, as weights on the values.

    Args:
        design: (trials, parameters), of any rank.
        wanted: (effects, parameters).

    Returns:
        (effects, trials); NaN rows where the trials do not determine an effect.
    """
    inverse = np.linalg.pinv(design)
    # An effect can be estimated if and only if it is a combination of the design's rows.
    determined = np.abs(wanted @ inverse @ design - wanted).max(axis=1) < ROUNDING
    return np.where(determined[:, None], wanted @ inverse, np.nan)


def orthonormal_basis(design: Floats) -> Floats:
    """Of the columns' span: (trials, parameters) -> (trials, rank)."""
    if not len(design):
        return np.zeros((0, 0))
    left, values, _ = np.linalg.svd(design, full_matrices=False)
    return left[:, values > ROUNDING * values.max()]


def _residual(basis: Floats, y: Floats) -> tuple[float, int]:
    """Sum of squares and degrees of freedom beyond a basis."""
    if not len(y):
        return 0.0, 0
    residuals = y - basis @ (basis.T @ y)
    return float(residuals @ residuals), basis.shape[0] - basis.shape[1]
