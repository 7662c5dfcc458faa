"""Figures of the treatments: loss and mIoU against one, a map of the cells, and sampled points."""

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from segstrat.formatting import axis_name, format_value
from study.analysis.cells import cell_table, tuned_trials
from study.analysis.sections.factorial_fit import MOST_LEVELS
from study.analysis.study import Study
from study.frame import STATUSES
from study.reporting.figure_files import Picture
from study.reporting.figure_style import (
    INK,
    MUTED,
    PAPER,
    arm_colors,
    arm_dots,
    hollow_dot,
    new_panel,
    raw_first,
    score_title,
    some,
    some_words,
)


def treatment_table(study: Study, axis: str, task: str) -> pd.DataFrame:
    """Loss and mIoU of every trial against one treatment axis, as in the thesis's Figure 6.1.

    Other treatments are held at the reference's value.

    Returns:
        one row per trial × split × score: `arm level split score value final`; `final` is false for
        trials that have no final value: theirs is what they showed when they ended.
    """
    trials = tuned_trials(study, task)
    for other, level in study.reference_levels(task).items():
        if other not in (axis, "tasks"):
            trials = trials[trials[other] == level]
    rows = [
        {
            "arm": trial["arm"],
            "level": trial[axis],
            "split": split,
            "score": score,
            "value": trial[study.column(task, split, score)],
            "final": trial["status"] == "completed",
        }
        for _, trial in trials.iterrows()
        for score in ("loss", "miou")
        for split in ("train", "val")
    ]
    table = pd.DataFrame(rows, columns=["arm", "level", "split", "score", "value", "final"])
    return table.dropna(subset=["value"]).sort_values(["arm", "split", "score", "level"], ignore_index=True)


def draw_treatment(table: pd.DataFrame, axis: str, score: str, title: str = "Mean IoU") -> Figure:
    """One panel of Figure 6.1: one line per arm and split through the means of completed trials."""
    of_score = table[table["score"] == score]
    levels = sorted(of_score["level"].unique())
    position = {level: index for index, level in enumerate(levels)}
    colors = arm_colors(list(table["arm"]))
    with new_panel("Cross-entropy loss" if score == "loss" else title) as (figure, ax):
        drawn = some(of_score)
        for (arm, split), group in of_score.groupby(["arm", "split"]):
            color, dashes = colors[str(arm)], "-" if split == "val" else (0, (4, 2))
            means = group[group["final"]].groupby("level")["value"].mean()
            group = group[group.index.isin(drawn.index)]
            final = group[group["final"]]
            ax.plot([position[level] for level in means.index], means, ls=dashes, color=color)
            marker = "o" if split == "val" else "^"
            ax.plot(
                final["level"].map(position), final["value"], marker, color=color, ms=5.5, mec=PAPER, mew=0.6
            )
            ended = group[~group["final"]]
            ax.plot(
                ended["level"].map(position), ended["value"], marker, mfc="none", mec=color, ms=6, mew=1.2
            )
        ax.set_xticks(range(len(levels)), [format_value(level) for level in levels])
        ax.set_xlim(-0.35, len(levels) - 0.65)
        ax.grid(axis="x", visible=False)
        ax.set_xlabel(axis_name(axis))
        _treatment_legend(figure, colors, hollow=not of_score["final"].all())
    return figure


def treatment_picture(study: Study, axis: str, task: str) -> Picture | None:
    """The pair of the thesis's Figure 6.1: loss and mIoU against a treatment; None without values."""
    table = treatment_table(study, axis, task)
    if not 1 < table["level"].nunique() <= MOST_LEVELS:
        return None
    words = study.score_words(task)
    others = [axis_name(other) for other in study.axes("treatment") if other != axis]
    held = f" {' and '.join(others).capitalize()} at the reference's value." if others else ""
    return Picture(
        f"{task}-{axis}",
        f"Loss and {words} against {axis_name(axis)}",
        f"{task} on {study.data_name}, "
        f"{'last epoch' if study.value else f'epoch with the best validation {words}'}.{held} Solid "
        "lines and circles: validation; dashed lines and triangles: training; lines join means over seeds of "
        "completed trials, markers are single trials. Hollow markers: trials that were stopped or have "
        "not finished, at their last value, which is not a final one: no line passes through it."
        f"{some_words(int((table['score'] == 'loss').sum()), 'markers')}",
        tuple(draw_treatment(table, axis, score, score_title(words)) for score in ("loss", "miou")),
    )


