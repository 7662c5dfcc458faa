"""A trial's own files: its facts and one report per epoch, and how it ended.

The worker writes `records.json` after every epoch. The study's driver alone writes `outcome.json`, once
nothing can change the outcome any more. Nothing else reads or writes these two.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

from segstrat.store import DamagedFileError, Store, read_object, write_object

RECORDS = "records.json"
"""The trial's facts and one report per epoch."""

OUTCOME = "outcome.json"
"""How the trial ended."""

_CHECKPOINT = re.compile(r"checkpoint-(\d{6})\.pt")


def checkpoint_name(epoch: int) -> str:
    """File of the state after `epoch`."""
    return f"checkpoint-{epoch:06d}.pt"


def digest_name(checkpoint: str) -> str:
    """File of a checkpoint's SHA-256."""
    return f"{checkpoint}.sha256"


def checkpoint_epochs(names: Iterable[str]) -> list[int]:
    """Epochs of the checkpoints among the names of a folder, ascending."""
    return sorted(int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name)))


class TrialStatus(StrEnum):
    """How a trial ended. Only a completed one has a final value."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    """By the scheduler, at a rung."""
    DIVERGED = "diverged"
    FAILED = "failed"
    UNFINISHED = "unfinished"


class Stage(StrEnum):
    """What a trial is for."""

    SCREENING = "screening"
    """It nominates candidates, and may be stopped early."""
    ANSWERING = "answering"
    """It is trained to the end, and enters the verdict."""


Split = Literal["train", "train_clean", "val", "test"]
ReportStatus = Literal["running", "completed", "diverged"]


@dataclass(frozen=True, kw_only=True)
class SplitScore:
    """Scores of one task on one split after one epoch.

    `miou` follows the VOC protocol (void pixels count nowhere); `miou_thesis` counts predictions on void
    pixels into the union, as the thesis code does, so that its tables can be compared.
    Classes that neither occur nor are predicted have IoU None and are left out of the mean. `train` are the
    augmented crops, as seen during training; `train_clean` are whole training images without augmentation,
    dropout or stochastic depth, chosen by their ids, as many as validation images at most. They, and the
    test split where the data has one, are scored at the last epoch only. `boundary_f1` is None where
    boundaries are not scored, see `segstrat.image_counts.mean_boundary_f1`.
    """

    split: Split
    task: str
    loss: float
    miou: float
    miou_thesis: float
    pixel_accuracy: float
    class_accuracy: float
    iou: tuple[float | None, ...]
    boundary_f1: float | None = None


SCORES = tuple(each.name for each in dataclasses.fields(SplitScore) if each.type is float)


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """State of a trial after `epoch` of its `epochs`.

    Args:
        status: `completed` with the last epoch, `diverged` once a loss is not finite.
        learning_rate: of the heads, at the last step of the epoch.
        seconds: wall time of the epoch, validation included.
        images_per_second: training images over the time spent in training.
        data_wait: share of the training time that was spent waiting for input.
        message: why the trial diverged.
    """

    epoch: int
    epochs: int
    status: ReportStatus
    scores: tuple[SplitScore, ...]
    learning_rate: float
    seconds: float
    images_per_second: float
    data_wait: float
    message: str = ""

    def value(self, task: str, split: str, score: str) -> float | None:
        """One score, or None if that split was not scored in this epoch."""
        for entry in self.scores:
            if entry.task == task and entry.split == split:
                return float(getattr(entry, score))
        return None

    def metrics(self) -> dict[str, float]:
        """The scores under flat names: `semseg_val_miou`, `parts_train_loss`, …."""
        return {f"{s.task}_{s.split}_{name}": float(getattr(s, name)) for s in self.scores for name in SCORES}

    def to_dict(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes None, because JSON has no NaN."""
        return _without_nan(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EpochReport":
        """The inverse of `to_dict`."""
        scores = tuple(_score(score) for score in values["scores"])
        report = cls(**{**values, "scores": scores})
        _check_types(report.__dict__, cls)
        if report.status not in get_args(ReportStatus) or report.epoch < 1:
            raise ValueError(f"epoch {report.epoch} is {report.status!r}")
        return report


@dataclass(frozen=True, kw_only=True)
class TrialFacts:
    """What was actually built and used, so that a setting without effect is noticed.

    Args:
        realised_weight_decay: the value in the optimizers.
        dropout_modules: dropout layers in the built model.
        init_digest: of all parameters before pre-trained weights; equal for paired arms of one seed.
        weights_digest: SHA-256 of the pre-trained weights' file, empty without one.
        standardization: `mean` and `std` of the images by channel.
        test_images: 0 where the data has no test split.
        constant_miou: task -> split -> mIoU of the best constant prediction, from the labels; known once the
            split was scored.
        class_weights: task -> weights of its classes in the loss; empty where they are equal.
        half_miou: task -> half -> mIoU on each half of the validation images after the last epoch, see
            `segstrat.image_counts.image_half`.
    """

    num_parameters: int
    realised_weight_decay: float
    dropout_modules: int
    init_digest: str
    weights_digest: str
    data_digest: str
    train_images: int
    val_images: int
    device: str
    precision: str
    test_images: int = 0
    standardization: Mapping[str, Sequence[float]] = field(default_factory=dict)
    constant_miou: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    half_miou: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    class_weights: Mapping[str, Sequence[float]] = field(default_factory=dict)


def write_records(store: Store, facts: TrialFacts, reports: list[EpochReport]) -> None:
    """Writes the trial's facts and all its reports so far, atomically."""
    content = {
        "facts": _without_nan(dataclasses.asdict(facts)),
        "reports": [report.to_dict() for report in reports],
    }
    write_object(store, RECORDS, content)


def read_records(store: Store) -> tuple[dict[str, Any], list[EpochReport]]:
    """Facts and reports of a trial; both empty where it has not finished an epoch.

    Raises:
        DamagedFileError: if the file does not hold them.
    """
    if not store.exists(RECORDS):
        return {}, []
    return parse_records(read_object(store, RECORDS))


def parse_records(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[EpochReport]]:
    """Facts and reports from plain values: those of `records.json`, or of a checkpoint.

    Raises:
        DamagedFileError: if they are not there, or not of their types.
    """
    try:
        reports = [EpochReport.from_dict(report) for report in content["reports"]]
        facts = dict(content["facts"])
        _check_types(facts, TrialFacts)
        return facts, reports
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(
            f"{RECORDS} cannot be read: no facts and epoch reports ({type(error).__name__}: {error})"
        ) from error


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What is known about one trial.

    Args:
        status: `unfinished` until there is an outcome.
        facts: `TrialFacts` as plain values; empty before the first epoch.
        all_reports: one per epoch, in order; the newest attempt's where an epoch was trained twice.
        attempts: how often a worker has started the trial.
        stop_epoch: the epoch of the rung at which the trial was stopped.
        problem: why its files cannot be read, '' if they can.
    """

    status: TrialStatus = TrialStatus.UNFINISHED
    facts: Mapping[str, Any] = field(default_factory=dict)
    all_reports: tuple[EpochReport, ...] = ()
    attempts: int = 0
    error: str = ""
    stop_rung: int | None = None
    stop_epoch: int | None = None
    problem: str = ""

    @property
    def final(self) -> bool:
        """Whether the trial has an outcome."""
        return self.status != TrialStatus.UNFINISHED

    @property
    def reports(self) -> tuple[EpochReport, ...]:
        """The reports that count.

        A stopped trial may have trained on while its rung was being decided; what it reported after the
        rung counts nowhere.
        """
        if self.stop_epoch is None:
            return self.all_reports
        return tuple(report for report in self.all_reports if report.epoch <= self.stop_epoch)

    @property
    def last_report(self) -> EpochReport | None:
        """The last report that counts."""
        reports = self.reports
        return reports[-1] if reports else None

    @property
    def training_ended(self) -> bool:
        """Whether the training itself has ended: with its last epoch, or because it diverged."""
        last = self.last_report
        return last is not None and last.status != "running"

    @property
    def seconds(self) -> float:
        """Training and validation time of the epochs that count."""
        return sum(report.seconds for report in self.reports)

    def with_reports(self, reports: Iterable[EpochReport]) -> "TrialRecord":
        """This record with further reports; a new one replaces an earlier one of the same epoch."""
        by_epoch = {report.epoch: report for report in (*self.all_reports, *reports)}
        return dataclasses.replace(self, all_reports=tuple(by_epoch[epoch] for epoch in sorted(by_epoch)))

    def outcome(self) -> dict[str, Any]:
        """What `outcome.json` holds."""
        return {
            "status": self.status,
            "stop_rung": self.stop_rung,
            "stop_epoch": self.stop_epoch,
            "error": self.error,
            "seconds": self.seconds,
            "attempts": self.attempts,
        }


def read_record(folder: Store) -> TrialRecord:
    """What a trial has left in its folder.

    Where a file is damaged, or the files contradict each other, the trial is `unfinished`, whatever its
    outcome says, and `problem` names the file.
    """
    record = TrialRecord()
    try:
        facts, reports = read_records(folder)
        record = dataclasses.replace(record, facts=facts).with_reports(reports)
        if folder.exists(OUTCOME):
            return _with_outcome(record, read_object(folder, OUTCOME))
    except DamagedFileError as damage:
        return dataclasses.replace(record, problem=str(damage))
    return record


def read_outcome(folder: Store) -> TrialRecord | None:
    """A trial's outcome alone, without its reports, which may not support it; None where it has none.

    A tenth of the time that `read_record` takes, for a first look at thousands of trials.
    """
    try:
        outcome = read_object(folder, OUTCOME)
        return _of_outcome(TrialRecord(), outcome)
    except (FileNotFoundError, DamagedFileError):
        return None


def _of_outcome(record: TrialRecord, outcome: Mapping[str, Any]) -> TrialRecord:
    """The record with the values of `outcome.json`."""
    try:
        _check_types(outcome, TrialRecord)
        return dataclasses.replace(
            record,
            status=TrialStatus(outcome["status"]),
            stop_rung=outcome["stop_rung"],
            stop_epoch=outcome["stop_epoch"],
            error=outcome["error"] or "",
            attempts=int(outcome["attempts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{OUTCOME} cannot be read: no outcome ({type(error).__name__}: {error})"
        ) from error


def _with_outcome(record: TrialRecord, outcome: Mapping[str, Any]) -> TrialRecord:
    """The record with the values of `outcome.json`, which the reports must support."""
    final = _of_outcome(record, outcome)
    last = final.last_report
    if final.status == TrialStatus.STOPPED:
        supported = last is not None and last.epoch == final.stop_epoch
    elif final.status in (TrialStatus.COMPLETED, TrialStatus.DIVERGED):
        supported = last is not None and last.status == final.status
    else:
        supported = True
    if not supported:
        end = f"ends at epoch {last.epoch} of {last.epochs}" if last else "is missing or empty"
        raise DamagedFileError(f"{RECORDS} {end}, but {OUTCOME} says {final.status}")
    return final


def write_outcome(folder: Store, record: TrialRecord) -> None:
    """Writes a trial's outcome atomically."""
    write_object(folder, OUTCOME, record.outcome())


def _score(values: Mapping[str, Any]) -> SplitScore:
    numbers = {name: math.nan if values[name] is None else float(values[name]) for name in SCORES}
    boundary, iou = values.get("boundary_f1"), tuple(values["iou"])
    split, task = values["split"], values["task"]
    if split not in get_args(Split) or not isinstance(task, str) or not _holds_numbers((boundary, *iou)):
        raise ValueError(f"{split} of {task} is no score")
    return SplitScore(split=split, task=task, iou=iou, boundary_f1=boundary, **numbers)


_KINDS: Mapping[Any, Any] = {str: str, int: int, float: int | float, int | None: int}


def _check_types(values: Mapping[str, Any], expected: type) -> None:
    """Raises a TypeError for a value that is not of the type of its field in a dataclass; it may be None."""
    for each in dataclasses.fields(expected):
        value, kind = values.get(each.name), _KINDS.get(each.type, Mapping)
        if value is None or each.name in ("scores", "status"):
            continue
        if not isinstance(value, kind) or not (kind is str or _holds_numbers(value)):
            raise TypeError(f"{each.name} is {str(value)[:40]!r}")


def _holds_numbers(value: Any) -> bool:
    """Whether a value is a number that a table can hold, unknown, or made of such under names."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _holds_numbers(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_holds_numbers, value))
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return value is None or isinstance(value, float)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
