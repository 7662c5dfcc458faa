"""How the planned looks of a study share its error, so that an answer that is looked at often still holds.

A study that is looked at after every few seeds errs more often than one that is looked at once. The error
is therefore fixed for the whole sequence of looks and *spent* over it (Lan & DeMets 1983; Jennison & Turnbull
2000, chapters 7 and 9). Looks depend on the number of seeds only, never on what was found.

Two families: by a power of the fraction of seeds (the power family of Kim & DeMets 1987), and in the
manner of O'Brien & Fleming (1979), almost all of it late. With three to six seeds Student's t has heavy
tails, and the tiny early share of the second family makes intervals so wide that hardly any effect is
settled there (docs/simulations.md).
"""

import functools
import math
from typing import Literal

import numpy as np
from scipy import optimize, stats

_GRID = 1001
_REACH = 8.0  # standard deviations; the normal density beyond is below 1e-15


Spending = Literal["power", "obrien-fleming"]


EXPONENT = 1.75


def spent_error(
    fraction: float, error: float, spending: Spending = "power", exponent: float = EXPONENT
) -> float:
    """Cumulative one-sided error after a fraction of the planned seeds.

    Args:
        fraction: seeds so far / planned seeds, from 0 to 1.
        error: one-sided error of the whole study, e.g. 0.025 for the ends of a 95 % interval.
        exponent: of the power family.
    """
    fraction = min(max(fraction, 0.0), 1.0)
    if spending == "power":
        return error * fraction**exponent
    if fraction == 0:
        return 0.0
    z = float(stats.norm.isf(error / 2))
    return 2 * float(stats.norm.sf(z / math.sqrt(fraction)))


@functools.cache
def tail_probabilities(looks: tuple[int, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """The one-sided tail probability that is tested at each look.

    A test at look k that rejects where its own p-value is below the k-th number rejects at or before look k
    with probability `spent[k]` under the null hypothesis. The numbers come from normal
    statistics; taken as tail probabilities of Student's t they hold nearly for few seeds too
    (Jennison & Turnbull 2000, section 11.2; simulated in docs/simulations.md).

    Args:
        looks: seeds at each look, increasing.
        spent: cumulative one-sided error after each look, not decreasing.
    """
    probabilities = []
    # `grid` and `density` describe the sum of the seeds' standardized values among studies still running.
    grid, density = np.zeros(1), np.ones(1)
    weights = np.ones(1)
    before_seeds, before_spent = 0, 0.0
    for seeds, cumulative in zip(looks, spent, strict=True):
        step = math.sqrt(seeds - before_seeds)
        increment = cumulative - before_spent
        boundary = _boundary(grid, density * weights, step, increment, seeds)
        probabilities.append(float(stats.norm.sf(boundary / math.sqrt(seeds))))
        reach = _REACH * math.sqrt(seeds)
        after = np.linspace(-reach, min(boundary, reach), _GRID)
        kernel = stats.norm.pdf((after[:, None] - grid[None, :]) / step) / step
        density = kernel @ (density * weights)
        grid = after
        weights = np.full(_GRID, grid[1] - grid[0])
        weights[[0, -1]] /= 2
        before_seeds, before_spent = seeds, cumulative
    return tuple(probabilities)


def _boundary(grid: np.ndarray, mass: np.ndarray, step: float, increment: float, seeds: int) -> float:
    """Where the sum must lie so that a share `increment` of all studies crosses at this look."""
    top = 2 * _REACH * math.sqrt(seeds)

    def excess(boundary: float) -> float:
        return float(mass @ stats.norm.sf((boundary - grid) / step)) - increment

    if excess(top) >= 0:
        return top
    return float(optimize.brentq(excess, -top, top, xtol=1e-10))


@functools.cache
def spent_errors(
    looks: tuple[int, ...],
    ends: tuple[int, ...],
    error: float,
    spending: Spending = "power",
    exponent: float = EXPONENT,
) -> tuple[float, ...]:
    """Cumulative two-sided error after each look.

    Each extension of a finished plan spends at most half as much again as the plan before it, so that any
    number of extensions together at most doubles the error.

    Args:
        looks: seeds at each look, increasing.
        ends: seeds at the end of each plan, of which each but the first extends the one before.
        error: two-sided error of the first plan.
    """
    spent: list[float] = []
    start, base, budget = 0, 0.0, error
    for end in ends:
        for seeds in (look for look in looks if start < look <= end):
            fraction = (seeds - start) / (end - start)
            spent.append(base + 2 * spent_error(fraction, budget / 2, spending, exponent))
        start, base, budget = end, base + budget, budget / 2
    return tuple(spent)
