"""Axes, levels and settings in words."""

from collections.abc import Mapping
from typing import Any


def setting_label(values: Mapping[str, Any]) -> str:
    """A setting in words: `joint semseg+parts, dropout 0.3`; `as is` where nothing is varied."""
    words = []
    for axis, value in values.items():
        if axis == "tasks":
            words.append(f"joint {value}" if "+" in str(value) else "separate")
        else:
            words.append(f"{axis_name(axis)} {level_name(value)}")
    return ", ".join(words) or "as is"


def axis_name(axis: str) -> str:
    """An axis in words."""
    return axis.replace("_", " ")


def level_name(value: object) -> str:
    """A level as it is written on an axis: 0, 1e-4, 0.02, yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    short = f"{value:.0e}".replace("e-0", "e-")
    return short if 0 < value < 0.01 and float(short) == value else f"{value:.3g}"
