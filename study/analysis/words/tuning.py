"""How tuned axes were chosen and what that cost, in sentences."""

from segstrat.formatting import format_duration, format_value
from study.analysis.cells import Tuning
from study.analysis.words.names import axis_name, join_words


def edge_warning(tuning: Tuning) -> str:
    """That a chosen value is the smallest or largest of those tried; empty if none is."""
    if not tuning.edges:
        return ""
    low, high = format_value(tuning.tried[0]), format_value(tuning.tried[-1])
    return (
        f"{_where(tuning)}he best {axis_name(tuning.axis)} is at the edge of those tried ({low} to {high}) "
        f"for {join_words(list(tuning.edges))}. A value beyond may be better and change the contrasts: try a "
        "wider range."
    )


def tuning_note(tuning: Tuning) -> str:
    """How the value was chosen, and what the values that were not chosen cost in each arm."""
    values = join_words([format_value(value) for value in tuning.tried])
    cost = join_words(
        [
            f"{count} {arm} trials ({format_duration(3600 * tuning.hours[arm])})"
            for arm, count in tuning.trials.items()
        ]
    )
    return (
        f"{_where(tuning)}he {axis_name(tuning.axis)} ({values}) is tuned: its best value is chosen for each "
        "setting by the mean validation score over seeds, by the same rule for both arms and the reference. "
        f"The values that were not chosen cost {cost}."
    )


def _where(tuning: Tuning) -> str:
    return f"{tuning.context}: t" if tuning.context else "T"
