"""How the answering stage is planned: the looks, the margin, the error rates, when a candidate is dropped.

Everything here is fixed before the first answering trial and recorded in the manifest, so that a resumed
study makes the same decisions again.

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import optimize, stats

from segstrat.errors import UserError

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


def look_seeds(max_seeds: int, fractions: Sequence[float], fewest: int) -> tuple[int, ...]:
    """Seeds at each look: fractions of `max_seeds`, at least `fewest`, without repetition."""
    counts = [max(fewest, round(fraction * max_seeds)) for fraction in fractions]
    return tuple(sorted({min(count, max_seeds) for count in counts} | {max_seeds}))


FEWEST_SEEDS = 3
LOOK_FRACTIONS = (3 / 26, 4 / 26, 5 / 26, 6 / 26, 8 / 26, 12 / 26, 18 / 26, 1.0)


@functools.cache
def _spent(
    looks: tuple[int, ...], ends: tuple[int, ...], error: float, spending: Spending, exponent: float
) -> tuple[float, ...]:
    spent: list[float] = []
    start, base, budget = 0, 0.0, error
    for end in ends:
        for seeds in (look for look in looks if start < look <= end):
            fraction = (seeds - start) / (end - start)
            spent.append(base + 2 * spent_error(fraction, budget / 2, spending, exponent))
        start, base, budget = end, base + budget, budget / 2
    return tuple(spent)


@dataclass(frozen=True, kw_only=True)
class AnsweringDesign:
    """The plan of the answering stage. The defaults are what docs/simulations.md measures.

    Args:
        max_seeds: answering seeds at which the study ends, settled or not.
        looks: seeds after which the study is looked at; empty: fixed fractions of `max_seeds`.
        margin: the largest difference of mIoU that counts as none.
        error: two-sided error of each interval over all looks together; 0.05 gives 95 % intervals.
        spending, exponent: how the error is spread over the looks, see `spent_error`.
        first_share: of the error, for the candidate of each arm that screened best; the others get the rest.
        screening_seeds: seeds of the screening stage.
        raw_candidates, pretrained_candidates: most settings that screening nominates for each arm.
        reference_values: most tuned values, such as learning rates, at which screening nominates the
            reference; the limit of the pre-trained arm applies to them.
        trails: a raw cell is nominated unless it trails its arm's best, by a one-sided t test of this size on
            the screening trials; and likewise one of several tuned values of a setting.
        drop_t, drop_slope: a candidate is dropped at a look of n seeds once it trails its arm's leader by
            more than `drop_t + drop_slope / n` standard errors of a difference within its arm.
        widen: the other pre-trained candidates are trained once the chance that the first one stays ahead by
            more than the margin at the last look is below this.
        futility: whether regularization helps is given up once the chance to show it by `max_seeds` is
            below this; with 1, as soon as more than the margin remains.
        hopeless: the same for the remaining gap, whose two sides are the answer.
        extended_from: `max_seeds` of the finished plans that this one extends, the first one first.
    """

    max_seeds: int = 26
    looks: tuple[int, ...] = ()
    margin: float = 0.01
    error: float = 0.05
    spending: Spending = "power"
    exponent: float = EXPONENT
    first_share: float = 2 / 3
    screening_seeds: int = 2
    raw_candidates: int = 5
    pretrained_candidates: int = 6
    reference_values: int = 3
    trails: float = 0.04
    drop_t: float = 1.5
    drop_slope: float = 0.5
    widen: float = 0.5
    futility: float = 0.3
    hopeless: float = 0.02
    extended_from: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_seeds < 1:
            raise UserError(f"max_seeds {self.max_seeds}: expected at least one answering seed")
        looks = self.looks or look_seeds(self.max_seeds, LOOK_FRACTIONS, FEWEST_SEEDS)
        if list(looks) != sorted(set(looks)) or looks[0] < 1 or looks[-1] != self.max_seeds:
            raise UserError(
                f"looks {looks}: expected increasing numbers of seeds that end at max_seeds {self.max_seeds}"
            )
        object.__setattr__(self, "looks", tuple(looks))

    @classmethod
    def single_look(cls, seeds: int, margin: float = 0.01) -> "AnsweringDesign":
        """A plan without interim looks: all seeds are there, ordinary 95 % intervals."""
        return cls(max_seeds=seeds, looks=(seeds,), margin=margin)

    def of_comparisons(self, count: int) -> "AnsweringDesign":
        """The plan of each of several comparisons that share the error: of starting points, label fractions.

        Somebody who must choose a starting point, or the number of images to label, asks what the better
        start adds to the other one with its best regularization. Whether regularization helps is then not
        awaited once that is shown.
        """
        return replace(self, error=self.error / count, futility=1.0) if count > 1 else self

    @property
    def spent(self) -> tuple[float, ...]:
        """Cumulative two-sided error of an interval after each look.

        Each extension spends at most half as much again as the plan before it, so that any number of
        extensions together at most doubles the error.
        """
        return _spent(
            self.looks, (*self.extended_from, self.max_seeds), self.error, self.spending, self.exponent
        )

    @property
    def confidence(self) -> float:
        """With which an interval holds over all looks together: 0.95, or less after an extension."""
        return round(1 - self.spent[-1], 6)

    def tail_probability(self, look: int, comparisons: float = 1) -> float:
        """One-sided tail probability of one end of an interval at a look (counted from 1).

        Args:
            comparisons: into how many equal parts the error is divided.
        """
        spent = tuple(value / 2 / comparisons for value in self.spent)
        return tail_probabilities(self.looks, spent)[look - 1]

    def extended(self, max_seeds: int) -> "AnsweringDesign":
        """The plan of a finished study that gets more seeds.

        Raises:
            UserError: if that is not more than before.
        """
        if max_seeds <= self.max_seeds:
            raise UserError(
                f"max_seeds {max_seeds}: the study was planned with {self.max_seeds}; give a larger number"
            )
        added = look_seeds(max_seeds - self.max_seeds, (0.5, 1.0), 1)
        looks = (*self.looks, *(self.max_seeds + seeds for seeds in added))
        return replace(
            self,
            max_seeds=max_seeds,
            looks=looks,
            extended_from=(*self.extended_from, self.max_seeds),
        )

    @property
    def before_extension(self) -> "AnsweringDesign":
        """The plan that was made before the first answering trial."""
        if not self.extended_from:
            return self
        seeds = self.extended_from[0]
        looks = tuple(look for look in self.looks if look <= seeds)
        return replace(self, max_seeds=seeds, looks=looks, extended_from=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the manifest holds them."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AnsweringDesign":
        """The inverse of `to_dict`."""
        # Plans without these entries are from the time when there was no choice of them.
        earlier = {"spending": "obrien-fleming", "exponent": 2.0, "first_share": 0.5, "trails": 0.01}
        fields: dict[str, Any] = {**earlier, **values}
        # Limits of version 0.2, in standard errors.
        for name in ("raw_t", "pretrained_t"):
            fields.pop(name, None)
        for key in ("looks", "extended_from"):
            fields[key] = tuple(fields[key])
        return cls(**fields)
