"""Figures of how the trials trained: learning curves, over-fitting, per-class IoU, cost."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study.analysis.answer import Answer
from study.analysis.contrasts import trial_settings
from study.analysis.intervals import mean_interval
from study.analysis.names import setting_label
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict
from study.reporting.style import BLUE, GREEN, GRID, MUTED, ORANGE, PAPER, SKY, Picture, arm_colors, new_panel


def shown_settings(verdict: Verdict) -> list[tuple[str, bool, str]]:
    """The settings that curves and class scores show: `(name, pretrained, setting)`, without repeats."""
    found = verdict.contrasts
    wanted = [
        ("raw, unregularized", False, found.reference),
        ("raw, best regularized", False, found.raw.usual),
        ("pre-trained, unregularized", True, found.reference),
        ("pre-trained, best", True, found.pretrained.usual),
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
        a row for each line × split × score × epoch: `line setting split score epoch mean low high n`;
        `low` and `high` are the smallest and largest seed.
    """
    context = verdict.context
    labels = trial_settings(context)
    parts = []
    for name, pretrained, setting in shown_settings(verdict):
        mask = (context.trials["pretrained"].astype(bool) == pretrained) & (labels == setting)
        ids = context.trials.loc[mask & (context.trials["status"] == "completed"), "trial_id"]
        curves = study.epochs[study.epochs["trial_id"].isin(ids) & (study.epochs["task"] == context.task)]
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


LINES = {
    "raw, unregularized": ORANGE,
    "raw, best regularized": GREEN,
    "pre-trained, unregularized": SKY,
    "pre-trained, best": BLUE,
}


