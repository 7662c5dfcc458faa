"""Factorial effects and response surfaces as plain values, which `verdict.json` holds."""

from typing import Any

from study.analysis.factors.effects import SIGNIFICANT, FactorialEffects
from study.analysis.factors.surface import Estimate, ResponseSurfaces
from study.analysis.words.effects import effect_label, effect_sentences, surface_sentences


def effects_values(effects: FactorialEffects) -> dict[str, Any]:
    """The effects of one context; sizes in shares of mIoU."""
    errors = {
        f"{response}, {kind}": {"sd": error.sd, "degrees": error.degrees, "source": error.source}
        for (response, kind), error in effects.errors.items()
    }
    return {
        "task": effects.task,
        "context": effects.context,
        "sentences": effect_sentences(effects),
        "seeds": list(effects.seeds),
        "epochs": effects.used.when,
        "errors": errors,
        "effects": [
            {
                "response": row["response"],
                "kind": row["kind"],
                "effect": effect_label(row),
                "estimate": row["estimate"],
                "low": row["low"],
                "high": row["high"],
                "p": row["p"],
                "adjusted_p": row["adjusted_p"],
                "shown": bool(row["adjusted_p"] < SIGNIFICANT),
            }
            for row in effects.table.to_dict("records")
        ],
    }


def surfaces_values(surfaces: ResponseSurfaces) -> dict[str, Any]:
    """The surfaces of one context."""
    return {
        "task": surfaces.task,
        "context": surfaces.context,
        "sentences": surface_sentences(surfaces),
        "epochs": surfaces.used.when,
        "points_chosen_by_search": surfaces.adaptive,
        "remaining": _estimate_values(surfaces.remaining),
        "arms": [
            {
                "arm": arm.arm,
                "points": len(arm.points),
                "learned": int(arm.points["learned"].sum()) if "learned" in arm.points else 0,
                "maximum": _estimate_values(arm.maximum),
                "gain": _estimate_values(arm.gain),
                "location": {axis: _estimate_values(at) for axis, at in (arm.location or {}).items()},
                "at_the_end_of_the_sampled_region": list(arm.edges),
                "share_of_the_box_inside": arm.coverage,
                "share_of_the_region_where_the_maximum_may_lie": arm.plausible,
            }
            for arm in surfaces.arms
        ],
    }


def _estimate_values(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else dict(zip(("estimate", "low", "high"), estimate, strict=True))
