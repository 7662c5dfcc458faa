"""Figures of the answer itself: values by seed, contrasts with intervals, contexts."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis import Answer
from study.analysis.caveats_and_notes import disagreement_note
from study.analysis.intervals import Interval
from study.analysis.verdict import Verdict
from study.reporting.figure_files import Picture, figure_name
from study.reporting.figure_style import (
    BLUE,
    INK,
    LINES,
    MUTED,
    ORANGE,
    PAPER,
    draw_interval,
    in_points,
    line_colors,
    new_panel,
    some,
    some_words,
)

# Lines of more seeds hide each other.
MOST_SEEDS = 60


def seed_table(verdict: Verdict) -> pd.DataFrame:
    """Validation mIoU of the three settings that the verdict compares, by seed.

    Returns:
        one row per column × seed: `column seed setting value`; NaN values are left out.
    """
    found, columns = verdict.contrasts, verdict.context.lines[:3]
    rows = [(columns[0], seed, found.reference, value) for seed, value in found.reference_values.items()]
    for column, chosen in zip(columns[1:], (found.best_raw, found.best_pretrained), strict=True):
        for seed, value in chosen.value.items():
            rows.append((column, seed, chosen.label(int(str(seed))), value))
    return pd.DataFrame(rows, columns=["column", "seed", "setting", "value"]).dropna(ignore_index=True)


def draw_seeds(
    table: pd.DataFrame, score: str = "validation mIoU", lines: Mapping[str, str] = LINES
) -> Figure:
    """Three columns of dots, joined by seed, with the mean as a bar.

    Args:
        lines: colors of the settings by their names.
    """
    columns = list(lines)[:3]
    with new_panel(f"{score[0].upper()}{score[1:]} by seed") as (figure, ax):
        seeds = some(pd.DataFrame({"seed": table["seed"].unique()}), MOST_SEEDS)["seed"]
        drawn = table[table["seed"].isin(seeds)]
        for _, of_seed in drawn.groupby("seed"):
            row = of_seed.set_index("column")["value"].reindex(columns)
            ax.plot(range(3), row, color=MUTED, lw=0.9, alpha=0.55, zorder=2)
        for x, column in enumerate(columns):
            values = table.loc[table["column"] == column, "value"]
            if values.empty:
                ax.annotate(
                    "no value", (x, 0.5), xycoords=("data", "axes fraction"), ha="center", color=MUTED
                )
                continue
            dots = drawn.loc[drawn["column"] == column, "value"]
            ax.plot(np.full(len(dots), x), dots, "o", color=lines[column], mec=PAPER, mew=0.8, ms=7, zorder=3)
            mean = values.mean()
            ax.plot([x - 0.24, x + 0.24], [mean, mean], color=lines[column], lw=3, zorder=4)
            ax.annotate(f"{mean:.3f}", (x + 0.28, mean), va="center", color=INK, fontsize=10)
        ax.set_xlim(-0.5, 2.75)
        ax.set_xticks(range(3), [column.replace(", ", ",\n") for column in columns])
        ax.grid(axis="x", visible=False)
        ax.set_ylabel(score)
    return figure


def contrast_table(verdict: Verdict) -> pd.DataFrame:
    """The contrasts of a verdict in points of mIoU: `contrast words estimate low high n method`."""
    found, context = verdict.contrasts, verdict.context
    words = {
        "gap": f"gap: {context.pretrained_name} − {context.raw_name} reference",
        "improvement": f"gained: {context.raw_name}, regularized − reference",
        "remaining": f"remaining: {context.pretrained_name} − {context.raw_name}, regularized",
    }
    rows = []
    for name, text in words.items():
        interval: Interval = getattr(found, name)
        rows.append({"contrast": name, "words": text} | in_points(interval) | {"method": interval.method})
    return pd.DataFrame(rows).assign(margin=100 * verdict.margin)


def draw_contrasts(table: pd.DataFrame, level: str = "95 %", score: str = "mIoU") -> Figure:
    """One line per contrast, with the margin as a band around zero.

    Args:
        level: of confidence, for the title.
    """
    margin = float(table["margin"].iloc[0])
    with new_panel(f"Differences with {level} intervals") as (figure, ax):
        ax.axvspan(-margin, margin, color=MUTED, alpha=0.16, lw=0)
        ax.axvline(0, color=MUTED, lw=1)
        for y, row in enumerate(table.to_dict("records")):
            # Not the colors of settings, which the panel beside it has.
            draw_interval(ax, y, row, INK)
            ax.annotate(row["words"], (0, y - 0.3), xycoords=("axes fraction", "data"), color=INK, fontsize=9)
            if np.isnan(row["estimate"]):
                ax.annotate(
                    "no value", (0.5, y), xycoords=("axes fraction", "data"), color=MUTED, va="center"
                )
        ax.set_ylim(len(table) - 0.5, -0.6)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"points of {score} (band: margin of ±{margin:g})")
        ax.margins(x=0.12)
    return figure


def answer_picture(answer: Answer, verdict: Verdict) -> Picture:
    """The figure that shows the verdict."""
    study = answer.study
    seeds = seed_table(verdict)
    level = verdict.contrasts.remaining.level
    panels = [draw_contrasts(contrast_table(verdict), level, verdict.context.score)]
    if len(seeds):
        panels.insert(0, draw_seeds(seeds, verdict.score_name, line_colors(verdict.context)))
    where = f", {verdict.context.label}" if verdict.context.label else ""
    epoch = "the last epoch" if study.value else "the best epoch"
    return Picture(
        figure_name("answer", verdict.context.task, verdict.context.label),
        "What decides",
        f"{verdict.context.task} on {study.data_name}{where}; {verdict.score_name} at {epoch} of completed "
        f"trials. Left: one dot per seed, lines join paired seeds, bars are means; {_choice(verdict)} "
        f"Right: paired differences with {level} intervals ({_methods(verdict)}); differences inside the "
        f"gray band, the margin, count as none.{_open_ends(verdict)}"
        f"{some_words(seeds['seed'].nunique(), 'seeds', MOST_SEEDS)}",
        tuple(panels),
    )


def context_table(answer: Answer) -> pd.DataFrame:
    """Gaps of every context and task, in points: `task context contrast estimate low high n`."""
    rows = [
        {"task": verdict.context.task, "context": verdict.context.label, "contrast": name}
        | in_points(getattr(verdict.contrasts, name))
        for verdict in answer.contexts
        for name in ("gap", "remaining")
    ]
    return pd.DataFrame(rows)


def draw_contexts(
    table: pd.DataFrame, margin: float, score: str = "mIoU", names: tuple[str, str] = ("pre-trained", "raw")
) -> Figure:
    """One row per context: the gap to the raw reference above, what remains to the best raw below.

    Args:
        names: of the arm that is ahead and of the other one.
    """
    groups = list(dict.fromkeys(zip(table["task"], table["context"], strict=True)))
    several = table["task"].nunique() > 1
    labels = [": ".join([task] * several + [context] * bool(context)) for task, context in groups]
    with new_panel("The gap in every context", height=1.6 + 0.55 * len(groups)) as (figure, ax):
        ax.axvspan(-100 * margin, 100 * margin, color=MUTED, alpha=0.16, lw=0)
        ax.axvline(0, color=MUTED, lw=1)
        for y, (task, context) in enumerate(groups):
            rows = table[(table["task"] == task) & (table["context"] == context)]
            for row in rows.to_dict("records"):
                shift, color = (-0.14, BLUE) if row["contrast"] == "gap" else (0.14, ORANGE)
                draw_interval(ax, y + shift, row, color)
        ax.set_yticks(range(len(groups)), labels)
        ax.set_ylim(len(groups) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ahead, behind = names
        ax.set_xlabel(f"points of {score} that {ahead} is ahead")
        handles = [
            Line2D([], [], color=BLUE, marker="o", label=f"of the {behind} reference"),
            Line2D([], [], color=ORANGE, marker="o", label=f"of the best regularized {behind}"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def contexts_picture(answer: Answer) -> Picture | None:
    """All contexts side by side; None where there is only one."""
    table = context_table(answer)
    if len(table) <= 2 or table["estimate"].isna().all():
        return None
    context = answer.contexts[0].context
    names = context.pretrained_name, context.raw_name
    if context.pairings > 1:
        names = "the first", "second"
    level = answer.contexts[0].contrasts.remaining.level
    return Picture(
        "contexts",
        "The gap in every context",
        f"On {answer.study.data_name}. Blue: how far {names[0]} is ahead of the {names[1]} reference; "
        f"orange: of the best regularized {names[1]}. Bars: {level} intervals over paired seeds; gray band: "
        "the margin.",
        (draw_contexts(table, answer.margin, context.score, names),),
    )


def _choice(verdict: Verdict) -> str:
    """How the settings that are shown were chosen."""
    if verdict.look is not None:
        return "the leading candidates are shown."
    if verdict.contrasts.same_seed:
        return "the best setting is chosen on the seed that is shown, so it is optimistically biased."
    return " ".join(["the best setting is chosen on the other seeds.", disagreement_note(verdict)]).strip()


def _open_ends(verdict: Verdict) -> str:
    """Why an interval has no upper end, where one has none."""
    ends = (verdict.contrasts.gap.high, verdict.contrasts.remaining.high)
    if math.inf not in ends:
        return ""
    name = verdict.context.pretrained_name
    return (
        f" An arrow stands for an open end: other {name} candidates, not trained here, may be further ahead."
    )


def _methods(verdict: Verdict) -> str:
    found = verdict.contrasts
    methods = {interval.method for interval in (found.gap, found.improvement, found.remaining)}
    return "; ".join(sorted(methods))
