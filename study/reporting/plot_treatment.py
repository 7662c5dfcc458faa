"""Figure of loss and mIoU against one treatment: the thesis's Figure 6.1."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segstrat.formatting import format_value
from study.analysis.cells import tuned_trials
from study.analysis.study import Study
from study.analysis.words.names import axis_name
from study.reporting.picture import Picture
from study.reporting.plot_parts import MOST_LEVELS
from study.reporting.style import MUTED, PAPER, arm_colors, new_panel


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


def draw_treatment(table: pd.DataFrame, axis: str, score: str) -> Figure:
    """One panel of Figure 6.1: one line per arm and split through the means of completed trials."""
    of_score = table[table["score"] == score]
    levels = sorted(of_score["level"].unique())
    position = {level: index for index, level in enumerate(levels)}
    colors = arm_colors(list(table["arm"]))
    with new_panel("Cross-entropy loss" if score == "loss" else "Mean IoU") as (figure, ax):
        for (arm, split), group in of_score.groupby(["arm", "split"]):
            color, dashes = colors[str(arm)], "-" if split == "val" else (0, (4, 2))
            final = group[group["final"]]
            means = final.groupby("level")["value"].mean()
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
    others = [axis_name(other) for other in study.axes("treatment") if other != axis]
    held = f" {' and '.join(others).capitalize()} at the reference's value." if others else ""
    return Picture(
        f"{task}-{axis}",
        f"Loss and mIoU against {axis_name(axis)}",
        f"{task} on {study.data_name}, "
        f"{'last epoch' if study.value else 'epoch with the best validation mIoU'}.{held} Solid lines and "
        "circles: validation; dashed lines and triangles: training; lines join means over seeds of "
        "completed trials, markers are single trials. Hollow markers: trials that were stopped or have "
        "not finished, at their last value; that is no final value, and no line passes through it.",
        tuple(draw_treatment(table, axis, score) for score in ("loss", "miou")),
    )


def _treatment_legend(figure: Figure, colors: dict[str, str], *, hollow: bool) -> None:
    handles = [Line2D([], [], color=color, label=arm) for arm, color in colors.items()]
    handles.append(Line2D([], [], color=MUTED, marker="o", ms=5, label="validation"))
    handles.append(Line2D([], [], color=MUTED, marker="^", ms=5, ls=(0, (4, 2)), label="training"))
    if hollow:
        handles.append(Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="no final value"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, labelcolor=MUTED)
