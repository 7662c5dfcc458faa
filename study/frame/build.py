"""Trial records -> rows of the two frames.

A running study decides on the same rows as its report, see `study.search.base.History`.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from segstrat.config import GIVEN, RAW, REGULARIZERS, SELF, TrialConfig, start_of
from segstrat.errors import UserError
from segstrat.image_counts import COUNTS, HALVES, ImageCounts, read_counts
from segstrat.records import (
    SCORES,
    EpochReport,
    SplitScore,
    Stage,
    TrialRecord,
    TrialStatus,
    checkpoint_epochs,
    checkpoint_name,
    read_record,
)
from segstrat.scores import BOUNDARY, MIOU, Metric
from segstrat.store import Store

STATUSES = tuple(str(status) for status in TrialStatus)
STAGES = tuple(str(stage) for stage in Stage)

# On which images a completed trial can report: all of its validation images chose something.
VALIDATION, HALVED, TEST = "the images that chose", "halves of the validation images", "test images"
IMAGES = (VALIDATION, HALVED, TEST)

EPOCH_KEYS = ("trial_id", "epoch", "split", "task")
EPOCH_FACTS = ("learning_rate", "seconds", "images_per_second", "data_wait")
TRIAL_KEYS = (
    *("trial_id", "study", "space", "data", "order", "stage", "arm", "cell", "setting", "context"),
    *("reference", "tasks", "model", "backbone"),
    *("pretrained", "initialization", "multi_task", "weight_decay", "dropout", "seed"),
    *("status", "stop_rung", "stop_epoch", "epochs_run", "epochs_budget", "best_epoch", "val_miou_thesis"),
)
# Frames of earlier versions lack these.
ADDED_KEYS = ("stage", "cell", "setting", "context", "reference", "initialization")
TRIAL_FACTS = (
    *("num_parameters", "realised_weight_decay", "dropout_modules", "init_digest", "weights_digest"),
    *("data_digest", "train_images", "val_images", "device", "precision"),
)


def score_columns(tasks: Iterable[str], metric: Metric | None = None) -> list[str]:
    """Scores at the best epoch, and under `last_…` at the last scored one."""
    prefixes = [*itertools.product(("", "last_"), ("train", "val")), ("last_", "train_clean")]
    return [
        f"{prefix}{task}_{split}_{score}"
        for task in tasks
        for prefix, split in prefixes
        for score in dict.fromkeys((*SCORES, *_own_scores(task, metric)))
    ]


def _own_scores(task: str, metric: Metric | None) -> tuple[str, ...]:
    """mIoU, and the score of a task by which a study judges its trials."""
    return tuple(dict.fromkeys((MIOU, metric.of(task).score if metric else MIOU)))


def metric_of(manifest: Mapping[str, Any]) -> Metric:
    """By what a study judges its trials; mIoU of its first task where its manifest does not say it."""
    try:
        return Metric.parse(str(manifest.get("metric")), (manifest.get("data") or {}).get("classes"))
    except UserError:
        return Metric("")


def image_columns(tasks: Iterable[str], metric: Metric | None = None) -> list[str]:
    """What derives from pixel counts of every image after the last epoch: numbers."""
    columns = []
    for task in tasks:
        for score in _own_scores(task, metric):
            columns += [f"last_{task}_val_{score}_{half}" for half in HALVES]
            columns += [f"last_{task}_test_{score}"]
            columns += [f"{task}_{split}_constant_{score}" for split in ("val", "test")]
    return columns


def image_names(tasks: Iterable[str]) -> list[str]:
    """The images that may report a trial's score, one of `IMAGES`: text, empty before its end."""
    return [f"{task}_images" for task in tasks]


def jackknife_columns(tasks: Iterable[str], metric: Metric | None = None) -> list[str]:
    """Scores without each group of images: arrays (G,)."""
    return [
        f"last_{task}_{split}_{score}_jackknife"
        for task in tasks
        for score in _own_scores(task, metric)
        for split in ("val", "test")
    ]


SCHEMA = 1
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrialConfig)}
# Arm axes whose values are compared with each other; another value of any other one is another context.
COMPARED = ("pretrained", "initialization", "tasks")
# What a network starts from, in words.
START_WORDS = {RAW: "raw", SELF: "self-supervised", GIVEN: "pre-trained"}
# Axes that the label of an arm shows.
ARM_FIELDS = (*COMPARED, "backbone", "model")


