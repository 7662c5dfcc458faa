"""Figures of the training: learning curves (the thesis's Figures 6.2 and 6.3) and over-fitting."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from segstrat.formatting import setting_label
from study.analysis.caveats_and_notes import disagreement_note
from study.analysis.study import Study
from study.analysis.verdict import Verdict
from study.reporting.figure_files import Picture, figure_name, in_context
from study.reporting.figure_style import (
    GRID,
    LINES,
    MUTED,
    PAPER,
    arm_colors,
    arm_dots,
    hollow_dot,
    line_colors,
    new_panel,
    score_title,
    some,
    some_words,
)

LOOKS: dict[str, dict] = {"val": {"lw": 1.8}, "train": {"lw": 1.2, "ls": (0, (1, 1.4)), "mfc": PAPER}}
# Up to here every epoch gets a tick and a marker.
FEW_EPOCHS = 8


def shown_settings(verdict: Verdict) -> list[tuple[str, bool, str]]:
    """The settings that curves and class scores show: `(name, pretrained, setting)`, without repeats."""
    found, lines = verdict.contrasts, verdict.context.lines
    wanted = [
        (lines[0], False, found.reference),
        (lines[1], False, found.best_raw.usual),
        (lines[2], True, found.best_pretrained.usual),
        (lines[3], True, found.reference),
    ]
    shown: dict[tuple[bool, str], str] = {}
    for name, pretrained, setting in wanted:
        if setting is not None:
            shown.setdefault((pretrained, setting), name)
    return [(name, pretrained, setting) for (pretrained, setting), name in shown.items()]


def curve_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """Learning curves of the settings that matter, over the seeds, in the form of Figures 6.2 and 6.3.

    Trials that were stopped end where they were stopped; an epoch is shown as long as every trial of the
    setting that ran so far has a value there.

    Returns:
        one row per line × split × score × epoch: `line setting split score epoch mean low high n`;
        `low` and `high` are the smallest and largest seed.
    """
    context = verdict.context
    labels = context.settings
    parts = []
    for name, pretrained, setting in shown_settings(verdict):
        mask = (context.pretrained == pretrained) & (labels == setting)
        ids = context.trials.loc[mask & context.completed, "trial_id"]
        # The other splits are scored at one epoch only.
        epochs = study.epochs[study.epochs["split"].isin(LOOKS)]
        curves = epochs[epochs["trial_id"].isin(ids) & (epochs["task"] == context.task)]
        if curves.empty:
            continue
        for score in ("loss", "miou"):
            grouped = curves.dropna(subset=[score]).groupby(["split", "epoch"])[score]
            part = grouped.agg(mean="mean", low="min", high="max", n="size").reset_index()
            # Where validation is sparse or a trial is short, a mean over fewer seeds would jump.
            part = part[part["n"] == len(ids)]
            parts.append(part.assign(line=name, setting=setting, score=score))
    columns = ["line", "setting", "split", "score", "epoch", "mean", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def draw_curves(
    table: pd.DataFrame, score: str, title: str = "Mean IoU", lines: Mapping[str, str] = LINES
) -> Figure:
    """Validation solid with seed bands, training dotted.

    Args:
        lines: colors of the settings by their names.
    """
    of_score = table[table["score"] == score]
    last = int(of_score["epoch"].max())
    # Markers, because the line of a single epoch is invisible.
    marker = "o" if last <= FEW_EPOCHS else None
    with new_panel("Loss" if score == "loss" else title) as (figure, ax):
        for (name, split), line in of_score.groupby(["line", "split"], sort=False):
            color = lines[str(name)]
            look = LOOKS["val" if split == "val" else "train"]
            label = f"{name}, {'validation' if split == 'val' else 'training'}"
            ax.plot(line["epoch"], line["mean"], color=color, marker=marker, ms=4, label=label, **look)
            if split == "val":
                ax.fill_between(line["epoch"], line["low"], line["high"], color=color, alpha=0.18, lw=0)
        ax.set_xlabel("epoch")
        if last <= FEW_EPOCHS:
            ax.set_xticks(range(1, last + 1))
            ax.set_xlim(0.7, last + 0.3)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_xlim(left=0)
        shown = [name for name in lines if name in set(of_score["line"])]
        handles = [Line2D([], [], color=lines[name], label=name) for name in shown]
        handles += [
            Line2D([], [], color=MUTED, marker=marker, ms=4, label=label, **LOOKS[split])
            for split, label in (("val", "validation"), ("train", "training"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def curves_picture(study: Study, verdict: Verdict) -> Picture | None:
    """Learning curves; None where the frame holds none."""
    table = curve_table(study, verdict)
    if table.empty:
        return None
    settings = "; ".join(
        dict.fromkeys(
            f"{line}: {setting}" for line, setting in zip(table["line"], table["setting"], strict=True)
        )
    )
    where = in_context(verdict.context.label)
    names = verdict.context.raw_name, verdict.context.pretrained_name
    return Picture(
        figure_name("curves", verdict.context.task, verdict.context.label),
        "Learning curves",
        f"{verdict.context.task} on {study.data_name}{where}, completed trials: mean over seeds, the band "
        "spans the smallest and the largest seed. Training scores are those of augmented crops while "
        f"training. {settings}. {start_and_speed(table, names)} "
        f"{disagreement_note(verdict)}".strip(),
        tuple(
            draw_curves(table, score, score_title(verdict.context.score), line_colors(verdict.context))
            for score in ("loss", "miou")
        ),
    )


def start_and_speed(table: pd.DataFrame, names: tuple[str, str] = ("raw", "pre-trained")) -> str:
    """Who starts ahead, and when pre-trained reaches what raw ends with; '' without both arms.

    The thesis's text says that pre-trained starts at about 50 %, raw at 5 %, and that it converges faster.

    Args:
        table: as from `curve_table`.
    """
    scores = table[(table["score"] == "miou") & (table["split"] == "val")]
    slow, fast = names
    raw, pretrained = (
        scores[scores["line"] == line].set_index("epoch")["mean"]
        for line in (f"{slow}, reference", f"{fast}, best")
    )
    if raw.empty or pretrained.empty:
        return ""
    start = int(max(raw.index[0], pretrained.index[0]))
    if start not in raw.index or start not in pretrained.index:
        return ""
    reached = pretrained[pretrained >= raw.iloc[-1]]
    when = f"first at epoch {reached.index[0]}" if len(reached) else "at no epoch"
    return (
        f"After epoch {start}, the first that is scored in both, {fast} has "
        f"{pretrained[start]:.3f} and {slow} {raw[start]:.3f}; what {slow} ends with at epoch "
        f"{raw.index[-1]} ({raw.iloc[-1]:.3f}), {fast} has {when}."
    )


def plane_table(study: Study, task: str) -> pd.DataFrame:
    """Training against validation mIoU: one row per trial, `arm setting seed train val final`.

    Trials without a final value are left out where training is compared on clean images, see
    `Study.training_split`.
    """
    trials = study.trials_of(task)
    axes = study.axes("treatment")
    settings = [*zip(*(trials[axis] for axis in axes), strict=True)] or [()] * len(trials)
    table = pd.DataFrame(
        {
            "arm": trials["arm"],
            "setting": [setting_label(dict(zip(axes, values, strict=True))) for values in settings],
            "seed": trials["seed"],
            "train": trials[study.column(task, study.training_split(task), "miou")].astype(float),
            "val": trials[study.column(task, "val", "miou")].astype(float),
            "final": trials["status"] == "completed",
        }
    )
    return table.dropna(subset=["train", "val"])


def draw_plane(table: pd.DataFrame, score: str = "mIoU") -> Figure:
    """The further to the right of the diagonal, the more a trial over-fits."""
    colors = arm_colors(list(table["arm"]))
    with new_panel("Training against validation", height=4.6) as (figure, ax):
        low = float(min(table["train"].min(), table["val"].min()))
        high = float(max(table["train"].max(), table["val"].max()))
        pad = 0.05 * (high - low or 1)
        ends = np.array([low - pad, high + pad])
        for gap in (0.0, 0.1, 0.2, 0.3, 0.4):
            ax.plot(ends, ends - gap, color=MUTED if gap == 0 else GRID, lw=1, zorder=1)
        for arm, group in some(table).groupby("arm", sort=False):
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
        ax.set_xlabel(f"training {score}")
        ax.set_ylabel(f"validation {score}")
        handles = [*arm_dots(colors), Line2D([], [], color=MUTED, label="no over-fitting")]
        handles += [hollow_dot()] * (not table["final"].all())
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
        f"agree; each light one further right is 0.1 {study.score_words(task)} more of over-fitting. "
        f"{study.training_words(task)} Hollow: trials without a final value.{some_words(len(table))}",
        (draw_plane(table, study.score_words(task)),),
    )
