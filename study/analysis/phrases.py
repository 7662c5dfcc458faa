"""How differences, shares and counts are written, with their intervals."""

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from study.analysis.intervals import Interval

# Of a bound in points; a thousandth of a point is far below what any study can tell.
MOST_DIGITS = 3


def points(value: float | None, *, signed: bool = False) -> str:
    """A difference of mIoU in points, 0.012 as `1.2 points`."""
    if value is None or pd.isna(value):
        return "an unknown number of points"
    number = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    number = number.removesuffix(".0") if not signed else number
    return f"{number.replace('-', '−')} point{'' if number in ('1', '+1.0') else 's'}"


def with_interval(interval: Interval, margin: float = 0.0) -> str:
    """`3.1 points (95 % interval 1.2 to 5.2, 5 seeds)`; or `3.1 points (95 %: at least 1.2, 5 seeds)`.

    Args:
        margin: what the bounds are compared with, beside zero. A bound that rounds to either of them gets
            more digits, so that the reader sees on which side it is.
    """
    if interval.estimate is None:
        return "an unknown number of points"
    if interval.low is None or interval.high is None:
        return f"{points(interval.estimate)} ({count_seeds(interval.n)}, no interval)"
    low, high = (_bound(end, (0.0, margin)) for end in (interval.low, interval.high))
    if math.isinf(interval.high):
        ends = f"{interval.level}: at least {low}"
    elif math.isinf(interval.low):
        ends = f"{interval.level}: at most {high}"
    else:
        ends = f"{interval.level} interval {low} to {high}"
    return f"{points(interval.estimate)} ({ends}, {count_seeds(interval.n)})"


def _bound(end: float, thresholds: Iterable[float]) -> str:
    for digits in range(1, MOST_DIGITS + 1):
        text = f"{100 * end:.{digits}f}"
        if all(end == level or float(text) != round(100 * level, digits) for level in thresholds):
            break
    return text.replace("-", "−")


def ahead(interval: Interval, margin: float = 0.0) -> str:
    """`3.1 points (…) ahead of`, `0.4 points (…) behind`, for a difference of left minus right.

    Args:
        margin: see `with_interval`.
    """
    behind = interval.estimate is not None and interval.estimate < 0
    text = with_interval(-interval if behind else interval, margin)
    return f"{text} {'behind' if behind else 'ahead of'}"


def percent(interval: Interval) -> str:
    """A share as `33 % (95 % interval 20 to 46 %)`."""
    if interval.estimate is None:
        return "an unknown share"
    text = f"{100 * interval.estimate:.0f} %"
    if interval.low is not None and interval.high is not None:
        text += f" ({interval.level} interval {100 * interval.low:.0f} to {100 * interval.high:.0f} %)"
    return text.replace("-", "−")


def count_seeds(n: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} seed" if n == 1 else f"{n} seeds"


def count_words(counts: Mapping[str, int]) -> str:
    """`34 completed, 2 stopped`; statuses without a trial are left out."""
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def start_sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
