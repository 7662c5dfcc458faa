"""Figures of the answer itself: values by seed, contrasts with intervals, gap closure, contexts."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis.answer import Answer
from study.analysis.cells import final_bounds
from study.analysis.contrasts import final_values, scores_for_choice, side
from study.analysis.intervals import Interval, ratio_interval
from study.analysis.study import Study
from study.analysis.verdict import Verdict
from study.reporting.style import BLUE, GREEN, INK, MUTED, ORANGE, PAPER, Picture, new_panel

# More rows than this are a table, not a figure; the page has the table of cells.
MOST_SETTINGS = 8
PLACES = ("raw, unregularized", "raw, best regularized", "pre-trained, best")


def ladder_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """Validation mIoU of the three settings that the verdict compares, by seed.

    Returns:
        a row for each place × seed: `place seed setting value`; NaN values are left out.
    """
    context, found = verdict.context, verdict.contrasts
    values = final_values(study, context)
    scores = scores_for_choice(context, final_bounds(study, context))
    raw = side(context, values, scores, pretrained=False)
    rows = []
    if raw.reference is not None:
        for seed, value in raw.values[raw.reference].items():
            rows.append((PLACES[0], seed, raw.reference, value))
    for place, chosen in zip(PLACES[1:], (found.raw, found.pretrained), strict=True):
        for seed, value in chosen.value.items():
            rows.append((place, seed, chosen.setting.get(int(str(seed)), ""), value))
    return pd.DataFrame(rows, columns=["place", "seed", "setting", "value"]).dropna(ignore_index=True)


def draw_ladder(table: pd.DataFrame) -> Figure:
    """Three columns of dots, joined within each seed, with the mean as a bar."""
    colors = dict(zip(PLACES, (ORANGE, GREEN, BLUE), strict=True))
    with new_panel("Validation mIoU by seed") as (figure, ax):
        for _, of_seed in table.groupby("seed"):
            row = of_seed.set_index("place")["value"].reindex(list(PLACES))
            ax.plot(range(3), row, color=MUTED, lw=0.9, alpha=0.55, zorder=2)
        for x, place in enumerate(PLACES):
            values = table.loc[table["place"] == place, "value"]
            if values.empty:
                ax.annotate(
                    "no value", (x, 0.5), xycoords=("data", "axes fraction"), ha="center", color=MUTED
                )
                continue
            ax.plot(
                np.full(len(values), x), values, "o", color=colors[place], mec=PAPER, mew=0.8, ms=7, zorder=3
            )
            mean = values.mean()
            ax.plot([x - 0.24, x + 0.24], [mean, mean], color=colors[place], lw=3, zorder=4)
            ax.annotate(f"{mean:.3f}", (x + 0.28, mean), va="center", color=INK, fontsize=10)
        ax.set_xlim(-0.5, 2.75)
        ax.set_xticks(range(3), [place.replace(", ", ",\n") for place in PLACES])
        ax.grid(axis="x", visible=False)
        ax.set_ylabel("validation mIoU")
    return figure


def contrast_table(answer: Answer, verdict: Verdict) -> pd.DataFrame:
    """The contrasts of a verdict in points of mIoU: `contrast words estimate low high n method`."""
    found = verdict.contrasts
    words = {
        "gap": "gap: pre-trained − raw, unregularized",
        "improvement": "gained: raw, regularized − unregularized",
        "remaining": "remaining: pre-trained − raw, regularized",
    }
    rows = []
    for name, text in words.items():
        interval: Interval = getattr(found, name)
        ends = (interval.estimate, interval.low, interval.high)
        rows.append(
            (name, text, *(None if end is None else 100 * end for end in ends), interval.n, interval.method)
        )
    table = pd.DataFrame(rows, columns=["contrast", "words", "estimate", "low", "high", "n", "method"])
    table["margin"] = 100 * answer.margin
    return table.astype(dict.fromkeys(("estimate", "low", "high"), float))


def draw_contrasts(table: pd.DataFrame) -> Figure:
    """A line each, with the margin as a band around zero."""
    colors = {"gap": BLUE, "improvement": GREEN, "remaining": ORANGE}
    margin = float(table["margin"].iloc[0])
    with new_panel("Differences with 95 % intervals") as (figure, ax):
        ax.axvspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
        ax.axvline(0, color=MUTED, lw=1)
        for y, row in enumerate(table.to_dict("records")):
            color = colors[row["contrast"]]
            _interval_line(ax, y, row, color)
            ax.annotate(row["words"], (0, y - 0.3), xycoords=("axes fraction", "data"), color=INK, fontsize=9)
            if np.isnan(row["estimate"]):
                ax.annotate(
                    "no value", (0.5, y), xycoords=("axes fraction", "data"), color=MUTED, va="center"
                )
        ax.set_ylim(len(table) - 0.5, -0.6)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"points of validation mIoU (band: margin of ±{margin:g})")
        ax.margins(x=0.12)
    return figure


def closure_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """Which share of the gap each raw setting closes.

    Returns:
        a row a regularized raw setting (fixed beforehand, so nothing was selected) and a last one, `best`,
        chosen on other seeds: `setting estimate low high n chosen`, shares in percent. The gap is the
        verdict's: best pre-trained − unregularized raw.
    """
    context, found = verdict.context, verdict.contrasts
    values = final_values(study, context)
    scores = scores_for_choice(context, final_bounds(study, context))
    raw = side(context, values, scores, pretrained=False)
    rows = []
    gap = found.differences["gap"]
    for setting in raw.settings:
        if raw.reference is None or setting == raw.reference:
            continue
        gained = raw.values[setting] - raw.values[raw.reference]
        both = pd.concat([gained, gap], axis=1).dropna()
        rows.append((setting, ratio_interval(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()), False))
    if rows:
        rows.append(("best, chosen on other seeds", found.closure, True))
    shares = [
        (setting, *(None if end is None else 100 * end for end in (i.estimate, i.low, i.high)), i.n, chosen)
        for setting, i, chosen in rows
    ]
    table = pd.DataFrame(shares, columns=["setting", "estimate", "low", "high", "n", "chosen"])
    return table.astype(dict.fromkeys(("estimate", "low", "high"), float))


def shown_closure(table: pd.DataFrame) -> pd.DataFrame:
    """The `MOST_SETTINGS` settings that close most, in their own order; `best` stays last."""
    settings = table[~table["chosen"]]
    kept = settings.nlargest(MOST_SETTINGS, "estimate").index
    return pd.concat([settings.loc[settings.index.isin(kept)], table[table["chosen"]]], ignore_index=True)


def draw_closure(table: pd.DataFrame) -> Figure:
    """0 % is unregularized raw, 100 % the best pre-trained model."""
    with new_panel("Share of the gap that is closed", height=1.4 + 0.42 * len(table)) as (figure, ax):
        for x, name in ((0, "raw"), (100, "pre-trained")):
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
            _interval_line(ax, y, row, GREEN if row["chosen"] else ORANGE)
            # Above its line and not beside the axis: a long label would leave no room for the plot.
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


def context_table(answer: Answer) -> pd.DataFrame:
    """Gaps of every context and task, in points: `task context contrast estimate low high n`."""
    rows = []
    for task, verdicts in answer.verdicts.items():
        for verdict in verdicts:
            for name in ("gap", "remaining"):
                interval: Interval = getattr(verdict.contrasts, name)
                ends = (interval.estimate, interval.low, interval.high)
                points = (None if end is None else 100 * end for end in ends)
                rows.append((task, verdict.context.label, name, *points, interval.n))
    table = pd.DataFrame(rows, columns=["task", "context", "contrast", "estimate", "low", "high", "n"])
    return table.astype(dict.fromkeys(("estimate", "low", "high"), float))


def draw_contexts(table: pd.DataFrame, margin: float) -> Figure:
    """A row a context: the gap to unregularized raw above, what remains to the best raw below."""
    groups = list(dict.fromkeys(zip(table["task"], table["context"], strict=True)))
    several = table["task"].nunique() > 1
    names = [": ".join([task] * several + [context] * bool(context)) for task, context in groups]
    with new_panel("The gap in every context", height=1.6 + 0.55 * len(groups)) as (figure, ax):
        ax.axvspan(-100 * margin, 100 * margin, color=MUTED, alpha=0.16, lw=0)
        ax.axvline(0, color=MUTED, lw=1)
        for y, (task, context) in enumerate(groups):
            rows = table[(table["task"] == task) & (table["context"] == context)]
            for row in rows.to_dict("records"):
                shift, color = (-0.14, BLUE) if row["contrast"] == "gap" else (0.14, ORANGE)
                _interval_line(ax, y + shift, row, color)
        ax.set_yticks(range(len(groups)), names)
        ax.set_ylim(len(groups) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("points of validation mIoU that pre-trained is ahead")
        handles = [
            Line2D([], [], color=BLUE, marker="o", label="of unregularized raw"),
            Line2D([], [], color=ORANGE, marker="o", label="of the best regularized raw"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def answer_picture(answer: Answer, verdict: Verdict) -> Picture:
    """The figure that shows the verdict."""
    study = answer.study
    ladder = ladder_table(study, verdict)
    panels = [draw_contrasts(contrast_table(answer, verdict))]
    if len(ladder):
        panels.insert(0, draw_ladder(ladder))
    where = f", {verdict.context.label}" if verdict.context.label else ""
    epoch = "the last epoch" if study.value else "the best epoch"
    chosen = (
        "chosen on the seed that is shown, so it flatters"
        if verdict.contrasts.same_seed
        else "chosen on the other seeds"
    )
    return Picture(
        _name("answer", verdict),
        "What decides",
        f"{verdict.context.task} on {study.data_name}{where}; validation mIoU at {epoch} of completed "
        "trials. Left: a dot a seed, lines join paired seeds, bars are means; the best setting is "
        f"{chosen}. Right: paired differences with 95 % intervals ({_methods(verdict)}); differences "
        "inside the grey band, the margin, count as none.",
        tuple(panels),
    )


def closure_picture(answer: Answer, verdict: Verdict) -> Picture | None:
    """Gap closure of every raw setting; None where there is no setting to show."""
    table = closure_table(answer.study, verdict)
    if table["estimate"].isna().all():
        return None
    return Picture(
        _name("closure", verdict),
        "Gap closure",
        f"{verdict.context.task} on {answer.study.data_name}. 0 %: raw without regularization; 100 %: the "
        "best pre-trained model. Orange: the eight regularized raw settings that close most; green: the "
        "best one, chosen on other seeds than it is shown on. Bars: 95 % intervals by Fieller's theorem "
        "over paired seeds; a dot without bar has too few seeds for one.",
        (draw_closure(shown_closure(table)),),
    )


def contexts_picture(answer: Answer) -> Picture | None:
    """All contexts side by side; None where there is only one."""
    table = context_table(answer)
    if len(table) <= 2 or table["estimate"].isna().all():
        return None
    return Picture(
        "contexts",
        "The gap in every context",
        f"On {answer.study.data_name}. Blue: how far pre-trained is ahead of unregularized raw; orange: of "
        "the best regularized raw. Bars: 95 % intervals over paired seeds; grey band: the margin.",
        (draw_contexts(table, answer.margin),),
    )


def _interval_line(ax: Axes, y: float, row: Mapping[Hashable, Any], color: str) -> None:
    """A dot with its interval; no interval, no bar."""
    if not np.isnan(row["low"]):
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=3, solid_capstyle="butt", alpha=0.85)
    ax.plot([row["estimate"]], [y], "o", color=color, mec=PAPER, mew=0.9, ms=8)


def _methods(verdict: Verdict) -> str:
    found = verdict.contrasts
    methods = {interval.method for interval in (found.gap, found.improvement, found.remaining)}
    return "; ".join(sorted(methods))


def _name(kind: str, verdict: Verdict) -> str:
    words = [kind, verdict.context.task, verdict.context.label]
    return "-".join("".join(c if c.isalnum() else "_" for c in word) for word in words if word)
