"""Main effects and two-way interactions: figures and tables."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis.sections.factorial_effects import (
    BOTH,
    DIFFERENCE,
    PRETRAINED,
    RAW,
    SIGNIFICANT,
    FactorialEffects,
    effect_label,
)
from study.reporting.figure_files import Picture, figure_name
from study.reporting.figure_style import BLUE, GREEN, MUTED, ORANGE, PAPER, PURPLE, new_panel

COLORS = {RAW: ORANGE, PRETRAINED: BLUE, DIFFERENCE: GREEN, BOTH: PURPLE}
# More interactions than this are a table; the largest are drawn.
MOST_ROWS = 10


def effect_table(effects: FactorialEffects) -> pd.DataFrame:
    """Effects in points of mIoU.

    Returns:
        a row per response and effect with an estimate: `response kind label estimate low high shown`; `shown`
        says whether Holm's adjusted p-value is below 0.05.
    """
    table = effects.table.dropna(subset=["estimate"]).reset_index(drop=True)
    numbers = {name: 100 * table[name].astype(float) for name in ("estimate", "low", "high")}
    return pd.DataFrame(
        {
            "response": table["response"],
            "kind": table["kind"],
            "label": [effect_label(row) for row in table.to_dict("records")],
            **numbers,
            "shown": table["adjusted_p"] < SIGNIFICANT,
        }
    )


def draw_effects(table: pd.DataFrame, title: str, axis: str) -> Figure:
    """A row per effect and a line per response; hollow where the effect is not shown."""
    labels = list(dict.fromkeys(table["label"]))
    responses = [name for name in COLORS if name in set(table["response"])]
    height = 1.3 + len(labels) * (0.26 + 0.16 * len(responses))
    with new_panel(title, width=5.6, height=height) as (figure, ax):
        ax.axvline(0, color=MUTED, lw=1)
        for y, label in enumerate(labels):
            for index, response in enumerate(responses):
                rows = table[(table["label"] == label) & (table["response"] == response)]
                shift = 0.22 * (index - (len(responses) - 1) / 2)
                for row in rows.to_dict("records"):
                    _draw_effect(ax, y + shift, row, COLORS[response])
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.45, -0.55)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(axis)
        if len(responses) > 1:
            handles = [Line2D([], [], color=COLORS[name], marker="o", lw=3, label=name) for name in responses]
            figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def effects_picture(effects: FactorialEffects, data: str) -> Picture | None:
    """Main effects, the difference between the arms and the largest interactions; None without estimates."""
    table = effect_table(effects)
    if table.empty:
        return None
    arms = [name for name in (RAW, PRETRAINED) if name in effects.responses]
    main = table["kind"] == "main"
    parts = [
        (main & table["response"].isin(arms), "Main effects", f"points of validation {effects.used.score}")
    ]
    if DIFFERENCE in effects.responses:
        parts.append(
            (main & (table["response"] == DIFFERENCE), "More for raw than for pre-trained", "points")
        )
    largest = _largest_interactions(table[~main & table["response"].isin(arms)])
    panels = [draw_effects(table[chosen], title, axis) for chosen, title, axis in parts]
    if len(largest):
        panels.append(draw_effects(largest, "Two-way interactions", "points, difference of differences"))
    where = f", {effects.context}" if effects.context else ""
    return Picture(
        figure_name("effects", effects.task, effects.context),
        "Main effects",
        f"{effects.task} on {data}{where}, {effects.used.when}: what a level gains over the weakest one, "
        "averaged over the other factors. Bars: 95 % intervals from the pooled error. Filled dots are shown "
        "by Holm's test over all effects of their kind; hollow ones are not.",
        tuple(panels),
    )


def effect_rows(effects: FactorialEffects) -> list[tuple[str, list[dict[str, Any]]]]:
    """Tables of the page: title and rows, each an effect's `label` with a cell per response in `cells`."""
    tables = [
        ("Main effects", effects.table, "main"),
        ("Without diverged trials", effects.survivors, "main"),
        ("Two-way interactions", effects.table, "interaction"),
    ]
    found = []
    for title, table, kind in tables:
        rows: dict[str, dict[str, Any]] = {}
        of_kind = [] if table is None else table[table["kind"] == kind].to_dict("records")
        for row in of_kind:
            label = effect_label(row)
            cell = {
                key: None if pd.isna(row[key]) else float(row[key]) for key in ("estimate", "low", "high")
            }
            cell |= {"shown": bool(row["adjusted_p"] < SIGNIFICANT), "n": len(effects.seeds)}
            rows.setdefault(label, {"label": label, "cells": {}})["cells"][row["response"]] = cell
        if rows:
            found.append((title, list(rows.values())))
    return found


def _largest_interactions(table: pd.DataFrame) -> pd.DataFrame:
    size = table.groupby("label")["estimate"].apply(lambda values: values.abs().max())
    kept = size.nlargest(MOST_ROWS).index
    return table[table["label"].isin(kept)]


def _draw_effect(ax: Axes, y: float, row: dict, color: str) -> None:
    if not pd.isna(row["low"]):
        alpha = 0.9 if row["shown"] else 0.45
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=3, solid_capstyle="butt", alpha=alpha)
    face = color if row["shown"] else PAPER
    ax.plot([row["estimate"]], [y], "o", mfc=face, mec=color, mew=1.2, ms=6.5)
