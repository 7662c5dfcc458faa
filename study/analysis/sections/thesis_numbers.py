"""The thesis's published numbers, compared with a user's cells."""

from pathlib import Path

import pandas as pd

from segstrat.scores import MIOU
from study.analysis.cells import tuned_trials
from study.analysis.study import Study

TABLES = Path(__file__).parents[3] / "results" / "thesis"
# Data that the thesis used; other data is not compared with its numbers.
PROTOCOLS = frozenset({"voc", "d1", "d1-half", "d2", "d3", "d1+d2"})
# Protocols and label fractions of its two series of experiments (ch. 6).
THESIS_DATA: dict[int, list[tuple[list[str], set[float]]]] = {
    1: [(["d1-half"], {1.0}), (["d1"], {0.5})],
    2: [(["d3"], {1.0}), (["d1+d2"], {1.0})],
}
# Epochs of each series, by whether the arm is pre-trained (Table 6.2).
THESIS_EPOCHS = {1: {False: 300, True: 100}, 2: {False: 300, True: 90}}


def published() -> pd.DataFrame:
    """All published cells; mIoU by the thesis code's metric, as shares of one."""
    table = pd.concat([pd.read_csv(path) for path in sorted(TABLES.glob("*.csv"))], ignore_index=True)
    table["tasks"] = table["tasks"].fillna(table["task"])
    # Table 1.1 repeats a column of Table 1.2.
    keys = ["task", "tasks", "model", "backbone", "weight_decay", "pretrained"]
    return table.drop_duplicates(keys, keep="last", ignore_index=True)


def comparison(study: Study, task: str) -> pd.DataFrame:
    """Published cells and the user's cells with the same backbone, weight decay, tasks and arm.

    Returns:
        one row per published cell that the study has too: `source arm backbone weight_decay tasks`, the
        published `thesis` mIoU, and the user's mean over the `n` completed seeds: `like_with_like` (best
        epoch, the thesis code's metric), `best_epoch` and `primary` (the VOC protocol), and `difference`
        (like_with_like − thesis). Empty for data that the thesis did not use.
    """
    if not study.protocols <= PROTOCOLS or study.metric.score != MIOU:
        return pd.DataFrame()
    done = tuned_trials(study, task)
    done = done[done["status"] == "completed"]
    for axis, level in study.reference_levels(task).items():
        if axis not in ("weight_decay", "tasks"):
            done = done[done[axis] == level]
    rows = []
    for _, cell in published().iterrows():
        if cell["task"] != task:
            continue
        same = done[
            (done["backbone"] == cell["backbone"])
            & (done["weight_decay"].astype(float) == cell["weight_decay"])
            & (done["tasks"] == cell["tasks"])
            & (done["pretrained"].astype(bool) == cell["pretrained"])
        ]
        if same.empty:
            continue
        like = same[f"{task}_val_miou_thesis"].astype(float).mean()
        rows.append(
            {
                "source": cell["source"],
                "arm": same["arm"].iloc[0],
                "backbone": cell["backbone"],
                "weight_decay": cell["weight_decay"],
                "tasks": cell["tasks"],
                "n": len(same),
                "thesis": cell["val_miou"],
                "like_with_like": like,
                "best_epoch": same[f"{task}_val_miou"].astype(float).mean(),
                "primary": same[study.column(task, "val", "miou")].astype(float).mean(),
                "difference": like - cell["val_miou"],
            }
        )
    return pd.DataFrame(rows)


def reasons_to_differ(study: Study) -> list[str]:
    """Why the user's numbers may differ from the thesis's, the data protocol first."""
    trials = study.trials
    data = sorted(set(trials["data"].astype(str)))
    fractions = set(trials["label_fraction"].astype(float)) if "label_fraction" in trials else {1.0}
    series = 2 if trials["model"].astype(str).str.startswith("sunet").all() else 1
    reasons = []
    if (data, fractions) not in THESIS_DATA[series]:
        reasons.append(
            f"Another data protocol. This study ran on {', '.join(data)}: other images, labels or splits. "
            "The thesis trained series 1 (FCN) on 50 % of D1 and series 2 (SUNet) on D3 and on D1 with D2. "
            "The two columns answer the same question on different data; a difference makes neither wrong."
        )
    elif series == 1:
        reasons.append("Another half of D1: the thesis does not say which images it drew.")
    models = sorted(set(trials["model"].astype(str)) - {"fcn32s", "sunet64"})
    if models:
        reasons.append(f"Another network head: {', '.join(models)} here, FCN-32s (SUNet-64) in the thesis.")
    if "width" in trials and set(trials["width"]) != {1.0}:
        widths = ", ".join(f"{width:g}" for width in sorted(set(trials["width"])))
        reasons.append(f"A narrower network: width {widths} of the published channel counts.")
    budgets = {bool(pre): sorted(set(group)) for pre, group in trials.groupby("pretrained")["epochs_budget"]}
    planned = {arm: [epochs] for arm, epochs in THESIS_EPOCHS[series].items() if arm in budgets}
    if budgets != planned:
        epochs = "; ".join(
            f"{'pre-trained' if pre else 'raw'} {', '.join(str(budget) for budget in found)}"
            for pre, found in budgets.items()
        )
        reasons.append(
            f"Another schedule: epochs {epochs}; the thesis gave raw 300, pre-trained 100 (SUNet 90)."
        )
    if series == 1 and any(str(name).startswith("resnet") for name in set(trials["backbone"])):
        reasons.append(
            "The thesis kept a 7 × 7 average pool of the ResNet before scoring and stretched the map while "
            "resizing it; here the geometry is aligned."
        )
    reasons.append(
        "The thesis chose the best epoch on the validation set that it reports, with one seed; “like with "
        "like” does the same, the primary value (last epoch) does not."
    )
    return reasons
