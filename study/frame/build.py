"""Trial records -> rows of the two frames."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from segstrat.image_counts import read_counts
from segstrat.records import EpochReport, SplitScore, TrialStatus
from segstrat.store import Store
from segstrat.trial_files import checkpoint_epochs, checkpoint_name
from segstrat.trial_record import TrialRecord, read_record
from study.frame.columns import (
    EPOCH_FACTS,
    EPOCH_KEYS,
    SCORES,
    STAGES,
    TRIAL_FACTS,
    TRIAL_KEYS,
    image_columns,
    jackknife_columns,
    score_columns,
)

SCHEMA = 1


def build_trials_and_epochs(study: Store, manifest: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames of the trials in a manifest.

    Args:
        study: the study's folder.
    """
    planned = manifest["trials"]
    tasks = list(dict.fromkeys(task for trial in planned for task in trial["config"]["tasks"]))
    rows, tables = [], []
    for trial in planned:
        folder = study / "trials" / trial["trial_id"]
        record = read_record(folder)
        row = _trial_row(manifest, trial, record)
        row |= _score_values(record, trial["config"]["tasks"], _primary_task(manifest, trial))
        row |= _image_values(folder, record, row)
        epochs = checkpoint_epochs(folder.names())
        row["checkpoint"] = f"trials/{trial['trial_id']}/{checkpoint_name(epochs[-1])}" if epochs else ""
        rows.append(row)
        tables.append(epoch_table(trial["trial_id"], record.reports))
    return _trials_frame(rows, tasks), _epochs_frame(tables)


def epoch_table(trial_id: str, reports: Iterable[EpochReport]) -> pd.DataFrame:
    """One trial's part of the `epochs` frame; losses in nats, mIoU and accuracies as shares of one."""
    rows = [
        {"trial_id": trial_id, "epoch": report.epoch, "split": score.split, "task": score.task}
        | {name: getattr(score, name) for name in SCORES}
        | {name: getattr(report, name) for name in EPOCH_FACTS}
        | {"iou": np.array(score.iou, dtype=float)}
        # The time of an epoch is in one of its rows only, so that times can be summed.
        | {"seconds": report.seconds if index == 0 else math.nan}
        for report in reports
        for index, score in enumerate(report.scores)
    ]
    table = pd.DataFrame(rows, columns=[*EPOCH_KEYS, *SCORES, *EPOCH_FACTS, "iou"])
    numbers = [*SCORES, *EPOCH_FACTS]
    return table.astype(dict.fromkeys(numbers, "float64") | {"epoch": "int64"})


def _trial_row(manifest: Mapping[str, Any], trial: Mapping[str, Any], record: TrialRecord) -> dict[str, Any]:
    config, last = trial["config"], record.last_report
    row = {
        "trial_id": trial["trial_id"],
        "study": manifest["study"],
        "space": manifest["space"],
        "order": trial["order"],
        # A study of one stage answers with all of its trials.
        "stage": trial.get("stage") or STAGES[-1],
        "arm": trial["arm"],
        "multi_task": len(config["tasks"]) > 1,
        "status": str(_status(record, manifest)),
        "stop_rung": record.stop_rung,
        "stop_epoch": record.stop_epoch,
        "epochs_run": last.epoch if last else 0,
        "epochs_budget": config["epochs"],
        "seconds": record.seconds,
        "images_per_second": _mean(report.images_per_second for report in record.reports),
        "error": record.error or record.problem or (last.message if last else ""),
    }
    # `weights` may be a path of one machine; `weights_digest` identifies its content.
    settings = {key: value for key, value in config.items() if key not in ("epochs", "weights")}
    row |= settings | {"tasks": "+".join(config["tasks"])}
    row |= {name: value for name, value in trial["axes"].items() if name not in (*config, *row)}
    return row | {name: record.facts.get(name) for name in TRIAL_FACTS}


