"""Figure of the gap closure: which share of the gap each raw setting closes."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.analysis import Answer
from study.analysis.intervals import ratio_interval
from study.analysis.verdict import Verdict
from study.reporting.figure_files import Picture, figure_name, in_context
from study.reporting.figure_style import GREEN, INK, MUTED, ORANGE, draw_interval, in_points, new_panel

# More rows than this are a table, not a figure; the page has the table of cells.
MOST_SETTINGS = 8


def closure_table(verdict: Verdict) -> pd.DataFrame:
    """Which share of the gap each raw setting closes.

    Returns:
        one row per regularized raw setting (fixed beforehand, so nothing was selected) and a last one,
        `best`, chosen on other seeds: `setting estimate low high n chosen`, shares in percent. The gap is the
        verdict's: best pre-trained − raw reference.
    """
    found = verdict.contrasts
    rows = []
    gap = found.differences["gap"]
    for setting in found.raw.settings:
        if found.reference is None or setting in found.raw.references:
            continue
        gained = found.raw.values[setting] - found.reference_values
        both = pd.concat([gained, gap], axis=1).dropna()
        share = ratio_interval(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy())
        rows.append({"setting": setting} | in_points(share) | {"chosen": False})
    if rows:
        name = "best candidate" if verdict.look else "best, chosen on other seeds"
        rows.append({"setting": name} | in_points(found.closure) | {"chosen": True})
    return pd.DataFrame(rows, columns=["setting", "estimate", "low", "high", "n", "chosen"])


def shown_closure(table: pd.DataFrame) -> pd.DataFrame:
    """The `MOST_SETTINGS` settings that close most, in their own order; `best` stays last."""
    settings = table[~table["chosen"]]
    kept = settings.nlargest(MOST_SETTINGS, "estimate").index
    return pd.concat([settings.loc[settings.index.isin(kept)], table[table["chosen"]]], ignore_index=True)


def draw_closure(table: pd.DataFrame, names: tuple[str, str] = ("raw", "pre-trained")) -> Figure:
    """0 % is the raw reference, 100 % the best pre-trained model."""
    with new_panel("Share of the gap that is closed", height=1.4 + 0.42 * len(table)) as (figure, ax):
        for x, name in zip((0, 100), names, strict=True):
            ax.axvline(x, color=MUTED, lw=1)
            top = (x, 1.0)
            ax.annotate(
                name,
                top,
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                color=MUTED,
                fontsize=9,
            )
        for y, row in enumerate(table.to_dict("records")):
            draw_interval(ax, y, row, GREEN if row["chosen"] else ORANGE)
            # Above its line, because a long label next to the axis would leave no room for the plot.
            where = (0, y - 0.36)
            ax.annotate(row["setting"], where, xycoords=("axes fraction", "data"), color=INK, fontsize=8.5)
            if np.isnan(row["estimate"]):
                ax.annotate("no value", (50, y), ha="center", va="center", color=MUTED)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_ylim(len(table) - 0.6, -0.75)
        low = float(np.nanmin([table["low"].min(), table["estimate"].min(), -20.0]))
        high = float(np.nanmax([table["high"].max(), table["estimate"].max(), 120.0]))
        ax.set_xlim(max(low, -150) - 8, min(high, 250) + 8)
        ax.set_xlabel("% of the gap")
        ax.set_title(ax.get_title(loc="left"), pad=22)
    return figure


def closure_picture(answer: Answer, verdict: Verdict) -> Picture | None:
    """Gap closure of every raw setting; None where no part of a gap is shown to be gained."""
    table = closure_table(verdict)
    if table["estimate"].isna().all() or not verdict.contrasts.shows_share(verdict.margin):
        return None
    raw, pretrained = verdict.context.raw_name, verdict.context.pretrained_name
    chosen = (
        "the leading candidate" if verdict.look else "the best one, chosen on other seeds than it is shown on"
    )
    return Picture(
        figure_name("closure", verdict.context.task, verdict.context.label),
        "Gap closure",
        f"{verdict.context.task} on {answer.study.data_name}{in_context(verdict.context.label)}. "
        f"0 %: the {raw} reference; 100 %: the best {pretrained} model. Orange: the eight regularized {raw} "
        f"settings that close most; green: {chosen}. Bars: 95 % intervals by Fieller's theorem over paired "
        "seeds; a dot without bar has too few seeds for one.",
        (draw_closure(shown_closure(table), (raw, pretrained)),),
    )
