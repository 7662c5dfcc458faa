"""What a look at the answering seeds knows and finds: the roles of the cells, and the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from study.analysis.intervals import Interval

Label = Literal["closes", "narrows", "does not close", "undetermined"]


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which cell plays which part.

    Args:
        reference: the raw (trained from scratch) cell without regularization; with a tuned axis, at the value
            that is best in screening.
        other_references: the same at other tuned values that may be best.
        raw, pretrained: all candidates as nominated, the best of screening first.
        dropped: candidates of either arm, and references, that an earlier look gave up.
    """

    reference: str
    raw: tuple[str, ...]
    pretrained: tuple[str, ...]
    other_references: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """The reference at every tuned value that may be best, the best of screening first."""
        return (self.reference, *self.other_references)

    @property
    def active_references(self) -> tuple[str, ...]:
        """References still trained."""
        return tuple(cell for cell in self.references if cell not in self.dropped)

    @property
    def active_raw(self) -> tuple[str, ...]:
        """Raw candidates still trained."""
        return tuple(cell for cell in self.raw if cell not in self.dropped)

    @property
    def active_pretrained(self) -> tuple[str, ...]:
        """Pre-trained candidates still trained."""
        return tuple(cell for cell in self.pretrained if cell not in self.dropped)

    @property
    def active(self) -> tuple[str, ...]:
        """All cells that the next seeds train, the reference first."""
        return (*self.active_references, *self.active_raw, *self.active_pretrained)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look finds.

    Args:
        number: this look, from 1; `looks` are planned.
        seeds: complete seeds that it uses.
        label: the verdict; None while more seeds are to be trained.
        reason: why the stage stops or continues, one sentence.
        gap, improvement, remaining, closure: repeated confidence intervals.
        settled: for `gap`, `improvement`, `remaining`: whether the interval excludes its threshold.
        roles: the roles from here on, with the candidates dropped so far.
        leaders: labels of the reference, the raw and the pre-trained candidate of the highest mean.
        spent: two-sided error of an interval spent so far.
        next_seeds: total seeds at the next look; None after the last.
        next_trials: trials that the next look costs.
        chances: for each unsettled contrast, the chance that it is settled at the next look, and at the
            last one: `{"remaining": (0.3, 0.9)}`.
    """

    number: int
    looks: int
    seeds: int
    label: Label | None
    reason: str
    gap: Interval
    improvement: Interval
    remaining: Interval
    closure: Interval
    settled: Mapping[str, bool]
    roles: Roles
    leaders: Mapping[str, str]
    spent: float
    next_seeds: int | None
    next_trials: int
    chances: Mapping[str, tuple[float, float]]
