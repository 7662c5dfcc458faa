"""Successive halving as a pure function of the reported values, in the study's order. No Ray in it.

Trials compete within a group (see `study.planning.trials.PlannedTrial.group`), at rungs placed at the same
fractions of every trial's own budget, so a rung never compares an interim value with a final one. A trial is
compared with the trials of its group that come before it in the study's (seeded, shuffled) order, never with
whoever happened to be faster: the same command stops the same trials, and a resumed study repeats its
decisions by reading the records.

Two things stop a trial at a rung. *Trailing*: it has learned less than a share of what the best one before it
has. *Rank*: it is not among the best before it, by the asynchronous successive halving of Li et al. 2020
(arXiv:1810.05934) with the arrival order replaced by the study's order. A rank says nothing about distance,
and loses what is slow to start; so where a study saves seeds instead (`study.search.two_stage.BetterHalf`),
only trailing stops a trial.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class HalvingRule:
    """Where trials are judged, and how strictly.

    Args:
        fractions: shares of a trial's own epoch budget at which it is judged; empty: nothing is stopped.
        reduction_factor: the best 1/reduction_factor of the trials so far continue.
        min_competitors: earlier trials that must have reached the rung before one is stopped by its rank.
        least_shares: at each rung, a trial is stopped that has learned less than this share of what the best
            of the earlier trials has; empty: no distance stops a trial, as in studies of earlier versions.
    """

    fractions: tuple[float, ...] = (0.25, 0.5)
    reduction_factor: int = 2
    min_competitors: int = 2
    least_shares: tuple[float, ...] = (0.2, 0.5)

    @classmethod
    def of(cls, scheduler: str) -> "HalvingRule":
        """The rule of `--scheduler`: `asha` or `none`."""
        return cls() if scheduler == "asha" else cls(fractions=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the manifest holds them."""
        return {
            "name": "asha" if self.fractions else "none",
            "reduction_factor": self.reduction_factor,
            "rung_fractions": list(self.fractions),
            "min_competitors": self.min_competitors,
            "least_shares": list(self.least_shares),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "HalvingRule":
        """The inverse of `to_dict`."""
        if values.get("name", "none") == "none":
            return cls(fractions=())
        return cls(
            fractions=tuple(values.get("rung_fractions", cls.fractions)),
            reduction_factor=values.get("reduction_factor", cls.reduction_factor),
            min_competitors=values.get("min_competitors", cls.min_competitors),
            least_shares=tuple(values.get("least_shares", ())),
        )

    def words(self, *, ranked: bool) -> str:
        """What may be stopped, and where.

        Args:
            ranked: whether some trial is judged by its rank.
        """
        kinds = []
        if self.fractions and self.least_shares:
            shares = zip(self.fractions, self.least_shares, strict=True)
            bounds = ", ".join(
                f"less than {share:.0%} after {rung:.0%} of its epochs" for rung, share in shares
            )
            kinds.append(f"with {bounds} of what the best one before it has learned")
        if self.fractions and ranked:
            rungs = " and ".join(f"{fraction:.0%}" for fraction in self.fractions)
            kinds.append(f"not among the best 1/{self.reduction_factor} at {rungs} of its epochs")
        if not kinds:
            return "none"
        within = "within its arm, context and seed; never the reference, never the answering stage"
        return f"a screening trial {' or '.join(kinds)}, {within}"

    def rung_epochs(self, epochs: int, validate_every: int = 1) -> tuple[int | None, ...]:
        """The epoch of each rung for a budget of `epochs`: the first validated one from the fraction on.

        None for a rung at which nobody is judged: it coincides with an earlier one, or with the last epoch.
        """
        found: list[int | None] = []
        for fraction in self.fractions:
            wanted = max(1, round(fraction * epochs))
            epoch = math.ceil(wanted / validate_every) * validate_every
            found.append(None if epoch >= epochs or epoch in found else epoch)
        return tuple(found)


class Decision(StrEnum):
    """What a rung decides about a trial."""

    PASS = "pass"
    STOP = "stop"
    OPEN = "open"
    """Not known yet: the trial, or one before it in the group, may still reach the rung."""
    ABSENT = "absent"
    """The trial ended before the rung, or was stopped at an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """What the rungs need to know of a trial.

    Args:
        epochs: epoch of each rung; None where nobody is judged.
        values: value (maximized) at each rung; None where there is none (yet), not-a-number ranks last.
        ended: whether it will never report again.
        learned: at each rung, the mean IoU without that of the best class: 0 for a constant prediction, whose
            one class is found in every image that has it. None where it is not known.
        exempt: it competes and is never stopped.
        ranked: whether its rank may stop it, and not only how far it trails.
        recorded: its decisions, if they were recorded by an earlier run of the study; they stand.
    """

    epochs: tuple[int | None, ...]
    values: tuple[float | None, ...]
    ended: bool
    learned: tuple[float | None, ...] = ()
    exempt: bool = False
    ranked: bool = True
    recorded: tuple[Decision, ...] | None = None


def decide(group: Sequence[Competitor], rule: HalvingRule) -> list[tuple[Decision, ...]]:
    """The decisions of every rung about every trial of a group.

    Args:
        group: in the study's order.

    Returns:
        for each trial, one decision per rung.
    """
    table: list[list[Decision]] = [[] for _ in group]
    for rung in range(len(rule.fractions)):
        earlier: list[float] = []
        most_learned = 0.0
        all_known = True
        for decisions, trial in zip(table, group, strict=True):
            before = decisions[-1] if decisions else Decision.PASS
            decision = _decide(trial, rung, before, earlier, most_learned, rule, all_known=all_known)
            decisions.append(decision)
            value = trial.values[rung]
            if decision in (Decision.PASS, Decision.STOP) and value is not None:
                earlier.append(value)
                most_learned = max(most_learned, _learned(trial, rung) or 0.0)
            elif decision is Decision.OPEN and trial.epochs[rung] is not None:
                all_known = False
    return [tuple(decisions) for decisions in table]


def _decide(
    trial: Competitor,
    rung: int,
    before: Decision,
    earlier: Sequence[float],
    most_learned: float,
    rule: HalvingRule,
    *,
    all_known: bool,
) -> Decision:
    """The decision of one rung about one trial.

    Args:
        before: the decision of the rung before this one.
        earlier: values of the trials before it in the group that reached this rung.
        most_learned: what the best of them had learned there.
        all_known: whether no further trial before it can reach this rung.
    """
    if trial.recorded is not None:
        return trial.recorded[rung]
    if before is not Decision.PASS:
        return Decision.OPEN if before is Decision.OPEN else Decision.ABSENT
    if trial.epochs[rung] is None:
        return Decision.PASS
    value = trial.values[rung]
    if value is None:
        return Decision.ABSENT if trial.ended else Decision.OPEN
    if trial.exempt:
        return Decision.PASS
    if math.isnan(value):
        return Decision.STOP
    if not all_known:
        return Decision.OPEN
    learned = _learned(trial, rung)
    least = rule.least_shares[rung] * most_learned if rule.least_shares else 0.0
    if learned is not None and learned < least:
        return Decision.STOP
    if not trial.ranked or len(earlier) < rule.min_competitors:
        return Decision.PASS
    # The same as comparing with the (1 − 1/reduction_factor) quantile of all values, its own included, except
    # that not-a-number ranks last.
    better = sum(other > value for other in earlier)
    passes = better < math.ceil((len(earlier) + 1) / rule.reduction_factor)
    return Decision.PASS if passes else Decision.STOP


def _learned(trial: Competitor, rung: int) -> float | None:
    learned = trial.learned[rung] if trial.learned else None
    return None if learned is None or math.isnan(learned) else learned


def recorded_decisions(rule: HalvingRule, stop_rung: int | None) -> tuple[Decision, ...]:
    """The decisions about a trial that is on record as stopped at `stop_rung`, or as never stopped (None)."""
    rungs = range(len(rule.fractions))
    if stop_rung is None:
        return tuple(Decision.PASS for _ in rungs)
    after = {True: Decision.ABSENT, False: Decision.PASS}
    return tuple(Decision.STOP if rung == stop_rung else after[rung > stop_rung] for rung in rungs)


def stop_rung(decisions: Sequence[Decision]) -> int | None:
    """The rung at which a trial is to be stopped; None while it continues or the decision is open."""
    for rung, decision in enumerate(decisions):
        if decision is not Decision.PASS:
            return rung if decision is Decision.STOP else None
    return None
