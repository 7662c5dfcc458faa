"""How numbers, settings and lists are written, in the console, the report and every message."""

from collections.abc import Mapping, Sequence
from typing import Any


def format_value(value: object) -> str:
    """The value of an axis or setting: `0`, `1e-4`, `0.02`, `yes`, `semseg+parts`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return "+".join(str(item) for item in value)
    if not isinstance(value, int | float):
        return str(value)
    scientific = f"{value:.0e}".replace("e-0", "e-")
    return scientific if 0 < value < 0.01 and float(scientific) == value else f"{value:.3g}"


def format_duration(seconds: float) -> str:
    """A duration with its unit: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def format_bytes(count: float) -> str:
    """A size with its unit: `0.3 MB`, `2.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


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


def join_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
