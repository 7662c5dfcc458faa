"""The points of a search space that are known before it runs: the grid, times quasi-random draws."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from segstrat.config import REGULARIZERS
from study.planning.distribution import Distribution
from study.planning.space import Space

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
