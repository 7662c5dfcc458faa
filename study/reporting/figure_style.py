"""How figures look: colors, fonts, one panel, and the parts that several figures share."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segstrat.config import SELF
from study.analysis.intervals import Interval
from study.analysis.study import Context
from study.frame.build import START_WORDS

# Okabe & Ito's palette, which all common kinds of color vision can distinguish. The page replaces each color
# by a CSS variable, so that its dark mode can use lighter tones of the same hues (`theme_css`).
INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d9dee3", "#ffffff"
ORANGE, BLUE, GREEN, PURPLE, SKY, AMBER = "#d55e00", "#0072b2", "#00875f", "#b4558d", "#3a9bd5", "#b98500"
CYCLE = (ORANGE, BLUE, GREEN, PURPLE, SKY, AMBER)
CSS_NAMES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper",
    ORANGE: "--c-orange", BLUE: "--c-blue", GREEN: "--c-green", PURPLE: "--c-purple", SKY: "--c-sky",
    AMBER: "--c-amber",
}  # fmt: skip

# Of the settings that a verdict compares.
LINES = {
    "raw, reference": ORANGE,
    "raw, best regularized": GREEN,
    "pre-trained, best": BLUE,
    "pre-trained, at the reference's setting": SKY,
}

RC: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    # A `$` in the name of a class or a study is one.
    "text.parse_math": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "hatch.color": MUTED,
    "hatch.linewidth": 0.8,
    "svg.fonttype": "none",
    # The same table must give the same file.
    "svg.hashsalt": "segstrat",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this."""
    with mpl.rc_context(RC):
        yield


def raw_first(arms: Iterable[str]) -> list[str]:
    """The names of arms, each once, raw before pre-trained, and self-supervised between them."""
    return sorted(set(arms), key=lambda arm: arm.replace(START_WORDS[SELF], "q"), reverse=True)


def arm_colors(arms: Iterable[str]) -> dict[str, str]:
    """A color for each arm; raw is orange and pre-trained blue where these are all."""
    names = raw_first(arms)
    plain = dict(zip(START_WORDS.values(), (ORANGE, PURPLE, BLUE), strict=True))
    if all(name in plain for name in names):
        return {name: plain[name] for name in names}
    return {name: CYCLE[index % len(CYCLE)] for index, name in enumerate(names)}


def line_colors(context: Context) -> dict[str, str]:
    """A color for each of `Context.lines`."""
    return dict(zip(context.lines, LINES.values(), strict=True))


@contextmanager
def new_panel(title: str, *, width: float = 4.9, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel, drawn in the project's style; sizes in inches."""
    with style():
        figure = Figure(figsize=(width, height))
        ax = figure.subplots()
        ax.set_title(title)
        yield figure, ax


def score_title(score: str) -> str:
    """The title of a panel that shows a score."""
    return "Mean IoU" if score == "mIoU" else f"{score[0].upper()}{score[1:]}"


def in_points(interval: Interval) -> dict[str, float]:
    """Columns of a figure's table: `estimate low high n`, in points (or percent), NaN where unknown."""
    ends = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: np.nan if end is None else 100 * end for name, end in ends.items()} | {"n": interval.n}


def draw_interval(ax: Axes, y: float, row: Mapping[Hashable, Any], color: str) -> None:
    """A dot with its interval; no interval, no bar, and an arrow where an end is open."""
    if not np.isnan(row["low"]):
        ends = [row[end] if np.isfinite(row[end]) else row["estimate"] for end in ("low", "high")]
        ax.plot(ends, [y, y], color=color, lw=3, solid_capstyle="butt", alpha=0.85)
        for end, direction in (("low", -1), ("high", 1)):
            if np.isinf(row[end]):
                arrow = {"arrowstyle": "<|-", "color": color, "lw": 2, "alpha": 0.85}
                at, tip = (row["estimate"], y), (30 * direction, 0)
                ax.annotate("", at, tip, textcoords="offset points", arrowprops=arrow)
    ax.plot([row["estimate"]], [y], "o", color=color, mec=PAPER, mew=0.9, ms=8)


def arm_dots(colors: Mapping[str, str]) -> list[Line2D]:
    """Keys of a legend: a dot in the color of each arm."""
    return [Line2D([], [], color=c, marker="o", ls="none", label=arm) for arm, c in colors.items()]


def hollow_dot() -> Line2D:
    """Key of a legend for trials without a final value."""
    return Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="no final value")


# More markers hide each other, and each is an element of the page.
MOST_MARKERS = 400


def some(table: pd.DataFrame, most: int = MOST_MARKERS) -> pd.DataFrame:
    """The table's rows, or so many of them at equal distances."""
    if len(table) <= most:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, most).round().astype(int)]


def some_words(count: int, what: str = "trials", most: int = MOST_MARKERS) -> str:
    """A sentence about what `some` leaves out, '' where that is nothing."""
    return f" Of {count:,} {what}, {most:,} are drawn." if count > most else ""


def theme_css() -> str:
    """Rules that give the colors of inline SVG figures to the page's CSS variables.

    matplotlib writes colors into `style` attributes; a selector on their text, with `!important`, wins over
    them, and the drawing itself keeps the colors for print. The selectors name no ancestor, because the
    copies that `<use>` makes of a marker have none.
    """
    rules = [
        f'[style*="{paint}: {color}"] {{ {paint}: var({name}) !important; }}'
        for color, name in CSS_NAMES.items()
        for paint in ("fill", "stroke")
    ]
    return "\n".join(rules)
