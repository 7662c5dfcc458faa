"""Trial records -> two tidy frames: `trials`, one row per trial, and `epochs`, trial × epoch × split × task.

    from study.frame import load
    trials, epochs = load("results/my-study")

Whoever reads the frames must read `status` first: only a `completed` trial has a final value, and the
`last_…` columns of any other trial are what it showed when it ended. docs/reading-results.md lists
the columns.
"""

import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segstrat.errors import UserError
from segstrat.records import EpochReport, SplitScore, TrialStatus
from segstrat.store import Store
from segstrat.trial_files import checkpoint_epochs, checkpoint_name
from segstrat.trial_record import TrialRecord, read_record

SCHEMA = 1
MANIFEST = "manifest.json"
STATUSES = tuple(str(status) for status in TrialStatus)

EPOCH_KEYS = ("trial_id", "epoch", "split", "task")
SCORES = ("loss", "miou", "miou_thesis", "pixel_accuracy", "class_accuracy")
EPOCH_FACTS = ("learning_rate", "seconds", "images_per_second", "data_wait")
TRIAL_KEYS = (
    *("trial_id", "study", "space", "data", "order", "arm", "tasks", "model", "backbone"),
    *("pretrained", "multi_task", "weight_decay", "dropout", "seed"),
    *("status", "stop_rung", "stop_epoch", "epochs_run", "epochs_budget", "best_epoch", "val_miou_thesis"),
)
TRIAL_FACTS = (
    *("num_parameters", "realised_weight_decay", "dropout_modules", "init_digest", "weights_digest"),
    *("data_digest", "train_images", "val_images", "device", "precision"),
)

Frames = tuple[pd.DataFrame, pd.DataFrame]


class OldFrameError(UserError):
    """Frames that lack columns which this version reads."""


def load(folder: str | Path | Store) -> Frames:
    """The frames of a study, as written while it ran.

    Raises:
        UserError: if there are none.
        OldFrameError: if they were written by a version with other columns.
    """
    store = _store(folder)
    trials, epochs = read_frame(store, "trials"), read_frame(store, "epochs")
    if trials is None or epochs is None:
        raise UserError(
            f"{store.uri} holds no frames (trials.parquet or .csv, epochs.parquet or .csv); "
            "give the folder of a study, such as results/wd_grid"
        )
    missing = [name for name in TRIAL_KEYS if name not in trials]
    missing += [name for name in (*EPOCH_KEYS, *SCORES, "iou") if name not in epochs]
    if "tasks" in trials:
        prefixes = ("",) if read_manifest(store).get("value") == "best" else ("", "last_")
        tasks = dict.fromkeys(task for names in trials["tasks"] for task in str(names).split("+"))
        parts = itertools.product(prefixes, tasks, ("train", "val"), ("loss", "miou"))
        names = [f"{prefix}{task}_{split}_{score}" for prefix, task, split, score in parts]
        missing += [name for name in names if name not in trials]
    if missing:
        raise OldFrameError(
            f"the frames in {store.uri} are of another version, they lack {', '.join(missing)}; "
            f"`python -m study.frame {store.uri}` writes them anew from the trials' records"
        )
    return trials, epochs


def read_frame(store: Store, name: str) -> pd.DataFrame | None:
    """One frame as it lies on disk, parquet before CSV; None where there is neither."""
    if store.exists(f"{name}.parquet"):
        return pd.read_parquet(io.BytesIO(store.read(f"{name}.parquet")))
    if not store.exists(f"{name}.csv"):
        return None
    frame = pd.read_csv(io.BytesIO(store.read(f"{name}.csv")), dtype={"trial_id": str})
    if "iou" in frame:
        frame["iou"] = frame["iou"].map(lambda text: np.array(json.loads(text), dtype=float))
    return frame


def read_manifest(folder: str | Path | Store) -> dict[str, Any]:
    """What was asked: space, data, machine and the planned trials; empty where there is no manifest.

    Raises:
        UserError: if it cannot be read.
    """
    store = _store(folder)
    if not store.exists(MANIFEST):
        return {}
    try:
        return json.loads(store.read(MANIFEST))
    except ValueError as error:
        raise UserError(f"{store.uri}/{MANIFEST} cannot be read ({error}); restore it from a copy") from error


def write_frames(folder: str | Path | Store) -> Frames:
    """Builds the frames and writes them as parquet and CSV, each atomically."""
    store = _store(folder)
    trials, epochs = build_frames(store)
    for name, frame in (("trials", trials), ("epochs", epochs)):
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        store.write(f"{name}.parquet", buffer.getvalue())
        text = frame.copy()
        if "iou" in text:
            text["iou"] = text["iou"].map(lambda iou: json.dumps(iou.tolist()))
        store.write(f"{name}.csv", text.to_csv(index=False).encode())
    return trials, epochs


def build_frames(folder: str | Path | Store) -> Frames:
    """The frames of everything in the manifest, from the trials' own records.

    A trial of the manifest that left no record yet is in `trials` too, as `unfinished`.

    Raises:
        UserError: if the folder has no manifest, or one of another schema.
    """
    store = _store(folder)
    manifest = read_manifest(store)
    if manifest.get("schema") != SCHEMA:
        found = f"schema {manifest.get('schema')!r}" if manifest else "no manifest.json"
        raise UserError(f"{store.uri} has {found}; expected a study's folder of schema {SCHEMA}")
    planned = manifest["trials"]
    tasks = list(dict.fromkeys(task for trial in planned for task in trial["config"]["tasks"]))
    rows, tables = [], []
    for trial in planned:
        folder_of_trial = store / "trials" / trial["trial_id"]
        record = read_record(folder_of_trial)
        row = _trial_row(manifest, trial, record)
        row |= _score_columns(record, trial["config"]["tasks"], _primary_task(manifest, trial))
        epochs = checkpoint_epochs(folder_of_trial.names())
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
        for report in reports
        for score in report.scores
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


def _score_columns(record: TrialRecord, tasks: Iterable[str], primary: str) -> dict[str, Any]:
    """Each task's scores at its best validation epoch, and under `last_…` at the last scored epoch."""
    columns: dict[str, Any] = {}
    for task in tasks:
        scored: dict[str, dict[int, SplitScore]] = {"train": {}, "val": {}}
        for report in record.reports:
            for score in report.scores:
                if score.task == task:
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


def _trials_frame(rows: list[dict[str, Any]], tasks: list[str]) -> pd.DataFrame:
    scores = [
        f"{prefix}{task}_{split}_{score}"
        for task in tasks
        for prefix in ("", "last_")
        for split in ("train", "val")
        for score in SCORES
    ]
    scores += ["val_miou_thesis", "last_val_miou_thesis", *(f"{task}_best_epoch" for task in tasks)]
    tail = ["seconds", "images_per_second", *TRIAL_FACTS, "error", "checkpoint"]
    found = dict.fromkeys(key for row in rows for key in row)
    others = [name for name in found if name not in {*TRIAL_KEYS, *scores, *tail}]
    order = list(dict.fromkeys([*TRIAL_KEYS, *others, *scores, *tail]))
    frame = pd.DataFrame(rows, columns=order)
    whole = ["stop_rung", "stop_epoch", "best_epoch", "num_parameters", "dropout_modules"]
    whole += ["train_images", "val_images", *(f"{task}_best_epoch" for task in tasks)]
    numbers = [*scores, "seconds", "images_per_second", "realised_weight_decay"]
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


def _store(folder: str | Path | Store) -> Store:
    return folder if isinstance(folder, Store) else Store(folder)


if __name__ == "__main__":
    import sys

    for each in sys.argv[1:]:
        write_frames(each)
