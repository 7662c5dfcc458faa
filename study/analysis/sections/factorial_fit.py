"""Main effects and two-way interactions of a factorial design by least squares, with a pooled error.

Every combination of levels (a *cell*) is trained, so each factor's effect is averaged over all levels of the
others: a 2⁴ design measures four effects, each from all sixteen trials. Effects are differences of marginal
means, which give every cell the same weight however many trials it holds.

The error of an effect is pooled over the whole design, in one of two ways:

- With several seeds: the seed × cell residual, after an additive effect of each seed (block). Where effects
  vary over seeds by more than that, it is the interaction of the seed with effects of the same order.
- With one seed: interactions. A main effect is compared with all interactions, a two-way interaction with
  those of three and more factors. An interaction that is real enlarges this error, so it costs power and
  never adds false alarms (D. C. Montgomery, *Design and Analysis of Experiments*, chapter 6).

`benchmarks/simulate_effects.py` compares this with Lenth's method (1989) and reports coverage.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from study.analysis.intervals import CONFIDENCE

Floats = NDArray[np.float64]
Integers = NDArray[np.int_]
Kind = Literal["main", "interaction"]

COLUMNS = ("kind", "axis", "level", "other_axis", "other_level", "estimate", "low", "high", "p", "adjusted_p")
# An axis with more levels was drawn from a distribution, not from a grid.
MOST_LEVELS = 12
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
        """Whether intervals can be computed; an exact fit does not make them certain."""
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


@dataclass(frozen=True)
class Factor:
    """An axis of the design.

    Args:
        levels: its values; effects are differences from the first one, the weakest.
    """

    axis: str
    levels: tuple[Any, ...]


@dataclass(frozen=True)
class FactorialFit:
    """Effects of one response.

    Args:
        table: a row per effect, columns `COLUMNS`; a main effect has no other axis. Estimates are in the
            unit of the values, NaN where the trials do not determine them; `adjusted_p` is Holm's over the
            effects of the kind.
        errors: the pooled error of each kind.
    """

    table: pd.DataFrame
    errors: dict[Kind, PooledError]


@dataclass(frozen=True)
class FactorialDesign:
    """Which trials a factorial study has, and how their values become effects.

    Args:
        effects: names of the effects of each kind: `kind axis level other_axis other_level`.
        models: their model, by kind; a design of one factor has no interactions.
    """

    effects: Mapping[Kind, Sequence[Mapping[str, Any]]]
    models: Mapping[Kind, EffectModel]

    def fit(self, y: Floats) -> FactorialFit:
        """The effects in values (trials,)."""
        tables, errors = [], {}
        for kind, model in self.models.items():
            numbers, errors[kind] = model.estimates(y)
            adjusted = {"adjusted_p": holm(numbers["p"])}
            tables.append(pd.DataFrame(self.effects[kind]).assign(**numbers, **adjusted)[list(COLUMNS)])
        return FactorialFit(pd.concat(tables, ignore_index=True), errors)


def fit_factorial(values: pd.DataFrame, factors: Sequence[Factor]) -> FactorialFit:
    """Effects of all factors and of all pairs of factors.

    Args:
        values: a row per trial with a column for each factor's axis, `seed` and `value`; rows without a value
            are left out, so the design may be incomplete.
    """
    known = values[values["value"].notna()]
    return factorial_design(known, factors).fit(known["value"].to_numpy(float))


def factorial_design(trials: pd.DataFrame, factors: Sequence[Factor]) -> FactorialDesign:
    """The design of trials with a column for each factor's axis and `seed`; at least one factor."""
    cells = np.array(list(itertools.product(*(range(len(factor.levels)) for factor in factors))))
    number = {tuple(cell): index for index, cell in enumerate(cells)}
    levels = [[factor.levels.index(level) for level in trials[factor.axis]] for factor in factors]
    cell_of_trial = np.array([number[cell] for cell in zip(*levels, strict=True)], dtype=int)
    seed_of_trial = pd.factorize(trials["seed"])[0]
    effects: dict[Kind, Sequence[Mapping[str, Any]]] = {}
    models: dict[Kind, EffectModel] = {}
    kinds: tuple[tuple[Kind, int], ...] = (("main", 1), ("interaction", 2))
    for kind, order in kinds:
        rows, contrasts = _contrasts(factors, cells, kind)
        if rows:
            effects[kind] = rows
            models[kind] = _model(factors, cells, contrasts, cell_of_trial, seed_of_trial, order)
    return FactorialDesign(effects, models)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Holm's step-down adjusted p-values (1979); NaN entries are not counted and stay NaN."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = [index for index in np.argsort(p) if np.isfinite(p[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _model(
    factors: Sequence[Factor],
    cells: Integers,
    contrasts: Floats,
    cell_of_trial: Integers,
    seed_of_trial: Integers,
    order: int,
) -> EffectModel:
    """The cell-means model where seeds replicate its cells, otherwise one with interactions up to `order`."""
    seeds = int(seed_of_trial.max()) + 1 if len(seed_of_trial) else 0
    blocks = np.eye(max(seeds, 1))[seed_of_trial][:, 1:]
    nothing = np.zeros((len(contrasts), blocks.shape[1]))
    if seeds > 1:
        design = np.hstack([np.eye(len(cells))[cell_of_trial], blocks])
        weights = effect_weights(design, np.hstack([contrasts, nothing]))
        # Interactions of the seed with effects of a lower order do not belong to the error of this order.
        pooled, refined = (
            orthonormal_basis(
                np.hstack([design, _by_seed(_terms(factors, cells, up_to)[cell_of_trial], blocks)])
            )
            for up_to in (order - 1, order)
        )
        if len(pooled) - pooled.shape[1] >= MIN_DEGREES and np.isfinite(weights).all():
            kind = "main effects" if order == 1 else "two-way interactions"
            sources = (f"seed × cell over {seeds} seeds", f"seed × {kind} over {seeds} seeds")
            return EffectModel(weights, pooled, refined, sources)
    terms = _terms(factors, cells, order)
    design = np.hstack([terms[cell_of_trial], blocks])
    source = "all interactions" if order == 1 else "interactions of three and more factors"
    if seeds > 1:
        source += f", {seeds} seeds"
    weights = effect_weights(design, np.hstack([contrasts @ terms, nothing]))
    return EffectModel(weights, orthonormal_basis(design), None, (source, ""))


