"""Successive halving that is fair across arms and blind to timing: the rule, without Ray.

Each arm competes only with itself, at rungs placed at the same fractions of every trial's own budget. Trial
*i* is compared with the trials of its arm that stand before it in the study's (seeded, shuffled) order, never
with whoever happened to be faster, so the decisions are a function of the reported values alone: the same
command gives the same survivors, and a resumed study finds its rungs again by replaying the records.

The rule is the asynchronous successive halving of Li et al. 2020 (arXiv:1810.05934) with the arrival order
replaced by the study's order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class HalvingRule:
    """Where trials are judged, and how strictly.

    Args:
        fractions: shares of a trial's own epoch budget at which it is judged; empty: nothing is stopped.
        reduction_factor: the best 1/reduction_factor of the trials seen so far go on.
        min_competitors: earlier trials that must have reached the rung before one is stopped there.
    """

    fractions: tuple[float, ...] = (0.25, 0.5)
    reduction_factor: int = 2
    min_competitors: int = 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the manifest holds them."""
        return {
            "name": "asha" if self.fractions else "none",
            "reduction_factor": self.reduction_factor,
            "rung_fractions": list(self.fractions),
            "min_competitors": self.min_competitors,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "HalvingRule":
        """The inverse of `to_dict`."""
        if values["name"] == "none":
            return cls(fractions=())
        return cls(
            fractions=tuple(values["rung_fractions"]),
            reduction_factor=values["reduction_factor"],
            min_competitors=values["min_competitors"],
        )

    def rung_epochs(self, epochs: int, validate_every: int = 1) -> tuple[int | None, ...]:
        """The epoch of each rung for a budget of `epochs`: the first validated one from the fraction on.

        A rung that falls together with an earlier one, or with the end of the budget, judges nobody: None.
        """
        found: list[int | None] = []
        for fraction in self.fractions:
            wanted = max(1, round(fraction * epochs))
            epoch = math.ceil(wanted / validate_every) * validate_every
            found.append(None if epoch >= epochs or epoch in found else epoch)
        return tuple(found)


@dataclass(frozen=True)
class Stop:
    """Where a trial was stopped; reports after `epoch` are not part of its record."""

    rung: int
    epoch: int


@dataclass
class _Entry:
    order: int
    arm: str
    rung_epochs: tuple[int | None, ...]
    values: dict[int, float] = field(default_factory=dict)
    ended: bool = False


class Rungs:
    """The decisions of a study. Feed reports in any order; ask who is to stop.

    Values are maximized (mIoU).
    """

    def __init__(self, rule: HalvingRule) -> None:
        self.rule = rule
        self._entries: dict[str, _Entry] = {}
        self._passes: dict[tuple[str, int], bool] = {}

    def add(self, trial_id: str, *, order: int, arm: str, epochs: int, validate_every: int = 1) -> None:
        """Makes a trial known. Every trial that stands before another must be added before it reports."""
        self._entries[trial_id] = _Entry(order, arm, self.rule.rung_epochs(epochs, validate_every))

    def report(self, trial_id: str, epoch: int, value: float) -> None:
        """Takes the value that a trial reached at an epoch; values between rungs are ignored."""
        entry = self._entries[trial_id]
        if epoch in entry.rung_epochs:
            entry.values[epoch] = value

    def end(self, trial_id: str) -> None:
        """Says that a trial will not report again, whatever the reason."""
        self._entries[trial_id].ended = True

    def recall(self, trial_id: str, stop_rung: int | None) -> None:
        """Takes over a recorded outcome: stopped at `stop_rung`, or never (None). It is not judged again."""
        for rung in range(len(self.rule.fractions)):
            if stop_rung is None or rung <= stop_rung:
                self._passes[trial_id, rung] = rung != stop_rung
        self.end(trial_id)

    def stop(self, trial_id: str) -> Stop | None:
        """Where the trial is to be stopped; None while it goes on or the decision is still open."""
        entry = self._entries[trial_id]
        for rung, epoch in enumerate(entry.rung_epochs):
            passed = self._passed(trial_id, rung)
            if passed is None:
                return None
            if not passed:
                assert epoch is not None, "a rung without an epoch judges nobody"
                return Stop(rung, epoch)
        return None

    def settled(self, trial_id: str) -> bool:
        """Whether the trial has ended and no rung that it reached is still to be judged."""
        entry = self._entries[trial_id]
        open_rungs = (
            self._passed(trial_id, rung) is None and self._reached(trial_id, rung) is not False
            for rung in range(len(entry.rung_epochs))
        )
        return entry.ended and not any(open_rungs)

    def _reached(self, trial_id: str, rung: int) -> bool | None:
        """Whether the trial has a value at a rung and was not stopped before it; None: not known yet."""
        entry = self._entries[trial_id]
        epoch = entry.rung_epochs[rung]
        if epoch is None or (epoch not in entry.values and entry.ended):
            return False
        for earlier in range(rung):
            passed = self._passed(trial_id, earlier)
            if passed is None:
                return None
            if not passed:
                return False
        return True if epoch in entry.values else None

    def _passed(self, trial_id: str, rung: int) -> bool | None:
        """Whether the trial goes on after a rung; None: not decided yet, or not reached."""
        if (trial_id, rung) in self._passes:
            return self._passes[trial_id, rung]
        entry = self._entries[trial_id]
        epoch = entry.rung_epochs[rung]
        if epoch is None:
            return True
        if not self._reached(trial_id, rung):
            return None
        passed = self._judge(entry, rung, entry.values[epoch])
        if passed is not None:
            self._passes[trial_id, rung] = passed
        return passed

    def _judge(self, entry: _Entry, rung: int, own: float) -> bool | None:
        if math.isnan(own):
            return False
        others: list[float] = []
        for other_id, other in self._entries.items():
            if other.arm != entry.arm or other.order >= entry.order:
                continue
            reached = self._reached(other_id, rung)
            if reached is None:
                return None
            epoch = other.rung_epochs[rung]
            if reached and epoch is not None:
                others.append(other.values[epoch])
        if len(others) < self.rule.min_competitors:
            return True
        # The place among all values, own one included: the same as comparing with their
        # (1 − 1/reduction_factor) quantile, but NaN competitors simply rank last.
        better = sum(value > own for value in others)
        return better < math.ceil((len(others) + 1) / self.rule.reduction_factor)
