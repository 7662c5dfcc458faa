"""Interleaved timings: every contestant once per round, in a random order, compared within the round.

A machine that is slow for a minute is slow for all contestants of that round, so the ratio within a round
varies less than the times; the median of these ratios is reported.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Contestant = Callable[[], object]


@dataclass(frozen=True)
class Claim:
    """`faster` takes at most 1/`at_least` of the time of `slower`."""

    faster: str
    slower: str
    at_least: float


@dataclass
class Comparison:
    """Times of some contestants, round by round.

    Args:
        title: what is timed.
        seconds: contestant -> time of each round, per unit.
        unit: what the times are for: an image, a step, an epoch.
        reference: contestant that the others are compared with.
        claims: ratios to reach.
        notes: facts that a reader of the table needs.
    """

    title: str
    seconds: dict[str, list[float]]
    unit: str
    reference: str
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ratio(self, faster: str, slower: str) -> tuple[float, float, float]:
        """Median and quartiles of slower / faster, round by round."""
        pairs = zip(self.seconds[slower], self.seconds[faster], strict=True)
        ratios = [one / other for one, other in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, _, high = statistics.quantiles(ratios, method="inclusive")
        return statistics.median(ratios), low, high

    def median(self, name: str) -> float:
        """Median seconds per unit."""
        return statistics.median(self.seconds[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with every round's times."""
        values = asdict(self)
        values["claims"] = [
            asdict(claim) | {"ratio": self.ratio(claim.faster, claim.slower)[0]} for claim in self.claims
        ]
        return values


def compare(
    title: str,
    contestants: Mapping[str, Contestant],
    *,
    unit: str,
    units_per_call: int = 1,
    reference: str,
    rounds: int,
    claims: list[Claim] | None = None,
    notes: list[str] | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Comparison:
    """Times the contestants.

    Args:
        contestants: each call does the same work, `units_per_call` units of it.
        rounds: each round calls every contestant once; a first round is discarded.
        clock: by default the processor time of this process, which depends less on other processes than
            wall-clock time. Suitable for one thread that never waits.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name in order.sample(list(contestants), len(contestants)):
            start = clock()
            contestants[name]()
            elapsed = (clock() - start) / units_per_call
            if round_number:
                seconds[name].append(elapsed)
    return Comparison(title, seconds, unit, reference, claims or [], notes or [])