def _by_seed(terms: Floats, blocks: Floats) -> Floats:
    """Products of terms (trials, m) and seed blocks (trials, n): (trials, m × n)."""
    return (terms[:, :, None] * blocks[:, None, :]).reshape(len(terms), -1)


def _terms(factors: Sequence[Factor], cells: Integers, order: int) -> Floats:
    """Intercept, levels and their products up to `order` factors: (cells, parameters)."""
    dummies = [np.eye(len(factor.levels))[cells[:, column]][:, 1:].T for column, factor in enumerate(factors)]
    columns = [np.ones(len(cells))]
    for size in range(1, order + 1):
        for chosen in itertools.combinations(dummies, size):
            columns += [np.prod(parts, axis=0) for parts in itertools.product(*chosen)]
    return np.stack(columns, axis=1)


def _contrasts(factors: Sequence[Factor], cells: Integers, kind: Kind) -> tuple[list[dict[str, Any]], Floats]:
    """What each effect is called, and its weights on the cells' means (effects, cells)."""
    rows: list[dict[str, Any]] = []
    differences = []
    for column, factor in enumerate(factors):
        size = len(factor.levels)
        for level in range(1, size):
            rows.append({"axis": factor.axis, "level": factor.levels[level]})
            sign = (cells[:, column] == level).astype(float) - (cells[:, column] == 0)
            # Divided by the number of cells this is a difference of two levels' means.
            differences.append(size * sign)
    if kind == "main":
        nothing = {"other_axis": None, "other_level": None}
        return [{"kind": kind} | row | nothing for row in rows], np.array(differences) / len(cells)
    pairs, products = [], []
    for (row, left), (other, right) in itertools.combinations(zip(rows, differences, strict=True), 2):
        if row["axis"] != other["axis"]:
            names = {"other_axis": other["axis"], "other_level": other["level"]}
            pairs.append({"kind": kind} | row | names)
            products.append(left * right)
    return pairs, np.array(products) / len(cells)


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