def build_trials_and_epochs(study: Store, manifest: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames of the trials in a manifest.

    Args:
        study: the study's folder.
    """
    return frames_of([rows_of(study, manifest, trial) for trial in manifest["trials"]], manifest)


# A trial's row of the `trials` frame, and its rows of the `epochs` frame.
Rows = tuple[dict[str, Any], list[dict[str, Any]]]


def rows_of(study: Store, manifest: Mapping[str, Any], trial: Mapping[str, Any]) -> Rows:
    """The rows of a trial of the manifest, from its records."""
    folder = study / "trials" / trial["trial_id"]
    record = read_record(folder)
    epochs = checkpoint_epochs(folder.names())
    checkpoint = f"trials/{trial['trial_id']}/{checkpoint_name(epochs[-1])}" if epochs else ""
    row = trial_row(manifest, trial, record, folder) | {"checkpoint": checkpoint}
    return row, _epoch_rows(trial["trial_id"], record.reports)


def frames_of(rows: Iterable[Rows], manifest: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames of such rows; of the manifest, `roles`, `metric` and `data` are needed."""
    of_trials, of_epochs = [], []
    for row, epoch_rows in rows:
        of_trials.append(row)
        of_epochs += epoch_rows
    return trials_frame(of_trials, manifest), _epochs_frame(of_epochs)


def epoch_table(trial_id: str, reports: Iterable[EpochReport]) -> pd.DataFrame:
    """One trial's part of the `epochs` frame; losses in nats, mIoU and accuracies as shares of one."""
    return _epochs_frame(_epoch_rows(trial_id, reports))


def _epoch_rows(trial_id: str, reports: Iterable[EpochReport]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "epoch": report.epoch, "split": score.split, "task": score.task}
        | {name: getattr(score, name) for name in SCORES}
        | {name: getattr(report, name) for name in EPOCH_FACTS}
        | {"iou": np.array(score.iou, dtype=float)}
        | ({} if score.boundary_f1 is None else {BOUNDARY: score.boundary_f1})
        # The time of an epoch is in one of its rows only, so that times can be summed.
        | {"seconds": report.seconds if index == 0 else math.nan}
        for report in reports
        for index, score in enumerate(report.scores)
    ]


def _epochs_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    own = [BOUNDARY] if any(BOUNDARY in row for row in rows) else []
    table = pd.DataFrame(rows, columns=[*EPOCH_KEYS, *SCORES, *EPOCH_FACTS, "iou", *own])
    numbers = [*SCORES, *EPOCH_FACTS]
    return table.astype(dict.fromkeys(numbers, "float64") | {"epoch": "int64"})


def trial_row(
    manifest: Mapping[str, Any],
    trial: Mapping[str, Any],
    record: TrialRecord,
    folder: Store | None = None,
) -> dict[str, Any]:
    """A trial's row of the `trials` frame, but its `checkpoint`.

    Args:
        trial: as in the manifest.
        folder: of the trial's files, which hold the pixel counts of every image; None: without them.
    """
    row = _facts_of(manifest, trial, record) | _identity(trial, manifest.get("roles") or {})
    metric = metric_of(manifest)
    row |= _score_values(record, trial["config"]["tasks"], _primary_task(manifest, trial), metric)
    return row | _image_values(record, trial["config"]["tasks"], row, folder, metric)


