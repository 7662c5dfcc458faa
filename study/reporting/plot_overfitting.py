"""Figure of over-fitting: training against validation mIoU."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segstrat.formatting import setting_label
from study.analysis.study import Study
from study.reporting.picture import Picture
from study.reporting.style import GRID, MUTED, PAPER, arm_colors, new_panel


def plane_table(study: Study, task: str) -> pd.DataFrame:
    """Training against validation mIoU: one row per trial, `arm setting seed train val final`."""
    trials = study.trials_of(task)
    axes = study.axes("treatment")
    table = pd.DataFrame(
        {
            "arm": trials["arm"],
            "setting": [
                setting_label({axis: trial[axis] for axis in axes}) for _, trial in trials.iterrows()
            ],
            "seed": trials["seed"],
            "train": trials[study.column(task, "train", "miou")].astype(float),
            "val": trials[study.column(task, "val", "miou")].astype(float),
            "final": trials["status"] == "completed",
        }
    )
    return table.dropna(subset=["train", "val"])


def draw_plane(table: pd.DataFrame) -> Figure:
    """The further to the right of the diagonal, the more a trial over-fits."""
    colors = arm_colors(list(table["arm"]))
    with new_panel("Training against validation", height=4.6) as (figure, ax):
        low = float(min(table["train"].min(), table["val"].min()))
        high = float(max(table["train"].max(), table["val"].max()))
        pad = 0.05 * (high - low or 1)
        ends = np.array([low - pad, high + pad])
        for gap in (0.0, 0.1, 0.2, 0.3, 0.4):
            ax.plot(ends, ends - gap, color=MUTED if gap == 0 else GRID, lw=1, zorder=1)
        for arm, group in table.groupby("arm", sort=False):
            color = colors[str(arm)]
            final, ended = group[group["final"]], group[~group["final"]]
            ax.plot(final["train"], final["val"], "o", color=color, mec=PAPER, mew=0.7, ms=7, alpha=0.9)
            ax.plot(ended["train"], ended["val"], "o", mfc="none", mec=color, mew=1.1, ms=6)
        spread = float(table["val"].max() - table["val"].min())
        ax.set_xlim(*ends)
        ax.set_ylim(
            float(table["val"].min()) - 0.1 * spread - pad / 2,
            float(table["val"].max()) + 0.1 * spread + pad / 2,
        )
        ax.grid(visible=False)
        ax.set_xlabel("training mIoU")
        ax.set_ylabel("validation mIoU")
        handles = [Line2D([], [], color=c, marker="o", ls="none", label=arm) for arm, c in colors.items()]
        handles.append(Line2D([], [], color=MUTED, label="no over-fitting"))
        if not table["final"].all():
            handles.append(
                Line2D([], [], color=MUTED, marker="o", mfc="none", ls="none", label="no final value")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def plane_picture(study: Study, task: str) -> Picture | None:
    """Over-fitting; None without values."""
    table = plane_table(study, task)
    if table.empty:
        return None
    return Picture(
        f"plane-{task}",
        "Over-fitting",
        f"{task} on {study.data_name}: one marker per trial. On the dark diagonal training and validation "
        "agree; each light one further right is 0.1 mIoU more of over-fitting. Training scores are those "
        "of augmented crops. Hollow: trials without a final value.",
        (draw_plane(table),),
    )
