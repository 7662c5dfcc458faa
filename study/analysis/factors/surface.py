"""Response surfaces of studies whose treatments were drawn from distributions: mIoU over log weight decay and
dropout in each arm, with the maximum, its interval, and where the fit extrapolates.

A point that did not learn (nearer to the floor than to the arm's best value) is left out of the fit and
counted: a second-order surface bends around a cliff, and its maximum would be wrong by several points. Seeds
are averaged per point before the fit, so that what the model cannot represent counts as error and is not
divided by the number of seeds.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segstrat.config import REGULARIZERS
from study.analysis.factors.effects import MOST_LEVELS, PRETRAINED, RAW
from study.analysis.factors.quadratic import QuadraticSurface, difference_interval, fit_quadratic
from study.analysis.study import Context, Study
from study.analysis.trial_values import TrialValues, trial_values
from study.analysis.tuned import tuned_contexts

Floats = NDArray[np.float64]
Estimate = tuple[float, float, float]

MOST_AXES = 2
ANSWERING = "answering"
GRID_STEPS = {1: 81, 2: 31}
# Positive values that span more than this are read on a logarithmic axis.
LOGARITHMIC_SPAN = 100.0


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
        # Candidates that were trained again on other seeds are no part of the design. A study of one stage
        # has nothing but answering trials.
        trials = trials[trials["stage"] != ANSWERING]
    arms = [
        arm_surface(PRETRAINED if pretrained else RAW, of_arm, axes, grid, context.floor or 0.0)
        for pretrained, of_arm in trials.groupby(trials["pretrained"].astype(bool))
    ]
    maxima = {arm.arm: arm.maximum for arm in arms if arm.maximum is not None}
    remaining = difference_interval(maxima[PRETRAINED], maxima[RAW]) if len(maxima) == 2 else None
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
