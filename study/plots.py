"""Figures of a study. Each is two functions: `…_table` computes what is seen, `draw_…` draws that table."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.cells import Study
from study.style import BLUE, CYCLE, MUTED, ORANGE, PAPER, Picture, style

PANEL = (5.4, 3.9)


def arm_colors(arms: list[str]) -> dict[str, str]:
    """A colour for each arm: raw ones orange, pre-trained ones blue where there is one of each."""
    plain = {"raw": ORANGE, "pre-trained": BLUE}
    if all(arm in plain for arm in arms):
        return {arm: plain[arm] for arm in arms}
    return {arm: CYCLE[index % len(CYCLE)] for index, arm in enumerate(arms)}


def level_name(value: object) -> str:
    """A treatment's strength as it is written on an axis: 0, 1e-4, 0.02."""
    if not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:.0e}".replace("e-0", "e-")
        if 0 < value < 0.01 and float(f"{value:.0e}") == value
        else f"{value:g}"
    )


def treatment_table(study: Study, axis: str, task: str) -> pd.DataFrame:
    """Loss and mIoU of every trial against one treatment axis, as in the thesis's Figure 6.1.

    Returns:
        a row for each trial × split × score: `arm level split score value final`; `final` is false for
        trials that have no final value: theirs is what they showed when they ended.
    """
    rows = [
        {
            "arm": trial["arm"],
            "level": trial[axis],
            "split": split,
            "score": score,
            "value": trial[study.column(task, split, score)],
            "final": trial["status"] == "completed",
        }
        for _, trial in study.trials.iterrows()
        for score in ("loss", "miou")
        for split in ("train", "val")
    ]
    table = pd.DataFrame(rows, columns=["arm", "level", "split", "score", "value", "final"])
    return table.dropna(subset=["value"]).sort_values(["arm", "split", "score", "level"], ignore_index=True)


def draw_treatment(table: pd.DataFrame, axis: str, score: str) -> Figure:
    """One panel of Figure 6.1: four lines through the means of completed trials; stopped ones hollow."""
    of_score = table[table["score"] == score]
    levels = sorted(of_score["level"].unique())
    place = {level: index for index, level in enumerate(levels)}
    colors = arm_colors(list(dict.fromkeys(table["arm"])))
    with style():
        figure = Figure(figsize=PANEL)
        ax = figure.subplots()
        for (arm, split), group in of_score.groupby(["arm", "split"]):
            color, dashes = colors[str(arm)], "-" if split == "val" else (0, (4, 2))
            final = group[group["final"]]
            means = final.groupby("level")["value"].mean()
            ax.plot([place[level] for level in means.index], means, ls=dashes, color=color)
            marker = "o" if split == "val" else "^"
            ax.plot(final["level"].map(place), final["value"], marker, color=color, ms=5, mec=PAPER, mew=0.6)
            ended = group[~group["final"]]
            ax.plot(ended["level"].map(place), ended["value"], marker, mfc="none", mec=color, ms=6, mew=1.2)
        ax.set_xticks(range(len(levels)), [level_name(level) for level in levels])
        ax.set_xlim(-0.4, len(levels) - 0.6)
        ax.set_xlabel(axis.replace("_", " "))
        ax.set_title("Cross-entropy loss" if score == "loss" else "Mean IoU")
        _legend(ax, colors, hollow=not of_score["final"].all())
    return figure


def weight_decay_pair(study: Study, axis: str, task: str) -> Picture:
    """The pair of the thesis's Figure 6.1: loss and mIoU against a treatment."""
    table = treatment_table(study, axis, task)
    name = axis.replace("_", " ")
    epoch = "last epoch" if study.value else "epoch with the best validation mIoU"
    return Picture(
        f"{task}-{axis}",
        f"Loss and mIoU against {name}",
        f"{task} on {study.manifest.get('data', {}).get('name', 'unknown data')}, {epoch}. Solid lines and "
        "circles: validation; dashed lines and triangles: training; lines join means over seeds of completed "
        "trials, markers are single trials. Hollow markers: trials that were stopped early or have not "
        "finished, at their last value; they have no final value and no line passes through them.",
        tuple(draw_treatment(table, axis, score) for score in ("loss", "miou")),
    )


def _legend(ax: Axes, colors: dict[str, str], *, hollow: bool) -> None:
    handles = [Line2D([], [], color=color, label=arm) for arm, color in colors.items()]
    handles.append(Line2D([], [], color=MUTED, marker="o", ms=5, label="validation"))
    handles.append(Line2D([], [], color=MUTED, marker="^", ms=5, ls=(0, (4, 2)), label="training"))
    if hollow:
        handles.append(Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="no final value"))
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=MUTED)
