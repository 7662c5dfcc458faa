"""Distributions of sampled axes, and the points that are known before a space runs."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segstrat.config import REGULARIZERS
from segstrat.errors import UserError
from study.planning.space import Space


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A uniform distribution over `low` to `high`, both included.

    Args:
        log: uniform on a log scale.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def quantile(self, u: float) -> float | int:
        """The value at `u` in [0, 1); floats are rounded to four significant digits."""
        # Each whole number owns an interval of length one, on a log scale too.
        low, high = (self.low, self.high + 1) if self.integer else (self.low, self.high)
        value = math.exp(math.log(low) + u * math.log(high / low)) if self.log else low + u * (high - low)
        return min(int(value), int(self.high)) if self.integer else self.rounded(value)

    def rounded(self, value: float) -> float | int:
        """A drawn value as trials use it."""
        return int(value) if self.integer else float(f"{value:.{DIGITS}g}")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


# With SEARCH = "tpe" so many quasi-random points, the same in every arm, come before Optuna's proposals.
STARTUP_POINTS = 8


def space_points(space: Space) -> list[dict[str, Any]]:
    """The points of a space that are known before it runs: the grid, times the quasi-random draws."""
    grid = itertools.product(*([(axis, value) for value in values] for axis, values in space.axes.items()))
    known = min(space.samples, STARTUP_POINTS) if space.search == "tpe" else space.samples
    draws = sampled_points(space.sampled, known) if space.sampled else [{}]
    return [dict(point) | draw for point in grid for draw in draws]


def sampled_points(sampled: Mapping[str, Distribution], samples: int) -> list[dict[str, Any]]:
    """Quasi-random points; where only regularizers are drawn, the first point is that without any.

    Gap closure is measured from the unregularized setting, which a distribution never draws.
    """
    if set(sampled) <= set(REGULARIZERS):
        return [dict.fromkeys(sampled, 0.0), *quasi_random(sampled, samples - 1)]
    return quasi_random(sampled, samples)


def quasi_random(sampled: Mapping[str, Distribution], samples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence.

    The same points are used for every arm and seed, so that a map's cells stay paired.
    """
    from scipy.stats import qmc

    power = math.ceil(math.log2(max(samples, 1)))
    unit = qmc.Sobol(len(sampled), scramble=True, rng=seed).random_base2(power)
    return [
        {axis: drawn.quantile(u) for (axis, drawn), u in zip(sampled.items(), row, strict=True)}
        for row in unit[:samples].tolist()
    ]


# Ray Tune's domain and sampler -> (log scale, whole numbers). A space file imports Ray; planning does not.
KINDS = {
    ("Float", "_Uniform"): (False, False),
    ("Float", "_LogUniform"): (True, False),
    ("Integer", "_Uniform"): (False, True),
    ("Integer", "_LogUniform"): (True, True),
}
DIGITS = 4


def read_distribution(axis: str, domain: Any) -> Distribution:
    """The `Distribution` of one of Ray Tune's domains.

    Raises:
        UserError: for a domain other than uniform, loguniform, randint and lograndint.
    """
    kind = type(domain).__name__, type(getattr(domain, "sampler", None)).__name__
    if kind[0] == "Categorical":
        raise UserError(
            f"axis {axis!r} is a tune.choice, which draws values at random; list the values that are "
            f"compared, tune.grid_search({list(domain.categories)!r})"
        )
    if kind not in KINDS:
        raise UserError(
            f"axis {axis!r}: expected tune.uniform, tune.loguniform, tune.randint or tune.lograndint, "
            f"not {domain!r}"
        )
    log, integer = KINDS[kind]
    # Ray excludes the upper bound of whole numbers.
    high = domain.upper - 1 if integer else domain.upper
    if high < domain.lower:
        raise UserError(
            f"axis {axis!r} is drawn from {domain.lower!r} to {domain.upper!r}; give the smaller bound first"
        )
    return Distribution(low=domain.lower, high=high, log=log, integer=integer)
