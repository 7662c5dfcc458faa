"""Figure of trials whose treatments were drawn from distributions."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segstrat.formatting import axis_name
from study.analysis.study import Study
from study.reporting.picture import Picture
from study.reporting.plot_parts import MOST_LEVELS
from study.reporting.style import MUTED, arm_colors, new_panel


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


def draw_sampled(table: pd.DataFrame, axis: str) -> Figure:
    """Validation mIoU against one sampled treatment; trials without a final value are hollow."""
    colors = arm_colors(list(table["arm"]))
    with new_panel(f"Against {axis_name(axis)}") as (figure, ax):
        for arm, group in table.groupby("arm", sort=False):
            for final, part in group.groupby("final"):
                face = colors[str(arm)] if final else "none"
                ax.plot(part[axis], part["value"], "o", mfc=face, mec=colors[str(arm)], ms=6.5, alpha=0.85)
        positive = table.loc[table[axis] > 0, axis]
        if len(positive) and positive.max() / positive.min() > 100:
            # A few trials are at exactly zero, which a logarithmic axis cannot show.
            ax.set_xscale("symlog", linthresh=float(positive.min()) / 2, linscale=0.3)
        ax.set_xlabel(axis_name(axis))
        ax.set_ylabel("validation mIoU")
        handles = [Line2D([], [], color=c, marker="o", ls="none", label=arm) for arm, c in colors.items()]
        if not table["final"].all():
            handles.append(
                Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="no final value")
            )
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
        "stopped or unfinished trials at their last value, which is not a final one.",
        tuple(draw_sampled(table, axis) for axis in axes),
    )
