"""The table of trials: columns, rows, and what a cell shows."""

from typing import Any

import pandas as pd

from segstrat.formatting import axis_name, format_value
from study.analysis.study import Study


def trial_columns(study: Study) -> list[tuple[str, str, bool]]:
    """Title, key and whether it is a number, of each column of the table of trials."""
    varied = [axis for role in ("nuisance", "treatment", "tuned") for axis in study.axes(role)]
    columns = [("trial", "trial_id", False), ("arm", "arm", False)]
    columns += [(axis_name(axis), axis, True) for axis in varied]
    if study.trials.get("stage", pd.Series(dtype=object)).nunique() > 1:
        columns.append(("stage", "stage", False))
    columns += [("seed", "seed", True), ("status", "status", False), ("epochs", "epochs", True)]
    for task in study.tasks:
        word = f"{task} " if len(study.tasks) > 1 else ""
        columns += [
            (f"{word}val {study.score_words(task)}", f"final {task}", True),
            (f"{word}last shown", f"shown {task}", True),
            (f"{word}at best epoch", f"{task}_val_miou", True),
            (f"{word}train {study.score_words(task)}", study.column(task, "train", "miou"), True),
        ]
    columns += [("minutes", "minutes", True)]
    if study.trials["error"].map(lambda text: isinstance(text, str) and text != "").any():
        columns.append(("message", "error", False))
    return columns


# More rows nobody reads, and their file is beside the page.
MOST_ROWS = 200


def shown_trials(study: Study) -> pd.DataFrame:
    """The trials of the table, raw first: all, or of many those with a problem, and then the best."""
    trials = study.trials
    if len(trials) > MOST_ROWS:
        value = trials[study.column(study.tasks[0], "val", "miou")].astype(float)
        problem = trials["status"].isin(["failed", "diverged"])
        # Half of the rows are for problems, at most.
        first = problem & (problem.cumsum() <= MOST_ROWS // 2)
        completed = trials["status"] == "completed"
        best = value.where(completed).sort_values(ascending=False).index
        kept = [*trials.index[first], *best][:MOST_ROWS]
        trials = trials.loc[kept]
    return trials.sort_values(["pretrained", "arm", *study.axes("treatment"), *study.axes("tuned"), "seed"])


def trial_rows(study: Study) -> list[list[dict[str, Any]]]:
    """What the page shows of each of these trials, a cell per column."""
    columns = trial_columns(study)
    trials = shown_trials(study)
    rows = []
    for trial in trials.to_dict("records"):
        row: dict[str, Any] = {str(key): value for key, value in trial.items()}
        done = row["status"] == "completed"
        for task in study.tasks:
            value = row[study.column(task, "val", "miou")]
            row[f"final {task}"], row[f"shown {task}"] = (value, None) if done else (None, value)
        row["epochs"] = f"{row['epochs_run']}/{row['epochs_budget']}"
        seconds = row.get("seconds")
        row["minutes"] = None if seconds is None or pd.isna(seconds) else f"{seconds / 60:.1f}"
        rows.append(
            [_cell(row.get(key), numeric=numeric, chip=key == "status") for _, key, numeric in columns]
        )
    return rows


def _cell(value: Any, *, numeric: bool, chip: bool) -> dict[str, Any]:
    """What a cell shows, and the value that it is sorted by."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return {"text": "", "value": "", "numeric": numeric, "chip": False}
    if isinstance(value, float) and numeric:
        text = format_value(value) if abs(value) < 0.1 or value >= 10 else f"{value:.3f}"
        return {"text": text, "value": f"{value:.9g}", "numeric": True, "chip": False}
    if isinstance(value, str) and "/" in value and numeric:
        return {"text": value, "value": value.partition("/")[0], "numeric": True, "chip": False}
    return {"text": str(value), "value": None, "numeric": numeric, "chip": chip}
