"""Figure of the differences by class."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis.intervals import mean_interval
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict
from study.reporting.figure_files import Picture, figure_name
from study.reporting.figure_style import GREEN, MUTED, ORANGE, PAPER, new_panel


def class_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """Per-class IoU differences at the last epoch, paired by seed, between the settings chosen most often.

    Returns:
        one row per class × contrast (`remaining`: best pre-trained − best regularized raw,
        `improvement`: best regularized raw − reference): `label contrast estimate low high n`, in points.
    """
    context, found = verdict.context, verdict.contrasts
    best_raw = (False, found.best_raw.usual)
    pairs = {
        "remaining": ((True, found.best_pretrained.usual), best_raw),
        "improvement": (best_raw, (False, found.reference)),
    }
    scores = _class_scores(study, context)
    names = (study.manifest.get("data") or {}).get("classes", {}).get(context.task)
    rows = []
    for contrast, (left, right) in pairs.items():
        of_left, of_right = scores.get(left, {}), scores.get(right, {})
        paired = [of_left[seed] - of_right[seed] for seed in of_left if seed in of_right]
        if not paired:
            continue
        for index, values in enumerate(np.stack(paired, axis=1)):
            interval = mean_interval(100 * values)
            if interval.estimate is not None:
                label = names[index] if names and index < len(names) else f"class {index}"
                rows.append((label, contrast, interval.estimate, interval.low, interval.high, interval.n))
    table = pd.DataFrame(rows, columns=["label", "contrast", "estimate", "low", "high", "n"])
    return table.astype(dict.fromkeys(("estimate", "low", "high"), float))


def draw_classes(table: pd.DataFrame) -> Figure:
    """Classes from the one where pre-training matters most to the one where it matters least."""
    remaining = table[table["contrast"] == "remaining"].sort_values("estimate", ascending=False)
    order = list(remaining["label"]) or list(dict.fromkeys(table["label"]))
    with new_panel("By class", height=1.6 + 0.34 * len(order)) as (figure, ax):
        ax.axvline(0, color=MUTED, lw=1)
        for contrast, shift, color in (("remaining", -0.13, ORANGE), ("improvement", 0.13, GREEN)):
            for row in table[table["contrast"] == contrast].to_dict("records"):
                y = order.index(row["label"]) + shift
                if not np.isnan(row["low"]):
                    ax.plot([row["low"], row["high"]], [y, y], color=color, lw=2, alpha=0.55)
                ax.plot([row["estimate"]], [y], "o", color=color, ms=5.5, mec=PAPER, mew=0.7)
        ax.set_yticks(range(len(order)), order)
        ax.set_ylim(len(order) - 0.4, -0.6)
        # One class that varies much between seeds must not compress all others.
        reach = 1.6 * float(table["estimate"].abs().max()) + 2
        ends = float(np.nanmax(table[["low", "high", "estimate"]].abs().to_numpy()))
        reach = min(reach, 1.05 * ends + 1)
        ax.set_xlim(-reach, reach)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("points of IoU")
        handles = [
            Line2D([], [], color=ORANGE, marker="o", label="pre-trained − raw, best each"),
            Line2D([], [], color=GREEN, marker="o", label="raw: regularized − reference"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def class_picture(study: Study, verdict: Verdict) -> Picture | None:
    """How the gap is distributed over the classes; None without per-class scores."""
    table = class_table(study, verdict)
    if table.empty:
        return None
    return Picture(
        figure_name("classes", verdict.context.task, verdict.context.label),
        "Differences by class",
        f"{verdict.context.task} on {study.data_name}: paired differences of IoU at the last epoch. "
        "Orange: what pre-training is still ahead of the best regularized raw model; green: what "
        "regularization gave raw. Bars: 95 % intervals over seeds, not corrected for the number of "
        "classes; long ones are cut at the frame.",
        (draw_classes(table),),
    )


def _class_scores(study: Study, context: Context) -> dict[tuple[bool, str | None], dict[int, np.ndarray]]:
    """IoU of each class at the last epoch of every completed trial: (pretrained, setting) -> seed -> (C,)."""
    if study.epochs.empty:
        return {}
    epochs = study.epochs[(study.epochs["task"] == context.task) & (study.epochs["split"] == "val")]
    last = epochs.sort_values("epoch").groupby("trial_id")["iou"].last()
    found: dict[tuple[bool, str | None], dict[int, np.ndarray]] = {}
    for (_, trial), setting in zip(context.trials.iterrows(), context.settings, strict=True):
        if trial["status"] == "completed" and trial["trial_id"] in last.index:
            scores = np.asarray(last[trial["trial_id"]], dtype=float)
            found.setdefault((bool(trial["pretrained"]), str(setting)), {})[int(trial["seed"])] = scores
    return found
