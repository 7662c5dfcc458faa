"""The state of a study: what every trial has reported, what was decided, what is on disk. No Ray in it.

The workers write `trials/<id>/records.json`; the ledger alone writes `trials/<id>/outcome.json`, and only
once nothing can change it any more. A study that was killed is rebuilt from these files.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from segstrat.records import EpochReport, TrialStatus
from segstrat.store import Store
from segstrat.trial_record import OUTCOME, read_record
from study.planning.trials import PlannedTrial
from study.state.halving import Rungs
from study.state.recovery import recover_record

FINAL = ("completed", "stopped", "diverged", "failed")
# So many trials that fail alike before their first epoch stop a study in which nothing has worked yet.
ALIKE_FAILURES = 3

State = Literal["waiting", "running", "retrying", "ended", "completed", "stopped", "diverged", "failed"]


@dataclass
class TrialRow:
    """What is known of one trial.

    Args:
        state: `ended` is a trial that has trained to its end while an earlier trial still decides whether
            it would have been stopped at a rung.
        reports: of every epoch so far, the newest attempt's where an epoch was trained twice.
    """

    trial: PlannedTrial
    state: State = "waiting"
    reports: dict[int, EpochReport] = field(default_factory=dict)
    attempts: int = 0
    error: str = ""
    stop_rung: int | None = None
    stop_epoch: int | None = None

    @property
    def counted_reports(self) -> list[EpochReport]:
        """The reports that are part of the trial's record: up to where it was stopped."""
        last = self.stop_epoch if self.stop_epoch is not None else max(self.reports, default=0)
        return [report for epoch, report in sorted(self.reports.items()) if epoch <= last]

    @property
    def last_report(self) -> EpochReport | None:
        """The last counted report."""
        reports = self.counted_reports
        return reports[-1] if reports else None


