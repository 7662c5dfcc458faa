"""How tuned axes were chosen, as plain values."""

from typing import Any

from study.analysis.cells import Tuning


def tuning_values(tuning: Tuning) -> dict[str, Any]:
    """One tuned axis in one context."""
    return {
        "context": tuning.context,
        "axis": tuning.axis,
        "tried": [float(value) if isinstance(value, float) else value for value in tuning.tried],
        "chosen": dict(tuning.chosen),
        "at_the_edge": list(tuning.edges),
        "trials_not_chosen": dict(tuning.trials),
        "hours_not_chosen": dict(tuning.hours),
    }
