"""Intervals over seeds and images: what another seed *and* another sample of images would show.

The interval over seeds alone takes the images as fixed. How much a difference depends on them is estimated
by the grouped jackknife (Shao & Tu 1995, section 2.3): the mean difference over the seeds is computed without
each group of images in turn. Both variances are added; Satterthwaite's formula gives the degrees of freedom.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from study.analysis.contrasts import Contrasts
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, Interval
from study.analysis.study import Context

# Variance below which scores are equal up to rounding.
NO_SPREAD = 1e-18


def intervals_with_images(found: Contrasts, context: Context, split: str) -> dict[str, Interval]:
    """Intervals of gap, improvement and remaining over seeds and images; empty without the scores they need.

    Args:
        split: `val` or `test`, whichever the contrasts are computed on.
    """
    column = f"last_{context.task}_{split}_miou_jackknife"
    if column not in context.trials:
        return {}
    settings = {
        "reference": (False, found.reference),
        "raw": (False, found.best_raw.usual),
        "pretrained": (True, found.best_pretrained.usual),
    }
    without = {name: _means(context, column, *cell) for name, cell in settings.items()}
    pairs = {
        "gap": ("pretrained", "reference"),
        "improvement": ("raw", "reference"),
        "remaining": ("pretrained", "raw"),
    }
    intervals = {}
    for name, (left, right) in pairs.items():
        first, second = without[left], without[right]
        if first is None or second is None or len(first) != len(second):
            continue
        interval: Interval = getattr(found, name)
        differences = found.differences[name].to_numpy(float)
        intervals[name] = add_image_variance(
            interval, differences, first - second, variance_factor=found.variance_factors[name]
        )
    return intervals


def add_image_variance(
    interval: Interval,
    differences: NDArray[np.float64],
    without_group: NDArray[np.float64],
    *,
    variance_factor: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The interval of a mean difference over seeds and images.

    Args:
        interval: the one over seeds; its estimate is kept.
        differences: one per seed (n,).
        without_group: the mean difference over seeds without each group of images (G,).
        variance_factor: as for `mean_interval`.
    """
    seeds, groups = len(differences), len(without_group)
    if interval.estimate is None or seeds < MIN_SEEDS or groups < MIN_SEEDS:
        return Interval(interval.estimate, None, None, seeds, "no interval: too few seeds or images")
    over_seeds = variance_factor * float(np.var(differences, ddof=1)) / seeds
    over_images = (groups - 1) / groups * float(((without_group - without_group.mean()) ** 2).sum())
    total = over_seeds + over_images
    if total <= NO_SPREAD:
        return Interval(interval.estimate, None, None, seeds, "no interval: no spread")
    degrees = total**2 / (over_seeds**2 / (seeds - 1) + over_images**2 / (groups - 1))
    half = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * math.sqrt(total)
    method = f"Student's t over {seeds} seeds and {groups} groups of images"
    low, high = interval.estimate - half, interval.estimate + half
    if interval.low is not None and interval.high is not None:
        # More degrees of freedom must not make it narrower than the interval over seeds alone.
        low, high = min(low, interval.low), max(high, interval.high)
    return Interval(interval.estimate, low, high, seeds, method, interval.confidence)


def _means(
    context: Context, column: str, pretrained: bool, setting: str | None
) -> NDArray[np.float64] | None:
    """The scores without each group of images, mean over the seeds of a setting (G,)."""
    rows = context.completed & (context.pretrained == pretrained) & (context.settings == setting)
    scores = [scores for scores in context.trials.loc[rows, column] if isinstance(scores, np.ndarray)]
    if not scores or len({len(score) for score in scores}) > 1:
        return None
    return pd.DataFrame(scores).mean().to_numpy(float)
