"""Response surfaces of studies whose treatments were drawn from distributions: mIoU over log weight decay and
dropout in each arm, with the maximum, its interval, and where the fit extrapolates.

A point that did not learn (nearer to the floor than to the arm's best value) is left out of the fit and
counted: a second-order surface bends around a cliff, and its maximum would be wrong by several points. Seeds
are averaged per point before the fit, so that what the model cannot represent counts as error and is not
divided by the number of seeds.

The fit is a second-order surface by least squares on one value per point, in coordinates scaled to [−1, 1]
(Box & Draper, *Response Surfaces, Mixtures, and Ridge Analyses*, 2007). Three statements hold together with
95 % confidence if the true surface is of second order within the region of the points:

- *Band*: the surface lies between `low` and `high` at every place of the grid at once. Its critical value is
  the simulated quantile of the largest standardized deviation, which is smaller than Scheffé's.
- *Value of the maximum*: between the largest `low` and the largest `high`. The plain interval at the fitted
  maximum would be too high, because that place was chosen for its value.
- *Gain over the reference*: from the same kind of band over differences.

The location of the maximum is a set: all places that no other place is shown to exceed.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import Delaunay, QhullError

from segstrat.config import REGULARIZERS
from segstrat.formatting import axis_name, format_value, join_words
from study.analysis.answering.stages import ARMS
from study.analysis.cells import tuned_contexts
from study.analysis.intervals import CONFIDENCE
from study.analysis.scores import TrialValues, trial_values
from study.analysis.sections.factorial_fit import MOST_LEVELS
from study.analysis.study import ANSWERING, Context, Study

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Estimate = tuple[float, float, float]

MOST_AXES = 2
GRID_STEPS = {1: 81, 2: 31}
# Positive values that span more than this are read on a logarithmic axis.
LOGARITHMIC_SPAN = 100.0
MIN_DEGREES = 2
_BAND_DRAWS = 4000
_LOCATION_DRAWS = 1000


@dataclass(frozen=True)
class SurfaceAxis:
    """How a treatment is scaled for the fit: linear, or log10(value + offset), then to [−1, 1].

    Args:
        low, high: smallest and largest value in the study.
        offset: what lets 0 be shown on a logarithmic axis, half the smallest positive value; 0 for a linear
            axis.
    """

    axis: str
    low: float
    high: float
    offset: float

    @classmethod
    def of(cls, axis: str, values: pd.Series) -> "SurfaceAxis":
        """The scaling of the values of one axis."""
        low, high = float(values.min()), float(values.max())
        smallest = float(values[values > 0].min())
        logarithmic = low >= 0 and high / smallest > LOGARITHMIC_SPAN
        return cls(axis, low, high, smallest / 2 if logarithmic else 0.0)

    def scale(self, values: Floats) -> Floats:
        """Values of the axis -> [−1, 1]."""
        low, high, x = (self._transform(np.asarray(v, float)) for v in (self.low, self.high, values))
        return 2 * (x - low) / (high - low) - 1

    def unscale(self, scaled: Floats) -> Floats:
        """The inverse of `scale`."""
        low, high = (self._transform(np.asarray(v, float)) for v in (self.low, self.high))
        x = low + (np.asarray(scaled) + 1) / 2 * (high - low)
        return np.maximum(10**x - self.offset, self.low) if self.offset else x

    def _transform(self, values: Floats) -> Floats:
        return np.log10(values + self.offset) if self.offset else values


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


@dataclass(frozen=True)
class ArmSurface:
    """The surface of one arm.

    Args:
        points: a row per point: the axes, `value` (mean over its seeds), `seeds`, `learned`.
        fit: None where too few points learned.
        maximum: value of the maximum inside the sampled region: estimate, low, high.
        location: the maximum's place, and by axis the smallest and largest value that it may have.
        gain: the maximum above the unregularized setting; None where that lies outside the sampled region.
        edges: axes on which the maximum lies at the end of the sampled region.
        coverage: share of the box between the smallest and largest values that the points enclose.
        plausible: share of the sampled region in which the maximum may lie.
    """

    arm: str
    points: pd.DataFrame
    fit: QuadraticSurface | None
    maximum: Estimate | None = None
    location: Mapping[str, Estimate] | None = None
    gain: Estimate | None = None
    edges: tuple[str, ...] = ()
    coverage: float = 0.0
    plausible: float = 1.0


@dataclass(frozen=True)
class ResponseSurfaces:
    """The surfaces of one context.

    Args:
        context: label of the context; empty where the study has one.
        grid: places at which surfaces are read, in the axes' own units (m, axes).
        remaining: maximum of pre-trained minus maximum of raw; None unless both are known.
        adaptive: whether a search chose the points by their values.
    """

    task: str
    context: str
    axes: Sequence[SurfaceAxis]
    grid: Floats
    arms: Sequence[ArmSurface]
    remaining: Estimate | None
    adaptive: bool
    used: TrialValues

    def to_dict(self) -> dict[str, Any]:
        """As `verdict.json` holds them."""
        return {
            "task": self.task,
            "context": self.context,
            "sentences": surface_sentences(self),
            "epochs": self.used.when,
            "points_chosen_by_search": self.adaptive,
            "remaining": _estimate_values(self.remaining),
            "arms": [
                {
                    "arm": arm.arm,
                    "points": len(arm.points),
                    "learned": int(arm.points["learned"].sum()) if "learned" in arm.points else 0,
                    "maximum": _estimate_values(arm.maximum),
                    "gain": _estimate_values(arm.gain),
                    "location": {axis: _estimate_values(at) for axis, at in (arm.location or {}).items()},
                    "at_the_end_of_the_sampled_region": list(arm.edges),
                    "share_of_the_box_inside": arm.coverage,
                    "share_of_the_region_where_the_maximum_may_lie": arm.plausible,
                }
                for arm in self.arms
            ],
        }


def response_surfaces(study: Study, task: str) -> list[ResponseSurfaces]:
    """A surface for each context and arm.

    Returns:
        empty for a grid, and for more than two sampled axes.
    """
    found = (_context_surfaces(study, context) for context in tuned_contexts(study, task))
    return [surfaces for surfaces in found if surfaces is not None]


def _context_surfaces(study: Study, context: Context) -> ResponseSurfaces | None:
    names = [axis for axis in study.axes("treatment") if context.trials[axis].nunique() > MOST_LEVELS]
    if not 0 < len(names) <= MOST_AXES:
        return None
    axes = [SurfaceAxis.of(name, context.trials[name].astype(float)) for name in names]
    steps = np.linspace(-1.0, 1.0, GRID_STEPS[len(names)])
    grid = np.array(list(itertools.product(steps, repeat=len(names))))
    used = trial_values(study, context)
    trials = context.trials.assign(value=used.values)
    if "stage" in trials and (trials["stage"] != ANSWERING).any():
        # Candidates that were trained again on other seeds are not part of the design. A study of one stage
        # has nothing but answering trials.
        trials = trials[trials["stage"] != ANSWERING]
    arms = [
        arm_surface(ARMS[pretrained], of_arm, axes, grid, context.floor or 0.0)
        for pretrained, of_arm in trials.groupby(trials["pretrained"].astype(bool))
    ]
    maxima = {arm.arm: arm.maximum for arm in arms if arm.maximum is not None}
    remaining = difference_interval(maxima[ARMS[True]], maxima[ARMS[False]]) if len(maxima) == 2 else None
    return ResponseSurfaces(
        task=context.task,
        context=context.label,
        axes=axes,
        grid=np.stack([axis.unscale(grid[:, i]) for i, axis in enumerate(axes)], axis=1),
        arms=arms,
        remaining=remaining,
        # Points that are not the same in every arm were proposed from each arm's own outcomes.
        adaptive=_differ(trials, names),
        used=used,
    )


def _differ(trials: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether the arms were trained at different points."""
    points = [set(map(tuple, of_arm[list(axes)].to_numpy())) for _, of_arm in trials.groupby("pretrained")]
    return any(each != points[0] for each in points[1:])