class Ledger:
    """Takes what workers report, decides by the rungs and writes outcomes.

    Args:
        store: folder of the study.
        metric: what trials are judged by, such as `semseg_val_miou`.
        on_report: called with each report that a running trial sends.

    Attributes:
        on_final: called with the row of each trial whose outcome was just written.
    """

    def __init__(
        self,
        store: Store,
        rungs: Rungs,
        metric: str,
        on_report: Callable[[TrialRow, EpochReport], None] = lambda *_: None,
    ) -> None:
        self.store = store
        self.metric = metric
        self.rows: dict[str, TrialRow] = {}
        self.anything_reported = False
        self._rungs = rungs
        self._on_report = on_report
        self.on_final: Callable[[TrialRow], None] = lambda _: None

    def add(self, trial: PlannedTrial) -> None:
        """Makes a planned trial known."""
        self.rows[trial.trial_id] = TrialRow(trial)
        self._rungs.add(
            trial.trial_id,
            order=trial.order,
            arm=trial.arm,
            epochs=trial.config.epochs,
            validate_every=trial.config.validate_every,
        )

    def recall(self, *, resume: bool) -> list[str]:
        """Reads what an earlier run of the study left on disk.

        Args:
            resume: continue from there: failed trials are tried again, everything else that has an outcome
                stands, a trial that had trained to its end is settled without running again, and damaged
                files are recovered. Without it, the rows only show what is there and nothing is written.

        Returns:
            one sentence about each trial whose files were recovered.
        """
        notes = []
        for trial_id, row in self.rows.items():
            folder = self._folder(trial_id)
            record, note = recover_record(folder) if resume else (read_record(folder), "")
            if note:
                notes.append(f"{row.trial.label} ({trial_id}): {note}")
            row.reports = {report.epoch: report for report in record.all_reports}
            row.error = record.problem
            if record.status == TrialStatus.FAILED and resume:
                folder.delete(OUTCOME)
            elif record.final:
                row.state, row.error = cast(State, record.status.value), record.error
                row.stop_rung, row.stop_epoch = record.stop_rung, record.stop_epoch
                row.attempts = record.attempts
            self._replay(row)
        if resume:
            self._settle()
        return notes

    def waiting(self) -> list[PlannedTrial]:
        """Trials that are still to run, in order."""
        open_rows = [row for row in self.rows.values() if row.state == "waiting"]
        return sorted((row.trial for row in open_rows), key=lambda trial: trial.order)

    def started(self, trial_id: str) -> None:
        """A worker takes up the trial."""
        row = self.rows[trial_id]
        row.state = "running"
        row.attempts += 1

    def reported(self, trial_id: str, reports: Iterable[EpochReport]) -> bool:
        """Takes reports of a running trial; says whether it should end now."""
        row = self.rows[trial_id]
        for report in reports:
            if report.epoch not in row.reports:
                self._on_report(row, report)
            row.reports[report.epoch] = report
            self.anything_reported = True
        self._replay(row)
        last = row.last_report
        return self._rungs.stop(trial_id) is not None or (last is not None and last.status != "running")

    def retried(self, trial_id: str, error: str) -> None:
        """The trial's process failed and it will be tried again from its last checkpoint."""
        self.rows[trial_id].state, self.rows[trial_id].error = "retrying", error

    def ended(self, trial_id: str, error: str = "") -> None:
        """No worker will go on with the trial; with `error`, because it failed."""
        row = self.rows[trial_id]
        row.error = error
        last = row.last_report
        finished = last is not None and last.status != "running"
        if not (error or finished or self._rungs.stop(trial_id)):
            row.state = "waiting"  # the study is being interrupted
            return
        row.state = "ended"
        self._rungs.end(trial_id)
        self._settle()

    def common_failure(self) -> str:
        """The message with which the study's first trials failed alike, before anything worked; else ''."""
        if self.anything_reported:
            return ""
        failed = [row.error for row in self.rows.values() if row.state == "failed"]
        alike = {_without_numbers(error) for error in failed}
        return failed[0] if len(alike) == 1 and len(failed) >= min(ALIKE_FAILURES, len(self.rows)) else ""

    def _replay(self, row: TrialRow) -> None:
        trial_id = row.trial.trial_id
        for report in row.reports.values():
            value = report.metrics().get(self.metric)
            if value is not None:
                self._rungs.report(trial_id, report.epoch, value)
        if row.state == "failed":
            self._rungs.end(trial_id)
        elif row.state in FINAL:
            self._rungs.recall(trial_id, row.stop_rung)
        elif row.state == "waiting" and row.last_report and row.last_report.status != "running":
            row.state = "ended"
            self._rungs.end(trial_id)

    def _settle(self) -> None:
        """Writes the outcome of every ended trial that no open decision can change any more."""
        for trial_id, row in self.rows.items():
            if row.state != "ended" or not self._rungs.settled(trial_id):
                continue
            last = row.last_report
            stop = self._rungs.stop(trial_id)
            if stop is not None:
                row.state, row.stop_rung, row.stop_epoch, row.error = "stopped", stop.rung, stop.epoch, ""
            elif last is not None and last.status in ("completed", "diverged"):
                row.state, row.error = last.status, last.message
            else:
                row.state = "failed"
            self._folder(trial_id).write(OUTCOME, json.dumps(_outcome(row)).encode())
            self.on_final(row)

    def _folder(self, trial_id: str) -> Store:
        return self.store / "trials" / trial_id


def _outcome(row: TrialRow) -> dict[str, Any]:
    return {
        "status": row.state,
        "stop_rung": row.stop_rung,
        "stop_epoch": row.stop_epoch,
        "error": row.error,
        "seconds": sum(report.seconds for report in row.counted_reports),
        "attempts": row.attempts,
    }


def _without_numbers(message: str) -> str:
    """A message without what differs from trial to trial: numbers, digests, addresses."""
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", message)


def rows_by_order(rows: Iterable[TrialRow]) -> Sequence[TrialRow]:
    """Rows in the study's order."""
    return sorted(rows, key=lambda row: row.trial.order)
