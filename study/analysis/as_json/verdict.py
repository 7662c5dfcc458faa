"""The parts of an answer as plain values, which `verdict.json` holds."""

import math
from collections.abc import Mapping
from typing import Any

from study.analysis.answering.decision import Look
from study.analysis.intervals import Interval
from study.analysis.thesis.claims import Claim
from study.analysis.thesis.hypothesis_h2 import Mechanism
from study.analysis.verdict import Verdict
from study.analysis.words.verdict import reason


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    """One context's verdict."""
    found = verdict.contrasts
    return {
        "task": verdict.context.task,
        "context": verdict.context.label,
        "verdict": verdict.label,
        "reason": reason(verdict),
        "gap": _interval_values(found.gap),
        "improvement": _interval_values(found.improvement),
        "remaining": _interval_values(found.remaining),
        "closure": _interval_values(found.closure),
        "reference": found.reference,
        "best_raw": {str(seed): found.best_raw.label(seed) for seed in found.best_raw.settings},
        "best_pretrained": {
            str(seed): found.best_pretrained.label(seed) for seed in found.best_pretrained.settings
        },
        "chosen_on_the_reported_seed": found.same_seed,
        "cause": verdict.cause,
        "by_intervals": verdict.by_intervals.label,
        "images": verdict.images,
        "floor": verdict.learning.floor,
        "with_images": {name: _interval_values(found) for name, found in verdict.with_images.items()},
        "look": _look_values(verdict.look),
        "by_margin": {f"{margin:g}": label for margin, label in verdict.by_margin.items()},
        "seeds_needed": {row.contrast: row.seeds for row in verdict.decisive if not row.settled},
    }


def _look_values(look: Look | None) -> dict[str, Any] | None:
    """The look that a verdict is based on; None for a study of one stage."""
    if look is None:
        return None
    return {
        "number": look.number,
        "looks": look.looks,
        "seeds": look.seeds,
        "spent": look.spent,
        "next_seeds": look.next_seeds,
        "next_trials": look.next_trials,
    }


def mechanism_values(verdict: Verdict, found: Mechanism) -> dict[str, Any]:
    """H2 in one context."""
    return {
        "context": verdict.context.label,
        "mechanism": found.label,
        "reason": found.reason,
        "training": _interval_values(found.training),
        "validation": _interval_values(found.validation),
    }


def claim_values(claim: Claim) -> dict[str, Any]:
    """One claim of the thesis."""
    effects = [
        {"what": effect.what, "threshold": effect.threshold, "adjusted_p": effect.adjusted_p}
        | _interval_values(effect.interval)
        for effect in claim.effects
    ]
    return {
        "name": claim.name,
        "claim": claim.claim,
        "status": claim.status,
        "reason": claim.reason,
        "effects": effects,
    }


def _interval_values(interval: Interval) -> dict[str, Any]:
    return {
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "method": interval.method,
        "confidence": interval.confidence,
    }


def plain(value: Any) -> Any:
    """Values that JSON has: plain strings and numbers, None for those that are not finite."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
