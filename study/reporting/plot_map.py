"""Figure of the cells as a heat map over one or two treatments."""

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from segstrat.formatting import axis_name, format_value
from study.analysis.cells import cell_table
from study.analysis.study import Study
from study.frame import STATUSES
from study.reporting.picture import Picture
from study.reporting.plot_parts import MOST_LEVELS
from study.reporting.style import INK, MUTED, PAPER, new_panel, raw_first


def map_table(study: Study, task: str, rows: str | None, columns: str) -> pd.DataFrame:
    """Cells of the map: arm × one or two treatments.

    Args:
        rows: treatment up the side; None for a map of one row per arm.
        columns: treatment along the bottom.

    Returns:
        one row per cell: `context arm row column n val_miou low high planned stopped shown`;
        further treatments are held at the reference's value.
    """
    table = cell_table(study, task)
    for axis, level in study.reference_levels(task).items():
        if axis not in (rows, columns, "tasks") and len(table):
            table = table[table[axis] == level]
    if table.empty:
        return pd.DataFrame()
    table = table.assign(
        row=None if rows is None else table[rows],
        column=table[columns],
        planned=table[list(STATUSES)].sum(axis=1),
    )
    kept = ["context", "arm", "row", "column", "n", "val_miou", "low", "high"]
    return table[[*kept, "planned", "stopped", "shown"]].reset_index(drop=True)


def color_range(table: pd.DataFrame) -> tuple[float, float]:
    """Smallest and largest mean of a map, so that all of its panels can share one color scale."""
    means = table["val_miou"].astype(float)
    return (0.0, 1.0) if means.isna().all() else (float(means.min()), float(means.max()))


def draw_map(
    table: pd.DataFrame, rows: str | None, columns: str, title: str, shared: tuple[float, float]
) -> Figure:
    """A heat map with the numbers in it; hatched where trials were stopped.

    Args:
        shared: the means that get the ends of the color scale, the same in every panel of a picture.
    """
    levels = sorted(table["column"].unique())
    sides = raw_first(table["arm"]) if rows is None else sorted(table["row"].unique())
    key = "arm" if rows is None else "row"
    low, high = shared
    scale = mpl.colormaps["cividis"]
    height = 1.6 + 0.66 * len(sides)
    with new_panel(title, width=max(4.9, 1.3 + 0.66 * len(levels)), height=height) as (figure, ax):
        for cell in table.to_dict("records"):
            x, y = levels.index(cell["column"]), sides.index(cell[key])
            _draw_cell(ax, x, y, cell, scale, low, high)
        ax.set_xlim(-0.5, len(levels) - 0.5)
        ax.set_ylim(len(sides) - 0.5, -0.5)
        ax.set_xticks(range(len(levels)), [format_value(level) for level in levels])
        ax.set_yticks(range(len(sides)), [format_value(each) for each in sides])
        ax.set_xlabel(axis_name(columns))
        if rows is not None:
            ax.set_ylabel(axis_name(rows))
        ax.grid(visible=False)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        if table["stopped"].any():
            patch = Patch(facecolor="none", edgecolor=MUTED, hatch="////", label="has stopped trials")
            figure.legend(handles=[patch], loc="outside lower center", labelcolor=MUTED)
    return figure


def map_pictures(study: Study, task: str) -> list[Picture]:
    """The map of a study's treatments, two at a time."""
    axes = [axis for axis in study.axes("treatment") if 1 < study.trials[axis].nunique() <= MOST_LEVELS]
    pairs: list[tuple[str | None, str]] = [*itertools.combinations(axes, 2)] or [
        (None, axis) for axis in axes
    ]
    pictures = []
    for rows, columns in pairs:
        table = map_table(study, task, rows, columns)
        if table.empty:
            continue
        panels = []
        groups = ["context"] if rows is None else ["context", "arm"]
        for values, part in table.groupby(groups, sort=False):
            title = ", ".join(str(value) for value in values if value) or "Validation mIoU"
            panels.append(draw_map(part, rows, columns, title, color_range(table)))
        name = columns if rows is None else f"{rows}-{columns}"
        pictures.append(
            Picture(
                f"map-{task}-{name}",
                f"Map of {axis_name(columns)}" + (f" and {axis_name(rows)}" if rows else ""),
                f"{task} on {study.data_name}: mean validation mIoU of completed trials; below it the "
                "half-width of its 95 % interval where at least three seeds allow one, and the number of "
                "completed trials. Hatched: cells with trials that were stopped; where none was "
                "completed, the best value that they showed, which is no final one.",
                tuple(panels),
            )
        )
    return pictures


def _draw_cell(
    ax: Axes,
    x: int,
    y: int,
    cell: Mapping[Hashable, Any],
    scale: mpl.colors.Colormap,
    low: float,
    high: float,
) -> None:
    known = cell["n"] > 0
    share = 0.5 if high <= low or not known else (cell["val_miou"] - low) / (high - low)
    dark = share < 0.55
    face, ink, edge = PAPER, INK, MUTED
    if known:
        face = mpl.colors.to_hex(scale(0.12 + 0.83 * share))
        ink, edge = ("#fdfdfd", "#ffffff55") if dark else ("#101418", "#00000044")
    corner = (x - 0.48, y - 0.46)
    ax.add_patch(
        Rectangle(corner, 0.96, 0.92, facecolor=face, edgecolor=MUTED if not known else face, lw=0.6)
    )
    if cell["stopped"] > 0:
        ax.add_patch(Rectangle(corner, 0.96, 0.92, facecolor="none", edgecolor=edge, hatch="////", lw=0))
    if not known:
        ax.annotate(
            _shown_text(cell["shown"]),
            (x, y),
            ha="center",
            va="center",
            color=ink,
            fontsize=8.5,
        )
        return
    ax.annotate(f"{cell['val_miou']:.3f}", (x, y - 0.2), ha="center", va="center", color=ink, fontsize=10)
    half = "" if pd.isna(cell["low"]) else f"±{(cell['high'] - cell['low']) / 2:.3f}\n"
    ax.annotate(f"{half}n={cell['n']}", (x, y + 0.2), ha="center", va="center", color=ink, fontsize=7.5)


def _shown_text(shown: float | None) -> str:
    return "no value" if shown is None or pd.isna(shown) else f"showed\n{shown:.2f}"
