"""Figures of the classes: IoU, differences, and which class is taken for which."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from segstrat.image_counts import read_counts
from segstrat.store import Store
from study.analysis.intervals import mean_interval
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict
from study.reporting.figure_files import Picture, figure_name, in_context
from study.reporting.figure_style import BLUE, GREEN, INK, LINES, MUTED, ORANGE, PAPER, line_colors, new_panel
from study.reporting.plot_training import shown_settings

# Of more classes, those at both ends of the order.
MOST_CLASSES = 24
# More would leave no room for their names; the others are one row and column.
CONFUSED = 12
OTHERS = "others"
NAME_LENGTH = 18
LEAST_SHARE = 0.002


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
    rows = []
    for contrast, (left, right) in pairs.items():
        of_left, of_right = scores.get(left, {}), scores.get(right, {})
        paired = [of_left[seed] - of_right[seed] for seed in of_left if seed in of_right]
        if not paired:
            continue
        for index, values in enumerate(np.stack(paired, axis=1)):
            interval = mean_interval(100 * values)
            if interval.estimate is not None:
                label = _class_name(study, context.task, index)
                rows.append((label, contrast, interval.estimate, interval.low, interval.high, interval.n))
    table = pd.DataFrame(rows, columns=["label", "contrast", "estimate", "low", "high", "n"])
    return table.astype(dict.fromkeys(("estimate", "low", "high"), float))


def class_order(table: pd.DataFrame) -> list[str]:
    """The classes from the one where pre-training matters most to the one where it matters least."""
    remaining = table[table["contrast"] == "remaining"].sort_values("estimate", ascending=False)
    return list(remaining["label"]) or list(dict.fromkeys(table["label"]))


def draw_classes(table: pd.DataFrame, names: tuple[str, str] = ("pre-trained", "raw")) -> Figure:
    """Classes from the one where pre-training matters most to the one where it matters least."""
    order = class_order(table)
    with new_panel("Differences", height=1.6 + 0.34 * len(order)) as (figure, ax):
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
            Line2D([], [], color=ORANGE, marker="o", label=f"{names[0]} − {names[1]}, best each"),
            Line2D([], [], color=GREEN, marker="o", label=f"{names[1]}: regularized − reference"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def iou_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """IoU of each class at the last epoch, in percent, of the settings that matter.

    Returns:
        one row per line × class: `line label value low high n`; `low` and `high` are the smallest and largest
        seed.
    """
    scores = _class_scores(study, verdict.context)
    rows = []
    for name, pretrained, setting in shown_settings(verdict):
        seeds = list(scores.get((pretrained, setting), {}).values())
        for index, values in enumerate(100 * np.stack(seeds, axis=1) if seeds else ()):
            if len(known := values[~np.isnan(values)]):
                label = _class_name(study, verdict.context.task, index)
                rows.append((name, label, known.mean(), known.min(), known.max(), len(known)))
    return pd.DataFrame(rows, columns=["line", "label", "value", "low", "high", "n"])


def draw_iou(table: pd.DataFrame, order: list[str], lines: Mapping[str, str] = LINES) -> Figure:
    """The classes in the order of the differences beside it."""
    # Its legend has one row more than that of the differences.
    with new_panel("IoU", height=1.8 + 0.34 * len(order)) as (figure, ax):
        shown = [name for name in lines if name in set(table["line"])]
        for line in shown:
            for row in table[table["line"] == line].to_dict("records"):
                y = order.index(row["label"]) + 0.13 * (shown.index(line) - (len(shown) - 1) / 2)
                ax.plot([row["low"], row["high"]], [y, y], color=lines[line], lw=2, alpha=0.55)
                ax.plot([row["value"]], [y], "o", color=lines[line], ms=5.5, mec=PAPER, mew=0.7)
        ax.set_yticks(range(len(order)), order)
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlim(left=0)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("IoU in percent")
        handles = [Line2D([], [], color=lines[line], marker="o", label=line) for line in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def class_picture(study: Study, verdict: Verdict) -> Picture | None:
    """IoU by class, and how the gap is distributed over them; None without per-class scores."""
    table = class_table(study, verdict)
    if table.empty:
        return None
    context, scores = verdict.context, iou_table(study, verdict)
    order = class_order(table)
    some = ""
    if (count := len(order)) > MOST_CLASSES:
        order = [*order[: MOST_CLASSES // 2], *order[-MOST_CLASSES // 2 :]]
        table, scores = (each[each["label"].isin(order)] for each in (table, scores))
        some = f" Of {count} classes, the {MOST_CLASSES // 2} where pre-training matters most and least."
    else:
        order += [label for label in dict.fromkeys(scores["label"]) if label not in order]
    return Picture(
        figure_name("classes", verdict.context.task, verdict.context.label),
        "IoU by class, and its differences",
        f"{context.task} on {study.data_name}{in_context(context.label)}, validation images at the last "
        "epoch. Left: mean over seeds, from the smallest to the largest seed. Right: differences paired by "
        f"seed; orange: what {context.pretraining_name} is still ahead of the best regularized "
        f"{context.raw_name} model; green: what regularization gave {context.raw_name}. "
        "Bars on the right: 95 % intervals over seeds, not corrected for the number of classes; long ones "
        f"are cut at the frame.{some}",
        (
            draw_iou(scores, order, line_colors(context)),
            draw_classes(table, (context.pretrained_name, context.raw_name)),
        ),
    )


def confusion_tables(study: Study, verdict: Verdict, store: Store) -> dict[str, pd.DataFrame]:
    """Which class is predicted where which is labelled, by the best setting of each arm.

    Returns:
        of each line a frame (labels × predictions) of the share of a label's pixels, summed over completed
        trials; all but the most frequent `CONFUSED` classes are `OTHERS`. Empty without counts.
    """
    context, task = verdict.context, verdict.context.task
    found: dict[str, pd.DataFrame] = {}
    shown: np.ndarray | None = None
    for line, pretrained, setting in shown_settings(verdict):
        if line not in context.lines[1:3]:
            continue
        mask = (context.pretrained == pretrained) & (context.settings == setting) & context.completed
        summed: np.ndarray | int = 0
        for trial_id in context.trials.loc[mask, "trial_id"]:
            try:
                counts = read_counts(store / "trials" / str(trial_id)).get((task, "val"))
            except ValueError:  # damaged: the frame says so
                continue
            if counts is not None and counts.confusion is not None:
                summed = summed + counts.confusion
        if isinstance(summed, int):
            continue
        if shown is None:
            # The same classes in both panels.
            shown = np.sort(np.argsort(-summed.sum(1), kind="stable")[:CONFUSED])
        found[line] = _shares(summed, shown, study, task)
    return found


def _shares(counts: np.ndarray, shown: np.ndarray, study: Study, task: str) -> pd.DataFrame:
    """Shares of each row of a confusion matrix (C, C), with the classes that are not shown as one."""
    group = np.full(len(counts), len(shown))
    group[shown] = np.arange(len(shown))
    size = len(shown) + (len(shown) < len(counts))
    merged = np.zeros((size, size))
    np.add.at(merged, (group[:, None], group[None, :]), counts)
    names = [_class_name(study, task, index) for index in shown] + [OTHERS] * (size > len(shown))
    total = merged.sum(1, keepdims=True)
    return pd.DataFrame(merged / np.where(total > 0, total, np.nan), names, names)


def draw_confusion(shares: pd.DataFrame, title: str) -> Figure:
    """Rows are labels, columns predictions; the darker, the larger the share of the label's pixels."""
    names = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in shares.index]
    with new_panel(title, height=1.6 + 0.3 * len(names)) as (_, ax):
        for (row, column), share in np.ndenumerate(shares.to_numpy()):
            # Paler than anything that can be told from the paper; such cells are most of the drawing's bytes.
            if not share >= LEAST_SHARE:
                continue
            place = (column - 0.5, row - 0.5)
            cell = Rectangle(place, 1, 1, facecolor=BLUE, alpha=0.05 + 0.75 * share, lw=0, clip_on=False)
            ax.add_patch(cell)
            if share >= 0.01:
                ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=INK, fontsize=7.5)
        ax.set_xticks(range(len(names)), names, rotation=90)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(visible=False)
        ax.set_xlabel("predicted")
        ax.set_ylabel("labelled")
    return ax.figure  # type: ignore[return-value]


def confusion_picture(study: Study, verdict: Verdict, store: Store) -> Picture | None:
    """Confusion matrices of the best cells; None without counts, as of trials of first versions."""
    tables = confusion_tables(study, verdict, store)
    if not tables:
        return None
    context, where = verdict.context, in_context(verdict.context.label)
    return Picture(
        figure_name("confusion", context.task, context.label),
        f"Which class is taken for which{where}",
        f"{context.task} on {study.data_name}{where}: of the pixels with a label (row), the percentage that "
        "is predicted as each class (column); all validation images and completed seeds of the setting, last "
        f"epoch. At most the {CONFUSED} most frequent classes have a row of their own.",
        tuple(draw_confusion(shares, line[:1].upper() + line[1:]) for line, shares in tables.items()),
    )


def _class_name(study: Study, task: str, index: int) -> str:
    """Of a class by its number, as far as the manifest names it."""
    names = (study.manifest.get("data") or {}).get("classes", {}).get(task) or []
    return names[index] if index < len(names) else f"class {index}"


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