def arm_surface(
    arm: str, trials: pd.DataFrame, axes: Sequence[SurfaceAxis], grid: Floats, floor: float
) -> ArmSurface:
    """The surface of the trials of one arm.

    Args:
        trials: a row per trial with the axes, `seed` and `value`.
        floor: mIoU of the best constant prediction; points nearer to it than to the arm's best value did
            not learn.
        grid: places at which the surface is read, scaled to [−1, 1] (m, axes).
    """
    points = point_means(trials, [axis.axis for axis in axes])
    if points.empty:
        return ArmSurface(arm, points, None)
    points["learned"] = points["value"] > (floor + points["value"].max()) / 2
    learned = points[points["learned"]]
    scaled = np.stack([axis.scale(learned[axis.axis].to_numpy(float)) for axis in axes], axis=1)
    fit = fit_quadratic(scaled, learned["value"].to_numpy(float), grid)
    if fit is None:
        return ArmSurface(arm, points, None)
    place = fit.grid[fit.best]
    location, edges = {}, []
    for i, axis in enumerate(axes):
        possible = fit.grid[fit.plausible, i]
        ends = [place[i], possible.min(), possible.max()] if len(possible) else [place[i]] * 3
        location[axis.axis] = tuple(float(value) for value in axis.unscale(np.array(ends)))
        if _at_end(fit, i):
            edges.append(axis.axis)
    return ArmSurface(
        arm=arm,
        points=points,
        fit=fit,
        maximum=fit.maximum,
        location=location,  # type: ignore[arg-type]
        gain=_gain(fit, axes),
        edges=tuple(edges),
        coverage=float(fit.inside.mean()),
        plausible=float(fit.plausible.sum() / fit.inside.sum()),
    )


