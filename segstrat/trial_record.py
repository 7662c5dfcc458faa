"""One trial's files: what its worker recorded, and its outcome. The only reader of both.

The worker writes `records.json` after every epoch. The study's driver alone writes `outcome.json`, once
nothing can change the outcome any more.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segstrat.json_files import DamagedFileError, read_object, write_object
from segstrat.records import EpochReport, TrialStatus, read_records
from segstrat.store import Store
from segstrat.trial_files import RECORDS

OUTCOME = "outcome.json"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What is known about one trial.

    Args:
        status: `unfinished` until there is an outcome.
        facts: `segstrat.records.TrialFacts` as plain values; empty before the first epoch.
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


def _with_outcome(record: TrialRecord, outcome: Mapping[str, Any]) -> TrialRecord:
    """The record with the values of `outcome.json`, which the reports must support."""
    try:
        final = dataclasses.replace(
            record,
            status=TrialStatus(outcome["status"]),
            stop_rung=outcome["stop_rung"],
            stop_epoch=outcome["stop_epoch"],
            error=outcome["error"] or "",
            attempts=int(outcome["attempts"]),
        )
        last = final.last_report
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{OUTCOME} cannot be read: no outcome ({type(error).__name__}: {error})"
        ) from error
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