def _score_values(record: TrialRecord, tasks: Iterable[str], primary: str) -> dict[str, Any]:
    """Each task's scores at its best validation epoch, and under `last_…` at the last scored epoch."""
    columns: dict[str, Any] = {}
    for task in tasks:
        scored: dict[str, dict[int, SplitScore]] = {"train": {}, "val": {}}
        for report in record.reports:
            for score in report.scores:
                # The test split is scored at the last epoch only, see `_image_values`.
                if score.task == task and score.split in scored:
                    scored[score.split][report.epoch] = score
        known = [epoch for epoch, score in scored["val"].items() if not math.isnan(score.miou)]
        best = max(known, key=lambda epoch: (scored["val"][epoch].miou, -epoch), default=None)
        columns[f"{task}_best_epoch"] = best
        for split, by_epoch in scored.items():
            at_best = by_epoch.get(best) if best is not None else None
            at_last = by_epoch[max(by_epoch)] if by_epoch else None
            for name in SCORES:
                columns[f"{task}_{split}_{name}"] = getattr(at_best, name, None)
                columns[f"last_{task}_{split}_{name}"] = getattr(at_last, name, None)
    columns["best_epoch"] = columns[f"{primary}_best_epoch"]
    for prefix in ("", "last_"):
        columns[f"{prefix}val_miou_thesis"] = columns[f"{prefix}{primary}_val_miou_thesis"]
    return columns


def _image_values(folder: Store, record: TrialRecord, row: Mapping[str, Any]) -> dict[str, Any]:
    """What derives from the pixel counts of every image, and the score of the best constant prediction."""
    values: dict[str, Any] = {}
    for task, by_split in (record.facts.get("constant_miou") or {}).items():
        values |= {f"{task}_{split}_constant_miou": score for split, score in by_split.items()}
    try:
        counts = read_counts(folder) if record.training_ended else {}
    except ValueError as error:
        return values | {"error": row["error"] or str(error)}
    for (task, split), images in counts.items():
        values.setdefault(f"{task}_{split}_constant_miou", images.constant_miou())
        values[f"last_{task}_{split}_miou_jackknife"] = images.jackknife_mious()
        if split == "val":
            values |= {f"last_{task}_val_miou_{half}": miou for half, miou in images.half_mious().items()}
        else:
            values[f"last_{task}_{split}_miou"] = images.miou()
    return values


def _trials_frame(rows: list[dict[str, Any]], tasks: list[str]) -> pd.DataFrame:
    scores = score_columns(tasks)
    scores += ["val_miou_thesis", "last_val_miou_thesis", *(f"{task}_best_epoch" for task in tasks)]
    images = image_columns(tasks)
    tail = ["seconds", "images_per_second", *TRIAL_FACTS, "error", "checkpoint"]
    found = dict.fromkeys(key for row in rows for key in row)
    jackknives = [name for name in jackknife_columns(tasks) if name in found]
    others = [name for name in found if name not in {*TRIAL_KEYS, *scores, *images, *jackknives, *tail}]
    order = list(dict.fromkeys([*TRIAL_KEYS, *others, *scores, *images, *jackknives, *tail]))
    frame = pd.DataFrame(rows, columns=order)
    whole = ["stop_rung", "stop_epoch", "best_epoch", "num_parameters", "dropout_modules"]
    whole += ["train_images", "val_images", *(f"{task}_best_epoch" for task in tasks)]
    numbers = [*scores, *images, "seconds", "images_per_second", "realised_weight_decay"]
    frame = frame.astype({name: "float64" for name in numbers if name not in whole})
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _epochs_frame(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else epoch_table("", [])


def _status(record: TrialRecord, manifest: Mapping[str, Any]) -> TrialStatus:
    """The status of a trial, whose outcome may not be written yet.

    With a scheduler even a trial that ran to its end may turn out to have been stopped at a rung, so it
    stays `unfinished` until the outcome is written.
    """
    scheduler = (manifest.get("scheduler") or {}).get("name", "none")
    last = record.last_report
    if record.final or scheduler != "none" or last is None or last.status == "running":
        return record.status
    return TrialStatus(last.status)


def _primary_task(manifest: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    """The task of the study's metric, or the trial's first one where it does not learn that task."""
    tasks = trial["config"]["tasks"]
    return next((task for task in tasks if str(manifest.get("metric", "")).startswith(f"{task}_")), tasks[0])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
