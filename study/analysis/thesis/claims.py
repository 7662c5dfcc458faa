"""Claims C1–C5 of W. Dai's thesis (UCL 2018), each judged on the user's own trials.

A claim is `supported` or `contradicted` only by p-values, adjusted by Holm's method (1979) over the effects
of all claims and contexts; the intervals next to them are not adjusted. Nothing is judged on trials that were
stopped or have not finished, nor where the verdict says that an arm did not learn.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from study.analysis.factors.factorial import holm
from study.analysis.thesis.claim_effects import Effect


class Status(StrEnum):
    """What the trials say to a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Claim:
    """A claim with what the user's trials say to it.

    Args:
        claim: the claim, as the thesis means it.
        thesis: what the thesis found, with its numbers.
        effects: the differences that the claim is about; each must be on its claimed side.
        lacking: why the study does not address the claim; empty if it does.
        note: what else a reader should know, in a sentence or two.
    """

    name: str
    claim: str
    thesis: str
    effects: Sequence[Effect] = ()
    lacking: str = ""
    note: str = ""
    status: Status = Status.UNDETERMINED

    @property
    def reason(self) -> str:
        """Why this status, in a sentence or two."""
        if self.lacking:
            return self.lacking
        why = _why_undetermined(self.effects) if self.status is Status.UNDETERMINED else ""
        sides = {effect.side for effect in self.effects if effect.side}
        if len(sides) > 1 and self.status is Status.CONTRADICTED:
            held = sum(effect.side == "claimed" for effect in self.effects)
            why = f"{held} of {len(self.effects)} effects are as claimed, others are reversed."
        return " ".join(part for part in (why, self.note) if part)


def judge_claims(claims: Iterable[Claim], looks: int = 1) -> list[Claim]:
    """Gives every claim its status, with Holm's adjustment over all effects of all claims.

    Args:
        looks: see `adjust`.
    """
    claims = list(claims)
    effects = adjust([effect for claim in claims for effect in claim.effects], looks)
    judged = []
    for claim in claims:
        decided, effects = effects[: len(claim.effects)], effects[len(claim.effects) :]
        judged.append(replace(claim, effects=decided, status=_status(decided)))
    return judged


def adjust(effects: Sequence[Effect], looks: int = 1) -> list[Effect]:
    """The effects with p-values adjusted for their number; blocked effects are not tested.

    Args:
        looks: planned looks, by which p-values are multiplied (Bonferroni). When a sequential study ends
            follows from what its seeds show, so a p-value that takes their number as fixed is too small.
    """
    tested = [
        math.nan if effect.blocked or effect.p is None else min(1.0, effect.p * looks) for effect in effects
    ]
    return [replace(effect, adjusted_p=float(p)) for effect, p in zip(effects, holm(tested), strict=True)]


def _status(effects: Sequence[Effect]) -> Status:
    sides = [effect.side for effect in effects]
    if "reversed" in sides:
        return Status.CONTRADICTED
    if sides and all(side == "claimed" for side in sides):
        return Status.SUPPORTED
    return Status.UNDETERMINED


def _why_undetermined(effects: Sequence[Effect]) -> str:
    blocked = next((effect.blocked for effect in effects if effect.blocked), "")
    if blocked:
        return blocked
    known = [effect.estimated_as_claimed for effect in effects if effect.interval.estimate is not None]
    if not known:
        return "No pair of completed trials to compare."
    way = "The estimates point both ways"
    if len(set(known)) == 1:
        way = "The estimate points" if len(known) == 1 else "The estimates point"
        way += " the thesis's way" if known[0] else " against the thesis"
    few = [effect.interval.n for effect in effects if not effect.interval.known]
    if few:
        n = min(few)
        return f"{way}, but {'one seed allows' if n == 1 else f'{n} seeds allow'} no interval."
    return f"{way}, but not beyond what chance explains (p-values adjusted over all claims and contexts)."