def draw_curves(table: pd.DataFrame, score: str) -> Figure:
    """Validation solid with seed bands, training dotted."""
    of_score = table[table["score"] == score]
    with new_panel("Loss" if score == "loss" else "Mean IoU") as (figure, ax):
        for (name, split), line in of_score.groupby(["line", "split"], sort=False):
            color = LINES[str(name)]
            if split == "val":
                ax.plot(line["epoch"], line["mean"], color=color, lw=1.8)
                ax.fill_between(line["epoch"], line["low"], line["high"], color=color, alpha=0.18, lw=0)
            else:
                ax.plot(line["epoch"], line["mean"], color=color, lw=1.2, ls=(0, (1, 1.4)))
        ax.set_xlabel("epoch")
        ax.set_xlim(left=0)
        shown = [name for name in LINES if name in set(of_score["line"])]
        handles = [Line2D([], [], color=LINES[name], label=name) for name in shown]
        handles += [
            Line2D([], [], color=MUTED, label="validation"),
            Line2D([], [], color=MUTED, ls=(0, (1, 1.4)), label="training"),
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
    where = f", {verdict.context.label}" if verdict.context.label else ""
    return Picture(
        _name("curves", verdict),
        "Learning curves",
        f"{verdict.context.task} on {study.data_name}{where}, completed trials: mean over seeds, the band "
        "spans the smallest and the largest seed. Training scores are those of augmented crops while "
        f"training. {settings}.",
        tuple(draw_curves(table, score) for score in ("loss", "miou")),
    )


def plane_table(study: Study, task: str) -> pd.DataFrame:
    """Training against validation mIoU: a row a trial, `arm setting seed train val final`."""
    trials = study.trials[[task in str(tasks).split("+") for tasks in study.trials["tasks"]]]
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
    """Over-fitting made visible; None without values."""
    table = plane_table(study, task)
    if table.empty:
        return None
    return Picture(
        f"plane-{task}",
        "Over-fitting",
        f"{task} on {study.data_name}: a marker a trial. On the dark diagonal training and validation "
        "agree; each light one further right is 0.1 mIoU more of over-fitting. Training scores are those "
        "of augmented crops. Hollow: trials without a final value.",
        (draw_plane(table),),
    )


def class_table(study: Study, verdict: Verdict) -> pd.DataFrame:
    """Per-class IoU differences at the last epoch, paired by seed.

    Returns:
        a row for each class × contrast (`remaining`: best pre-trained − best regularized raw,
        `improvement`: best regularized raw − unregularized): `label contrast estimate low high n`, in points.
    """
    context, found = verdict.context, verdict.contrasts
    pairs = {
        "remaining": ((True, found.pretrained.setting), (False, found.raw.setting)),
        "improvement": (
            (False, found.raw.setting),
            (False, dict.fromkeys(found.raw.setting, found.reference)),
        ),
    }
    scores = _class_scores(study, context)
    names = (study.manifest.get("data") or {}).get("classes", {}).get(context.task)
    rows = []
    for contrast, ((pre_left, left), (pre_right, right)) in pairs.items():
        paired = [
            scores[pre_left, str(left[seed]), seed] - scores[pre_right, str(right[seed]), seed]
            for seed in left
            if seed in right
            and (pre_left, str(left[seed]), seed) in scores
            and (pre_right, str(right[seed]), seed) in scores
        ]
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
        # One class that swings from seed to seed must not squeeze all others.
        reach = 1.6 * float(table["estimate"].abs().max()) + 2
        ends = float(np.nanmax(table[["low", "high", "estimate"]].abs().to_numpy()))
        reach = min(reach, 1.05 * ends + 1)
        ax.set_xlim(-reach, reach)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("points of IoU")
        handles = [
            Line2D([], [], color=ORANGE, marker="o", label="pre-trained − raw, best each"),
            Line2D([], [], color=GREEN, marker="o", label="raw: regularized − not"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def class_picture(study: Study, verdict: Verdict) -> Picture | None:
    """Where the gap sits among the classes; None without per-class scores."""
    table = class_table(study, verdict)
    if table.empty:
        return None
    return Picture(
        _name("classes", verdict),
        "Differences by class",
        f"{verdict.context.task} on {study.data_name}: paired differences of IoU at the last epoch. "
        "Orange: what pre-training is still ahead of the best regularized raw model; green: what "
        "regularization gave raw. Bars: 95 % intervals over seeds, not corrected for the number of "
        "classes; long ones are cut at the frame.",
        (draw_classes(table),),
    )


def cost_table(study: Study) -> pd.DataFrame:
    """What the study cost: a row an arm.

    Returns:
        `arm trials epochs budget saved hours device`: epochs run and planned, epochs saved by stopping trials
        early, and wall hours of training summed over trials.
    """
    trials = study.trials.assign(
        saved=(study.trials["epochs_budget"] - study.trials["epochs_run"]).where(
            study.trials["status"] == "stopped", 0
        )
    )
    table = trials.groupby("arm", sort=False).agg(
        trials=("trial_id", "size"),
        epochs=("epochs_run", "sum"),
        budget=("epochs_budget", "sum"),
        saved=("saved", "sum"),
    )
    if "seconds" in trials:
        table["hours"] = trials.groupby("arm", sort=False)["seconds"].sum() / 3600
    return table.reset_index()


def draw_cost(table: pd.DataFrame) -> Figure:
    """Epochs run and epochs saved, an arm a bar."""
    colors = arm_colors(list(table["arm"]))
    with new_panel("Epochs by arm", height=1.5 + 0.5 * len(table)) as (figure, ax):
        for y, row in enumerate(table.to_dict("records")):
            ax.barh(y, row["epochs"], color=colors[row["arm"]], height=0.55)
            ax.barh(
                y,
                row["saved"],
                left=row["epochs"],
                facecolor="none",
                edgecolor=MUTED,
                hatch="////",
                lw=0.6,
                height=0.55,
            )
        ax.set_yticks(range(len(table)), list(table["arm"]))
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("epochs (hatched: saved by stopping trials early)")
    return figure


def cost_picture(answer: Answer) -> Picture | None:
    """Where the time went; None where nothing ran."""
    table = cost_table(answer.study)
    if table["epochs"].sum() == 0:
        return None
    return Picture(
        "cost",
        "Cost",
        "Epochs that the trials of each arm ran, and, hatched, those that the scheduler saved by stopping "
        "trials. The cost of making the pre-trained weights is not part of it.",
        (draw_cost(table),),
    )


def _class_scores(study: Study, context: Context) -> dict[tuple[bool, str, int], np.ndarray]:
    """IoU of each class at the last epoch of every completed trial, by (pretrained, setting, seed)."""
    epochs = study.epochs[(study.epochs["task"] == context.task) & (study.epochs["split"] == "val")]
    if epochs.empty or "iou" not in epochs:
        return {}
    last = epochs.sort_values("epoch").groupby("trial_id")["iou"].last()
    found = {}
    for (_, trial), setting in zip(context.trials.iterrows(), trial_settings(context), strict=True):
        if trial["status"] == "completed" and trial["trial_id"] in last.index:
            key = (bool(trial["pretrained"]), str(setting), int(trial["seed"]))
            found[key] = np.asarray(last[trial["trial_id"]], dtype=float)
    return found


def _name(kind: str, verdict: Verdict) -> str:
    words = [kind, verdict.context.task, verdict.context.label]
    return "-".join("".join(c if c.isalnum() else "_" for c in word) for word in words if word)
