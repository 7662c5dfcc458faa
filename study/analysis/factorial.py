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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Kind = Literal["main", "interaction"]

CONFIDENCE = 0.95
# As elsewhere: fewer degrees of freedom say next to nothing about the spread.
MIN_DEGREES = 2
COLUMNS = ("kind", "axis", "level", "other_axis", "other_level", "estimate", "low", "high", "p", "adjusted_p")
ROUNDING = 1e-9
# A component of the error is pooled unless its F test rejects at this level (Bancroft 1964).
POOLING_LEVEL = 0.25


@dataclass(frozen=True)
class Factor:
    """An axis of the design.

    Args:
        levels: its values; effects are differences from the first one, the weakest.
    """

    axis: str
    levels: tuple[Any, ...]


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


def fit_factorial(values: pd.DataFrame, factors: Sequence[Factor]) -> FactorialFit:
    """Effects of all factors and of all pairs of factors.

    Args:
        values: a row per trial with a column for each factor's axis, `seed` and `value`; rows without a value
            are left out, so the design may be incomplete.
    """
    known = values[values["value"].notna()]
    cells = list(itertools.product(*(range(len(factor.levels)) for factor in factors)))
    number = {cell: index for index, cell in enumerate(cells)}
    levels = [
        [factor.levels.index(level) for level in known[factor.axis]]
        for factor in factors  # (factors, trials)
    ]
    cell_of_trial = np.array([number[cell] for cell in zip(*levels, strict=True)], dtype=int)
    seed_of_trial = pd.factorize(known["seed"])[0]
    y = known["value"].to_numpy(float)
    tables, errors = [], {}
    for kind, order in (("main", 1), ("interaction", 2)):
        rows, contrasts = _contrasts(factors, cells, kind)
        if not rows:
            continue
        model = _model(factors, cells, contrasts, cell_of_trial, seed_of_trial, order)
        errors[kind] = model.error(y)
        tables.append(_effect_rows(rows, model.weights, y, errors[kind]))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
    return FactorialFit(table, errors)  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class _Model:
    """A least-squares fit: linear in the trials' values.

    Args:
        weights: effects = weights @ values, (effects, trials); NaN rows cannot be estimated.
        pooled: design whose residual is the error, (trials, parameters).
        refined: that design and the interactions of the seed with this kind of effect; None with one seed.
        sources: the error in words, for `pooled` and for `refined`.
    """

    weights: Floats
    pooled: Floats
    refined: Floats | None
    sources: tuple[str, str]

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


def _residual(design: Floats, y: Floats) -> tuple[float, int]:
    """Sum of squares and degrees of freedom that a design leaves."""
    if not len(y):
        return 0.0, 0
    residuals = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(residuals @ residuals), len(y) - int(np.linalg.matrix_rank(design))


def _model(
    factors: Sequence[Factor],
    cells: Sequence[tuple[int, ...]],
    contrasts: Floats,
    cell_of_trial: NDArray[np.int_],
    seed_of_trial: NDArray[np.int_],
    order: int,
) -> _Model:
    """The cell-means model where seeds replicate its cells, otherwise one with interactions up to `order`."""
    seeds = int(seed_of_trial.max()) + 1 if len(seed_of_trial) else 0
    blocks = np.eye(max(seeds, 1))[seed_of_trial][:, 1:]
    if seeds > 1:
        design, weights = _fit(np.eye(len(cells)), contrasts, cell_of_trial, blocks)
        kind = "main effects" if order == 1 else "two-way interactions"
        sources = (f"seed × cell over {seeds} seeds", f"seed × {kind} over {seeds} seeds")
        lower, upper = (
            np.hstack(
                [
                    design,
                    *(
                        column[:, None] * blocks
                        for column in _terms(factors, cells, up_to).T[:, cell_of_trial]
                    ),
                ]
            )
            for up_to in (order - 1, order)
        )
        model = _Model(weights, lower, upper, sources)
        if _residual(lower, np.zeros(len(cell_of_trial)))[1] >= MIN_DEGREES and np.isfinite(weights).all():
            return model
    source = "all interactions" if order == 1 else "interactions of three and more factors"
    if seeds > 1:
        source += f", {seeds} seeds"
    design, weights = _fit(_terms(factors, cells, order), contrasts, cell_of_trial, blocks)
    return _Model(weights, design, None, (source, ""))


def _fit(
    terms: Floats, contrasts: Floats, cell_of_trial: NDArray[np.int_], blocks: Floats
) -> tuple[Floats, Floats]:
    """Least squares on terms (cells, parameters) and seed blocks (trials, seeds − 1): design and weights."""
    design = np.hstack([terms[cell_of_trial], blocks])
    wanted = np.hstack([contrasts @ terms, np.zeros((len(contrasts), blocks.shape[1]))])
    inverse = np.linalg.pinv(design)
    # An effect can be estimated if and only if it is a combination of the design's rows.
    determined = np.abs(wanted @ inverse @ design - wanted).max(axis=1) < ROUNDING
    weights = np.where(determined[:, None], wanted @ inverse, np.nan)
    return design, weights


def _terms(factors: Sequence[Factor], cells: Sequence[tuple[int, ...]], order: int) -> Floats:
    """Intercept, levels and their products up to `order` factors: (cells, parameters)."""
    index = np.array(cells)
    dummies = [np.eye(len(factor.levels))[index[:, column]][:, 1:].T for column, factor in enumerate(factors)]
    columns = [np.ones(len(cells))]
    for size in range(1, order + 1):
        for chosen in itertools.combinations(dummies, size):
            columns += [np.prod(parts, axis=0) for parts in itertools.product(*chosen)]
    return np.stack(columns, axis=1)


def _contrasts(
    factors: Sequence[Factor], cells: Sequence[tuple[int, ...]], kind: str
) -> tuple[list[dict[str, Any]], Floats]:
    """What each effect is called, and its weights on the cells' means (effects, cells)."""
    index = np.array(cells)
    rows: list[dict[str, Any]] = []
    differences = []
    for column, factor in enumerate(factors):
        size = len(factor.levels)
        for level in range(1, size):
            rows.append({"axis": factor.axis, "level": factor.levels[level]})
            sign = (index[:, column] == level).astype(float) - (index[:, column] == 0)
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


def _effect_rows(
    rows: Sequence[dict[str, Any]], weights: Floats, y: Floats, error: PooledError
) -> pd.DataFrame:
    """Estimates with intervals and p-values, in the order of `COLUMNS`."""
    estimates = weights @ y if len(y) else np.full(len(rows), np.nan)
    table = pd.DataFrame(rows)
    table["estimate"] = estimates
    if error.known:
        errors = error.sd * np.linalg.norm(weights, axis=1)
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, error.degrees) * errors
        table["low"], table["high"] = estimates - half, estimates + half
        table["p"] = 2 * stats.t.sf(np.abs(estimates) / errors, error.degrees)
    else:
        table["low"] = table["high"] = table["p"] = np.nan
    table["adjusted_p"] = holm(table["p"].to_numpy(float))
    return table[list(COLUMNS)]