def _treatment_legend(figure: Figure, colors: dict[str, str], *, hollow: bool) -> None:
    handles = [Line2D([], [], color=color, label=arm) for arm, color in colors.items()]
    handles.append(Line2D([], [], color=MUTED, marker="o", ms=5, label="validation"))
    handles.append(Line2D([], [], color=MUTED, marker="^", ms=5, ls=(0, (4, 2)), label="training"))
    if hollow:
        handles.append(hollow_dot())
    figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=MUTED)


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
    pictures, words = [], study.score_words(task)
    for rows, columns in pairs:
        table = map_table(study, task, rows, columns)
        if table.empty:
            continue
        panels = []
        groups = ["context"] if rows is None else ["context", "arm"]
        for values, part in table.groupby(groups, sort=False):
            title = ", ".join(str(value) for value in values if value) or f"Validation {words}"
            panels.append(draw_map(part, rows, columns, title, color_range(table)))
        name = columns if rows is None else f"{rows}-{columns}"
        pictures.append(
            Picture(
                f"map-{task}-{name}",
                f"Map of {axis_name(columns)}" + (f" and {axis_name(rows)}" if rows else ""),
                f"{task} on {study.data_name}: mean validation {words} of completed trials; below it the "
                "half-width of its 95 % interval where there are at least three seeds, and the number of "
                "completed trials. Hatched: cells with trials that were stopped; where none was "
                "completed, the best value that they reached, which is not a final one.",
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


def sampled_table(study: Study, task: str) -> pd.DataFrame:
    """Trials of a space whose treatments were drawn from distributions.

    Returns:
        one row per trial: the treatment axes, `arm seed value final`; mIoU at the last counted epoch.
    """
    axes = [axis for axis in study.axes("treatment") if study.trials[axis].nunique() > MOST_LEVELS]
    trials = study.trials_of(task)
    table = trials[["arm", "seed", *axes]].assign(
        value=trials[study.column(task, "val", "miou")].astype(float), final=trials["status"] == "completed"
    )
    return table.dropna(subset=["value"])


def draw_sampled(table: pd.DataFrame, axis: str, score: str = "mIoU") -> Figure:
    """Validation mIoU against one sampled treatment; trials without a final value are hollow."""
    colors = arm_colors(list(table["arm"]))
    with new_panel(f"Against {axis_name(axis)}") as (figure, ax):
        for arm, group in some(table).groupby("arm", sort=False):
            for final, part in group.groupby("final"):
                face = colors[str(arm)] if final else "none"
                ax.plot(part[axis], part["value"], "o", mfc=face, mec=colors[str(arm)], ms=6.5, alpha=0.85)
        positive = table.loc[table[axis] > 0, axis]
        if len(positive) and positive.max() / positive.min() > 100:
            # A few trials are at exactly zero, which a logarithmic axis cannot show.
            ax.set_xscale("symlog", linthresh=float(positive.min()) / 2, linscale=0.3)
        ax.set_xlabel(axis_name(axis))
        ax.set_ylabel(f"validation {score}")
        handles = arm_dots(colors) + [hollow_dot()] * (not table["final"].all())
        figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=MUTED)
    return figure


def sampled_picture(study: Study, task: str) -> Picture | None:
    """Every sampled point against every sampled treatment; None for a plain grid."""
    table = sampled_table(study, task)
    axes = [axis for axis in study.axes("treatment") if axis in table]
    if table.empty or not axes:
        return None
    return Picture(
        f"sampled-{task}",
        "Sampled points",
        f"{task} on {study.data_name}: one marker per trial, at the values that were drawn for it. Hollow: "
        "stopped or unfinished trials at their last value, which is not a final one."
        f"{some_words(len(table))}",
        tuple(draw_sampled(table, axis, study.score_words(task)) for axis in axes),
    )