def trials_frame(rows: list[dict[str, Any]], manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The `trials` frame of rows as from `trial_row`.

    Args:
        manifest: its `roles` are those of the axes.
    """
    tasks = list(dict.fromkeys(task for row in rows for task in row["tasks"].split("+")))
    metric = metric_of(manifest)
    scores = score_columns(tasks, metric)
    scores += ["val_miou_thesis", "last_val_miou_thesis", *(f"{task}_best_epoch" for task in tasks)]
    images = image_columns(tasks, metric)
    names = image_names(tasks)
    tail = ["seconds", "images_per_second", *TRIAL_FACTS, "error", "checkpoint"]
    found = dict.fromkeys(key for row in rows for key in row)
    jackknives = [name for name in jackknife_columns(tasks, metric) if name in found]
    last = [*scores, *images, *names, *jackknives, *tail]
    others = [name for name in found if name not in {*TRIAL_KEYS, *last}]
    whole = ["stop_rung", "stop_epoch", "best_epoch", "num_parameters", "dropout_modules"]
    whole += ["train_images", "val_images", *(f"{task}_best_epoch" for task in tasks)]
    numbers = [*scores, *images, "seconds", "images_per_second", "realised_weight_decay"]
    types = dict.fromkeys(numbers, "float64") | dict.fromkeys(whole, "Int64")
    data = {
        name: pd.Series([row.get(name, np.nan) for row in rows], dtype=types.get(name))
        for name in dict.fromkeys([*TRIAL_KEYS, *others, *last])
    }
    return _with_references(pd.DataFrame(data), manifest.get("roles") or {})


def identified(trials: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """A `trials` frame of an earlier version with the columns that say which trials are compared.

    - `cell`: what the seed replicates; exact, for nothing but comparing it with another one.
    - `setting`: the cell without its tuned values, of which the best ones are chosen.
    - `context`: the values of the nuisance axes and of arm axes that are not compared; '' without such axes.
    - `reference`: raw (trained from scratch), single-task, without any treatment.

    Args:
        trials: rows that are not in the manifest, as of published tables, are identified by their own values.
        manifest: as written by any version.
    """
    roles: Mapping[str, str] = manifest.get("roles") or {}
    planned = {trial["trial_id"]: trial for trial in manifest.get("trials") or ()}
    rows = [{str(name): value for name, value in row.items()} for row in trials.to_dict("records")]
    entries = [planned.get(row.get("trial_id")) or _entry(row, roles) for row in rows]
    found = [_identity(entry, roles) for entry in entries]
    return _with_references(trials.assign(**pd.DataFrame(found, index=trials.index)), roles)


def untreated_value(axis: str, values: Iterable[Any]) -> Any:
    """The reference's value on a treatment axis: 0 of a regularizer, otherwise the smallest of some values.

    Of words, such as the name of a loss, it is the default, or the first in alphabetical order without it.
    """
    if axis in REGULARIZERS:
        return 0.0
    values, default = list(values), DEFAULTS.get(axis)
    return default if isinstance(default, str) and default in values else min(values)


def _identity(trial: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    tuned = [axis for axis in trial["axes"] if roles.get(axis) == "tuned"]
    axes = [axis for axis in splitting_axes(roles) if axis in trial["axes"]]
    return {
        "cell": cell_of(trial, tuned),
        "setting": setting_of(trial, tuned),
        "context": ", ".join(f"{axis} {trial['axes'][axis]}" for axis in axes),
        "reference": trial.get("reference"),
    }


def _with_references(trials: pd.DataFrame, roles: Mapping[str, str]) -> pd.DataFrame:
    """Fills in which trials are the reference, which the manifests of first versions do not say."""
    known = trials["reference"]
    if known.isna().any():
        several = trials["tasks"].astype(str).str.contains("+", regex=False)
        found = ~trials["pretrained"].astype(bool) & ~several
        for axis in (axis for axis, role in roles.items() if role == "treatment" and axis in trials):
            found &= trials[axis] == untreated_value(axis, trials[axis])
        known = known.astype(object).where(known.notna(), found)
    return trials.assign(reference=known.astype(bool))


def cell_of(trial: Mapping[str, Any], tuned: Iterable[str]) -> str:
    """The cell of a planned trial: arm, treatments, nuisance and tuned values, exact."""
    values = _exact({name: trial["axes"][name] for name in tuned})
    setting = setting_of(trial, tuned)
    return f"{setting} ({' '.join(values)})" if values else setting


def setting_of(trial: Mapping[str, Any], tuned: Iterable[str]) -> str:
    """The cell of a planned trial without its tuned values."""
    axes, config = trial["axes"], trial["config"]
    hidden = {*ARM_FIELDS, "seed", *tuned}
    # What the arm's label leaves open: which tasks, and the head of a named backbone.
    if len(config["tasks"]) > 1:
        hidden.discard("tasks")
    if config.get("backbone"):
        hidden.discard("model")
    return " ".join([trial["arm"], *_exact({k: value for k, value in axes.items() if k not in hidden})])


def _exact(values: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_exact_value(value)}" for name, value in values.items()]


def _exact_value(value: Any) -> str:
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(float(value))
    if isinstance(value, list | tuple):
        return "+".join(map(_exact_value, value))
    return str(value)


def splitting_axes(roles: Mapping[str, str]) -> list[str]:
    """The axes of which each value is a context of its own."""
    return [
        axis for axis, role in roles.items() if role == "nuisance" or (role == "arm" and axis not in COMPARED)
    ]


def _entry(row: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """What a planned trial would say, from the values of its row."""
    axes = {axis: row[axis] for axis in roles if axis in row}
    tasks = str(row["tasks"]).split("+")
    return {
        "arm": row.get("arm", ""),
        "axes": axes,
        "config": {"tasks": tasks, "backbone": row.get("backbone")},
    }


def _facts_of(manifest: Mapping[str, Any], trial: Mapping[str, Any], record: TrialRecord) -> dict[str, Any]:
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
    row |= {
        name: _exact_value(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    # Trials of earlier versions do not state it.
    row["initialization"] = start_of(config.get("initialization"), pretrained=config["pretrained"])
    row |= {name: value for name, value in trial["axes"].items() if name not in (*config, *row)}
    return row | {name: record.facts.get(name) for name in TRIAL_FACTS}


def _score_values(record: TrialRecord, tasks: Iterable[str], primary: str, metric: Metric) -> dict[str, Any]:
    """Each task's scores at its best validation epoch, and under `last_…` at the last scored epoch."""
    columns: dict[str, Any] = {}
    for task in tasks:
        scored: dict[str, dict[int, SplitScore]] = {"train": {}, "val": {}, "train_clean": {}}
        for report in record.reports:
            for score in report.scores:
                # The test split is scored at the last epoch only, see `_image_values`.
                if score.task == task and score.split in scored:
                    scored[score.split][report.epoch] = score
        own = metric.of(task)
        values = {epoch: own.of_entry(score) for epoch, score in scored["val"].items()}
        known = [epoch for epoch, value in values.items() if not math.isnan(value)]
        best = max(known, key=lambda epoch: (values[epoch], -epoch), default=None)
        columns[f"{task}_best_epoch"] = best
        for split, by_epoch in scored.items():
            at_best = by_epoch.get(best) if best is not None else None
            at_last = by_epoch[max(by_epoch)] if by_epoch else None
            entries = {"last_": at_last} if split == "train_clean" else {"": at_best, "last_": at_last}
            for prefix, entry in entries.items():
                for name in SCORES:
                    columns[f"{prefix}{task}_{split}_{name}"] = getattr(entry, name, None)
                if own.score != MIOU:
                    columns[f"{prefix}{task}_{split}_{own.score}"] = own.of_entry(entry) if entry else None
    columns["best_epoch"] = columns[f"{primary}_best_epoch"]
    for prefix in ("", "last_"):
        columns[f"{prefix}val_miou_thesis"] = columns[f"{prefix}{primary}_val_miou_thesis"]
    return columns


def _image_values(
    record: TrialRecord, tasks: Iterable[str], row: Mapping[str, Any], folder: Store | None, metric: Metric
) -> dict[str, Any]:
    """What derives from the pixel counts of every image, and the score of the best constant prediction."""
    values: dict[str, Any] = {}
    for task, by_split in (record.facts.get("constant_miou") or {}).items():
        values |= {f"{task}_{split}_constant_miou": score for split, score in by_split.items()}
    counts, problem = _counts(record, folder)
    completed = row["status"] == TrialStatus.COMPLETED
    if completed and folder is not None and (lost := problem or lost_counts(record, counts)):
        values["error"] = row["error"] or f"{lost}; --resume recovers it"
    for (task, split), images in counts.items():
        values.setdefault(f"{task}_{split}_constant_miou", images.constant_miou())
        values[f"last_{task}_{split}_miou_jackknife"] = images.jackknife_mious()
        if split == "val":
            values |= {f"last_{task}_val_miou_{half}": miou for half, miou in images.half_mious().items()}
        else:
            values[f"last_{task}_{split}_miou"] = images.miou()
        if (own := metric.of(task)).score != MIOU:
            values |= _own_image_values(images, task, split, own)
    if completed:
        values |= {f"{task}_images": _images(record, counts, task, metric.of(task)) for task in tasks}
        if not _promises_counts(record) and (last := record.last_report):
            # Without counts, the test split's score is all that there is.
            tests = [score for score in last.scores if score.split == "test"]
            values = {f"last_{score.task}_test_miou": score.miou for score in tests} | values
            for own, entry in [(metric.of(score.task), score) for score in tests]:
                values.setdefault(f"last_{own.task}_test_{own.score}", own.of_entry(entry))
    return values


def _own_image_values(images: ImageCounts, task: str, split: str, metric: Metric) -> dict[str, Any]:
    """As for mIoU, by the score of the study."""
    prefix, score = f"last_{task}_{split}_{metric.score}", metric.from_counts
    values: dict[str, Any] = {f"{task}_{split}_constant_{metric.score}": metric.constant(images)}
    values[f"{prefix}_jackknife"] = images.jackknife_mious(score)
    if split == "val":
        return values | {f"{prefix}_{half}": value for half, value in images.half_mious(score).items()}
    return values | {prefix: images.miou(score=score)}


def _counts(record: TrialRecord, folder: Store | None) -> tuple[dict[tuple[str, str], ImageCounts], str]:
    """The pixel counts of a trial that has ended, and why they cannot be read."""
    if folder is None or not record.training_ended:
        return {}, ""
    try:
        return read_counts(folder), ""
    except ValueError as error:
        return {}, str(error)


def lost_counts(record: TrialRecord, counts: Mapping[tuple[str, str], ImageCounts]) -> str:
    """Why the pixel counts of a completed trial are incomplete; '' if they are there, or never were.

    The records of a trial say on which images it was scored; trials of first versions have no counts.
    """
    if not _promises_counts(record):
        return ""
    scored = [(task, "val") for task in record.facts.get("half_miou") or record.facts["constant_miou"]]
    last = record.last_report
    scored += [(score.task, "test") for score in (last.scores if last else ()) if score.split == "test"]
    missing = [f"{task}/{split}" for task, split in scored if (task, split) not in counts]
    if not missing:
        return ""
    return f"{COUNTS} lacks {', '.join(missing)}" if counts else f"{COUNTS} is missing"


def _promises_counts(record: TrialRecord) -> bool:
    return bool(record.facts.get("half_miou") or record.facts.get("constant_miou"))


def _images(
    record: TrialRecord, counts: Mapping[tuple[str, str], ImageCounts], task: str, metric: Metric
) -> str:
    """The images on which a trial was scored without choosing on all of them, lost or not."""
    last = record.last_report
    test = last.value(task, "test", "miou") if last else None
    if (test is not None and math.isfinite(test)) or (task, "test") in counts:
        return TEST
    halves = (record.facts.get("half_miou") or {}).get(task)
    if (halves is None or metric.score != MIOU) and (task, "val") in counts:
        halves = counts[task, "val"].half_mious(metric.from_counts)
    known = [(halves or {}).get(half) for half in HALVES]
    return HALVED if all(half is not None and math.isfinite(half) for half in known) else VALIDATION


def _status(record: TrialRecord, manifest: Mapping[str, Any]) -> TrialStatus:
    """The status of a trial, whose outcome may not be written yet.

    With a scheduler even a trial that ran to its end may turn out to have been stopped at a rung, so it
    stays `unfinished` until the outcome is written. So it does where the study decides while it runs.
    """
    scheduler = (manifest.get("scheduler") or {}).get("name", "none")
    last = record.last_report
    waits = scheduler != "none" or bool(manifest.get("design"))
    if record.final or waits or last is None or last.status == "running":
        return record.status
    return TrialStatus(last.status)


def _primary_task(manifest: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    """The task of the study's metric, or the trial's first one where it does not learn that task."""
    tasks = trial["config"]["tasks"]
    return next((task for task in tasks if str(manifest.get("metric", "")).startswith(f"{task}_")), tasks[0])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
