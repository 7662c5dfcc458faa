"""A second-order response surface with simultaneous bands, its maximum and where that may lie.

Fitted by least squares on one value per point, in coordinates scaled to [−1, 1] (Box & Draper, *Response
Surfaces, Mixtures, and Ridge Analyses*, 2007). Three statements hold together with 95 % confidence if the
true surface is of second order within the region of the points:

- *Band*: the surface lies between `low` and `high` at every place of the grid at once. Its critical value is
  the simulated quantile of the largest standardized deviation, which is smaller than Scheffé's.
- *Value of the maximum*: between the largest `low` and the largest `high`. The plain interval at the fitted
  maximum would be too high, because that place was chosen for its value.
- *Gain over the reference*: from the same kind of band over differences.

The location of the maximum is a set: all places that no other place is shown to exceed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import Delaunay, QhullError

from study.analysis.intervals import CONFIDENCE

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


MIN_DEGREES = 2
_BAND_DRAWS = 4000
_LOCATION_DRAWS = 1000


def second_order_terms(points: Floats) -> Floats:
    """1, x, x² and products of pairs: (n, axes) -> (n, parameters)."""
    n, axes = points.shape
    columns = [np.ones(n), *points.T, *(points.T**2)]
    columns += [points[:, i] * points[:, j] for i in range(axes) for j in range(i)]
    return np.stack(columns, axis=1)


def inside_hull(places: Floats, points: Floats) -> Booleans:
    """Whether places (m, axes) lie in the convex hull of points (n, axes); beyond it a fit extrapolates."""
    if points.shape[1] == 1:
        low, high = points.min() - 1e-9, points.max() + 1e-9
        return ((places >= low) & (places <= high))[:, 0]
    try:
        return Delaunay(points).find_simplex(places, tol=1e-9) >= 0
    except QhullError:
        return np.zeros(len(places), dtype=bool)


@dataclass(frozen=True)
class QuadraticSurface:
    """A fitted surface on a grid.

    Args:
        points: places that were measured, scaled to [−1, 1], (n, axes).
        grid: places at which the surface is read, (m, axes).
        inside: which of them lie in the convex hull of the points.
        mean: fitted values on the grid (m,).
        sd: residual standard deviation of one point's value.
        degrees: its degrees of freedom.
        basis: the grid's terms in coordinates in which the coefficients' errors are independent with
            variance `sd`² (m, parameters).
    """

    points: Floats
    grid: Floats
    inside: Booleans
    mean: Floats
    sd: float
    degrees: int
    basis: Floats

    @cached_property
    def best(self) -> int:
        """Position of the largest fitted value inside the hull."""
        return int(np.where(self.inside, self.mean, -np.inf).argmax())

    @cached_property
    def band(self) -> tuple[Floats, Floats]:
        """Lower and upper simultaneous limits on the grid (m,)."""
        return self._limits(self.mean, self.basis, self.inside)

    @property
    def maximum(self) -> tuple[float, float, float]:
        """The largest value inside the hull: estimate, low, high."""
        low, high = self.band
        return float(self.mean[self.best]), float(low[self.inside].max()), float(high[self.inside].max())

    def gain(self, reference: Floats) -> tuple[float, float, float]:
        """How far the maximum is above the surface at a reference place (axes,): estimate, low, high."""
        row = np.abs(self.grid - reference).sum(axis=1).argmin()
        rise, basis = self.mean - self.mean[row], self.basis - self.basis[row]
        places = self.inside & (np.linalg.norm(basis, axis=1) > 1e-12)
        low, high = self._limits(rise, basis, places)
        # Staying at the reference gains nothing, so the maximum's gain is at least 0.
        ends = (float(max(end[places].max(), 0.0)) for end in (low, high))
        return float(max(rise[self.best], 0.0)), *ends  # type: ignore[return-value]

    @cached_property
    def plausible(self) -> Booleans:
        """Where the maximum may lie (m,), with 95 % confidence."""
        found = np.zeros(len(self.grid), dtype=bool)
        rows = np.flatnonzero(self.inside)
        scale = np.sqrt(np.random.default_rng(1).chisquare(self.degrees, _LOCATION_DRAWS) / self.degrees)
        noise = np.random.default_rng(2).normal(size=(self.basis.shape[1], _LOCATION_DRAWS)) / scale
        # Cheap bounds of the critical value settle most places: one comparison alone, and Scheffé's.
        terms = self.basis.shape[1]
        smallest = stats.t.ppf(CONFIDENCE, self.degrees)
        largest = np.sqrt(terms * stats.f.ppf(CONFIDENCE, terms, self.degrees))
        for row in rows:
            difference = self.basis[rows] - self.basis[row]
            length = np.linalg.norm(difference, axis=1)
            others = length > 1e-12
            rise = (self.mean[rows] - self.mean[row])[others]
            needed = (rise / (self.sd * length[others])).max(initial=0.0)
            if smallest < needed < largest:
                unit = difference[others] / length[others, None]
                found[row] = needed <= np.quantile((unit @ noise).max(axis=0), CONFIDENCE)
            else:
                found[row] = needed <= smallest
        return found

    def _limits(self, mean: Floats, basis: Floats, places: Booleans) -> tuple[Floats, Floats]:
        length = np.linalg.norm(basis, axis=1)
        unit = basis[places] / length[places, None]
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(basis.shape[1], _BAND_DRAWS))
        scale = np.sqrt(rng.chisquare(self.degrees, _BAND_DRAWS) / self.degrees)
        critical = np.quantile(np.abs(unit @ noise).max(axis=0) / scale, CONFIDENCE)
        half = critical * self.sd * length
        return mean - half, mean + half


def fit_quadratic(points: Floats, values: Floats, grid: Floats) -> QuadraticSurface | None:
    """Fits a second-order surface; None where the points leave fewer than two degrees of freedom.

    Args:
        points: (n, axes), scaled to [−1, 1].
        values: (n,).
        grid: (m, axes).
    """
    terms = second_order_terms(points)
    degrees = len(values) - terms.shape[1]
    if degrees < MIN_DEGREES or np.linalg.matrix_rank(terms) < terms.shape[1]:
        return None
    inside = inside_hull(grid, points)
    orthogonal, triangle = np.linalg.qr(terms)
    coefficients = np.linalg.solve(triangle, orthogonal.T @ values)
    residuals = values - terms @ coefficients
    sd = float(np.sqrt(residuals @ residuals / degrees))
    if sd < 1e-9 or not inside.any():
        return None
    grid_terms = second_order_terms(grid)
    basis = np.linalg.solve(triangle.T, grid_terms.T).T
    return QuadraticSurface(points, grid, inside, grid_terms @ coefficients, sd, degrees, basis)


def difference_interval(
    left: tuple[float, float, float], right: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Left minus right of two independent estimates with intervals (Zou & Donner 2008, MOVER)."""
    (a, a_low, a_high), (b, b_low, b_high) = left, right
    low = a - b - float(np.hypot(a - a_low, b_high - b))
    high = a - b + float(np.hypot(a_high - a, b - b_low))
    return a - b, low, high