def point_means(trials: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The mean of each point over its seeds, after the additive effect of each seed.

    Returns:
        a row per point with a value: the axes, `value` and `seeds`.
    """
    known = trials[trials["value"].notna()]
    if known.empty:
        return pd.DataFrame(columns=[*axes, "value", "seeds"])
    point, labels = pd.factorize(known[list(axes)].apply(tuple, axis=1))
    seed, seeds = pd.factorize(known["seed"])
    # Seed effects sum to zero, so that a point's value is its mean over all seeds.
    blocks = np.vstack([np.eye(len(seeds) - 1), -np.ones((1, len(seeds) - 1))])
    design = np.hstack([np.eye(len(labels))[point], blocks[seed]])
    means = np.linalg.lstsq(design, known["value"].to_numpy(float), rcond=None)[0][: len(labels)]
    table = pd.DataFrame(list(labels), columns=list(axes))
    return table.assign(value=means, seeds=np.bincount(point))


def _at_end(fit: QuadraticSurface, axis: int) -> bool:
    """Whether the sampled region ends at the maximum, in one direction of an axis."""
    place = fit.grid[fit.best]
    others = np.delete(np.arange(fit.grid.shape[1]), axis)
    line = fit.inside & np.isclose(fit.grid[:, others], place[others]).all(axis=1)
    along = fit.grid[line, axis]
    return bool(place[axis] in (along.min(), along.max()))


def _gain(fit: QuadraticSurface, axes: Sequence[SurfaceAxis]) -> Estimate | None:
    if any(axis.axis not in REGULARIZERS for axis in axes):
        return None
    reference = np.array([float(axis.scale(np.zeros(1))[0]) for axis in axes])
    row = int(np.abs(fit.grid - reference).sum(axis=1).argmin())
    near = np.allclose(fit.grid[row], reference, atol=0.1)
    return fit.gain(reference) if near and fit.inside[row] else None


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


def surface_sentences(surfaces: ResponseSurfaces) -> list[str]:
    """The maximum of each arm, where it may lie, what it gains, and where nothing is known."""
    sentences = [sentence for arm in surfaces.arms for sentence in _arm_sentences(arm)]
    if surfaces.remaining is not None:
        sentences.append(
            f"The maximum of pre-trained is {points_interval(surfaces.remaining)} above that of raw."
        )
    if not surfaces.used.final:
        sentences.append(f"Trials are compared {surfaces.used.when}: interim values, not final ones.")
    if surfaces.adaptive:
        sentences.append(
            "The points were chosen by a search from earlier outcomes. They crowd where values were high, so "
            "the surface is well determined there and extrapolates elsewhere."
        )
    return sentences


def points_interval(estimate: Estimate) -> str:
    """`7.3 points (95 % interval 4.7 to 10.1)`."""
    middle, low, high = (f"{100 * value:.1f}".replace("-", "−") for value in estimate)
    return f"{middle} points (95 % interval {low} to {high})"


def _rounded(value: float) -> str:
    return format_value(float(f"{value:.2g}"))


def _arm_sentences(arm: ArmSurface) -> list[str]:
    name = arm.arm.capitalize()
    lost = int((~arm.points["learned"]).sum()) if "learned" in arm.points else 0
    if arm.maximum is None or arm.location is None:
        return [f"{name}: {len(arm.points) - lost} points that learned are too few for a surface."]
    place = join_words([f"{axis_name(axis)} {_rounded(at[0])}" for axis, at in arm.location.items()])
    estimate, low, high = (f"{100 * value:.1f}" for value in arm.maximum)
    text = f"{name}: the fitted maximum is {estimate} % (95 % interval {low} to {high}) at {place}"
    if arm.gain is not None:
        text += f", {points_interval(arm.gain)} above the unregularized setting"
    sentences = [f"{text}."]
    ranges = join_words(
        [f"{axis_name(axis)} {_rounded(a)} to {_rounded(b)}" for axis, (_, a, b) in arm.location.items()]
    )
    sentences.append(
        f"It may lie in {100 * arm.plausible:.0f} % of the sampled region, within {ranges}. The points "
        f"enclose "
        f"{100 * arm.coverage:.0f} % of the box; beyond them the surface would extrapolate."
    )
    if arm.edges:
        names = join_words([axis_name(axis) for axis in arm.edges])
        sentences.append(
            f"The maximum is at the end of the sampled region in {names}, so the true one may lie outside."
        )
    if lost:
        sentences.append(
            f"{lost} point{'s' * (lost > 1)} did not learn and {'are' if lost > 1 else 'is'} left out."
        )
    return sentences


def _estimate_values(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else dict(zip(("estimate", "low", "high"), estimate, strict=True))
