"""How the answering stage is planned: the looks, the margin, the error rates, when a candidate is dropped.

Everything here is fixed before the first answering trial and recorded in the manifest, so that a resumed
study makes the same decisions again.

`study.analysis.spending` says how the looks share the error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from segstrat.errors import UserError
from study.analysis.spending import EXPONENT, Spending, spent_errors, tail_probabilities


def look_seeds(max_seeds: int, fractions: Sequence[float], fewest: int) -> tuple[int, ...]:
    """Seeds at each look: fractions of `max_seeds`, at least `fewest`, without repetition."""
    counts = [max(fewest, round(fraction * max_seeds)) for fraction in fractions]
    return tuple(sorted({min(count, max_seeds) for count in counts} | {max_seeds}))


FEWEST_SEEDS = 3
LOOK_FRACTIONS = (3 / 26, 4 / 26, 5 / 26, 6 / 26, 8 / 26, 12 / 26, 18 / 26, 1.0)


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
        """Cumulative two-sided error of an interval after each look."""
        return spent_errors(
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
