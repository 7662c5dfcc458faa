"""What several figures share."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from study.analysis.verdict import Verdict
from study.reporting.style import PAPER

# More levels than this were drawn from a distribution, not from a grid.
MOST_LEVELS = 12


def draw_interval(ax: Axes, y: float, row: Mapping[Hashable, Any], color: str) -> None:
    """A dot with its interval; no interval, no bar."""
    if not np.isnan(row["low"]):
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=3, solid_capstyle="butt", alpha=0.85)
    ax.plot([row["estimate"]], [y], "o", color=color, mec=PAPER, mew=0.9, ms=8)


def picture_name(kind: str, verdict: Verdict) -> str:
    """File name of a verdict's figure."""
    words = [kind, verdict.context.task, verdict.context.label]
    return "-".join("".join(c if c.isalnum() else "_" for c in word) for word in words if word)
