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
from typing import Any, Literal, Self

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
class Pattern:
    """Seeds with trials of the same cells.

    Args:
        rows: positions of the trials (seeds, trials of a seed).
        own: orthonormal basis of what each of these seeds fits by itself (trials of a seed, rank).
        shared: the columns that all seeds share, without what a seed's own terms fit (trials of a seed, n).
    """

    rows: Integers
    own: Floats
    shared: Floats

    def rest(self, y: Floats) -> Floats:
        """What a seed's own terms leave of values (trials,): (seeds, trials of a seed)."""
        values = y[self.rows]
        return values - values @ self.own @ self.own.T


@dataclass(frozen=True)
class SeedwiseSpan:
    """Least squares of columns that all seeds share and of further ones that each seed has to itself.

    The own terms of a seed are projected out of its trials, and what is left of the shared columns is fitted
    to what is left of the values (Frisch, Waugh and Lovell). Seeds with the same cells are projected alike,
    so thousands of them cost little more than one, where the columns of all seeds in one matrix would make
    a decomposition of trials × trials.

    Args:
        patterns: of all trials.
        inverse: pseudo-inverse of the patterns' shared columns, each weighted by the root of its seeds,
            (n, trials of all patterns).
        rank: of all columns together.
    """

    patterns: Sequence[Pattern]
    inverse: Floats
    rank: int

    @classmethod
    def of(cls, shared: Floats, own: Floats, cell_of_trial: Integers, seed_of_trial: Integers) -> Self:
        """The span of columns that are functions of a trial's cell.

        Args:
            shared, own: (cells, columns), of any rank.
        """
        patterns = []
        for cells, rows in _patterns(cell_of_trial, seed_of_trial):
            basis = _basis(own[cells])
            columns = shared[cells]
            patterns.append(Pattern(rows, basis, columns - basis @ (basis.T @ columns)))
        # What the own terms of a seed span entirely leaves rounding errors, which are no columns.
        stacked = np.vstack([each.shared * np.sqrt(len(each.rows)) for each in patterns] or [shared[:0]])
        scale = float(np.abs(shared).max(initial=0.0)) * np.sqrt(max(len(seed_of_trial), 1))
        left, values, right = np.linalg.svd(stacked, full_matrices=False)
        kept = values > ROUNDING * scale
        inverse = (right[kept].T / values[kept]) @ left[:, kept].T
        own_rank = sum(len(each.rows) * each.own.shape[1] for each in patterns)
        return cls(patterns, inverse, own_rank + int(kept.sum()))

    def residual(self, y: Floats) -> tuple[float, int]:
        """Sum of squares beyond the span of values (trials,), and its degrees of freedom."""
        rest = [each.rest(y) for each in self.patterns]
        means = [values.mean(axis=0) * np.sqrt(len(values)) for values in rest]
        fitted = self.inverse @ np.concatenate([*means, y[:0]])
        squares = [
            np.square(values - each.shared @ fitted).sum()
            for each, values in zip(self.patterns, rest, strict=True)
        ]
        return float(sum(squares)), len(y) - self.rank

    def weights(self, wanted: Floats) -> Floats:
        """Least-squares estimates of combinations of the shared parameters, as weights on the values.

        Args:
            wanted: (effects, n).

        Returns:
            (effects, trials); NaN rows where the trials do not determine an effect.
        """
        stacked = [each.shared * np.sqrt(len(each.rows)) for each in self.patterns]
        on_means = wanted @ self.inverse
        # An effect can be estimated if and only if it is a combination of the design's rows.
        rebuilt = on_means @ np.vstack([*stacked, np.zeros((0, wanted.shape[1]))])
        determined = np.abs(rebuilt - wanted).max(axis=1) < ROUNDING
        found = np.zeros((len(wanted), sum(each.rows.size for each in self.patterns)))
        start = 0
        for each in self.patterns:
            seeds, size = each.rows.shape
            of_seed = on_means[:, start : start + size] / np.sqrt(seeds)
            found[:, each.rows] = of_seed[:, None, :]
            start += size
        return np.where(determined[:, None], found, np.nan)


@dataclass(frozen=True)
class EffectModel:
    """Effects of one kind in one design.

    Args:
        weights: effects = weights @ values, (effects, trials); NaN rows cannot be estimated.
        pooled: the terms whose residual is the error.
        refined: those terms and the interactions of the seed with this kind of effect; None with one seed.
        sources: the error in words, for `pooled` and for `refined`.
    """

    weights: Floats
    pooled: SeedwiseSpan
    refined: SeedwiseSpan | None
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
        total, degrees = self.pooled.residual(y)
        if self.refined is not None:
            rest, rest_degrees = self.refined.residual(y)
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


def fit_factorial(
    values: pd.DataFrame, factors: Sequence[Factor], designs: dict[bytes, FactorialDesign] | None = None
) -> FactorialFit:
    """Effects of all factors and of all pairs of factors.

    Args:
        values: a row per trial with a column for each factor's axis, `seed` and `value`; rows without a value
            are left out, so the design may be incomplete.
        designs: of earlier calls with the same rows but for `value`, and filled here: which trials have a
            value decides all of a design, which takes longer than its effects.
    """
    designs = {} if designs is None else designs
    known = values["value"].notna()
    key = known.to_numpy().tobytes()
    if key not in designs:
        designs[key] = factorial_design(values[known], factors)
    return designs[key].fit(values.loc[known, "value"].to_numpy(float))


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
    trials = (cell_of_trial, seed_of_trial)
    each_seed = _terms(factors, cells, 0)
    if seeds > 1:
        means = np.eye(len(cells))
        weights = SeedwiseSpan.of(means, each_seed, *trials).weights(contrasts)
        # Interactions of the seed with effects of a lower order do not belong to the error of this order.
        pooled, refined = (
            SeedwiseSpan.of(means, _terms(factors, cells, up_to), *trials) for up_to in (order - 1, order)
        )
        if len(cell_of_trial) - pooled.rank >= MIN_DEGREES and np.isfinite(weights).all():
            kind = "main effects" if order == 1 else "two-way interactions"
            sources = (f"seed × cell over {seeds} seeds", f"seed × {kind} over {seeds} seeds")
            return EffectModel(weights, pooled, refined, sources)
    terms = _terms(factors, cells, order)
    source = "all interactions" if order == 1 else "interactions of three and more factors"
    if seeds > 1:
        source += f", {seeds} seeds"
    span = SeedwiseSpan.of(terms, each_seed, *trials)
    return EffectModel(span.weights(contrasts @ terms), span, None, (source, ""))


def _patterns(cell_of_trial: Integers, seed_of_trial: Integers) -> list[tuple[Integers, Integers]]:
    """Cells of a seed, and the positions of their trials in each seed that has these: (seeds, cells)."""
    order = np.lexsort((cell_of_trial, seed_of_trial))
    ends = np.flatnonzero(np.diff(seed_of_trial[order])) + 1
    found: dict[bytes, list[Integers]] = {}
    for rows in np.split(order, ends) if len(order) else ():
        found.setdefault(cell_of_trial[rows].tobytes(), []).append(rows)
    return [(cell_of_trial[seeds[0]], np.stack(seeds)) for seeds in found.values()]


def _basis(columns: Floats) -> Floats:
    """Orthonormal basis of the span of columns (trials, n): (trials, rank)."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > ROUNDING * values.max(initial=0.0)]


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
