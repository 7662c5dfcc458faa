"""Axes and settings in words."""

from collections.abc import Mapping
from typing import Any

from segstrat.formatting import format_value


def setting_label(values: Mapping[str, Any]) -> str:
    """A setting in words: `multi-task semseg+parts, dropout 0.3`; `default` where nothing is varied."""
    words = []
    for axis, value in values.items():
        if axis == "tasks":
            words.append(f"multi-task {value}" if "+" in str(value) else "single-task")
        else:
            words.append(f"{axis_name(axis)} {format_value(value)}")
    return ", ".join(words) or "default"


def axis_name(axis: str) -> str:
    """An axis in words."""
    return axis.replace("_", " ")


def join_words(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
