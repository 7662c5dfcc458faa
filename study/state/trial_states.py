"""The state of a running study: what every trial has reported, what was decided, what is on disk.

The workers write `trials/<id>/records.json`; `TrialStates` alone writes `trials/<id>/outcome.json`, and only
once nothing can change the outcome any more. A study that was killed is rebuilt from these files.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from segstrat.records import (
    OUTCOME,
    EpochReport,
    Stage,
    TrialRecord,
    TrialStatus,
    checkpoint_epochs,
    checkpoint_name,
    digest_name,
    read_outcome,
    read_record,
    write_outcome,
)
from segstrat.scores import Metric
from segstrat.store import Store
from study.planning.trials import PlannedTrial
from study.state.halving import Competitor, Decision, HalvingRule, decide, recorded_decisions, stop_rung
from study.state.recovery import recover_record

# Says that a worker has taken a trial, which reports only after its first epoch.
BEGUN = "begun"
# This many trials that fail alike before their first epoch end a study in which nothing has worked yet.
ALIKE_FAILURES = 3


class Phase(StrEnum):
    """Where the driver is with a trial that has no outcome yet."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    ENDED = "ended"
    """Trained to its end, while an earlier trial still decides whether it is stopped at a rung."""


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """One trial at one moment: its plan, its record, and where the driver is with it."""

    trial: PlannedTrial
    record: TrialRecord = field(default_factory=TrialRecord)
    phase: Phase = Phase.WAITING

    @property
    def final(self) -> bool:
        """Whether the trial has an outcome."""
        return self.record.final

    @property
    def shown(self) -> str:
        """The status of a trial that has an outcome, else its phase."""
        return self.record.status if self.final else self.phase

    def as_stage(self, stage: Stage) -> "TrialState":
        """The same trial in another stage."""
        return replace(self, trial=replace(self.trial, stage=stage))

    @property
    def active(self) -> bool:
        """Whether a worker has the trial, or will have it again after a failure."""
        return not self.final and self.phase in (Phase.RUNNING, Phase.RETRYING)


class TrialStates:
    """The states of a study's trials, which only the driver changes.

    Args:
        study: the study's folder.
        rule: of early stopping.
        metric: the score by which trials are judged at a rung.
    """

    def __init__(self, study: Store, rule: HalvingRule, metric: Metric) -> None:
        self.study = study
        self.rule = rule
        self.metric = metric
        self._states: dict[str, TrialState] = {}
        # Trials that compete with each other, and how the rungs see each: asked with every report.
        self._groups: dict[tuple[Any, ...], list[str]] = {}
        self._competitors: dict[str, tuple[TrialState, Competitor]] = {}
        self._anything_reported = False

    @classmethod
    def recorded(cls, study: Store, manifest: Mapping[str, Any], *, whole: bool = True) -> "TrialStates":
        """Those of the trials in a study's manifest, as an earlier or another run left them on disk.

        Args:
            whole: see `read`.
        """
        metric = Metric.parse(manifest["metric"], manifest["data"].get("classes"))
        states = cls(study, HalvingRule.from_dict(manifest["scheduler"]), metric)
        for trial in manifest["trials"]:
            states.add(PlannedTrial.from_dict(trial))
        states.read(whole=whole)
        return states

    @property
    def by_id(self) -> Mapping[str, TrialState]:
        """The states by trial id, read-only."""
        return MappingProxyType(self._states)

    def in_order(self) -> list[TrialState]:
        """All states in the study's order."""
        return sorted(self._states.values(), key=lambda state: state.trial.order)

    def waiting(self) -> list[PlannedTrial]:
        """Trials that are still to run, in order."""
        return [state.trial for state in self.in_order() if not state.final and state.phase is Phase.WAITING]

    def add(self, trial: PlannedTrial) -> None:
        """Adds a trial; all trials before it in its group must be added before it reports."""
        if trial.trial_id not in self._states:
            self._groups.setdefault(trial.group, []).append(trial.trial_id)
        self._states[trial.trial_id] = TrialState(trial=trial)

    def read(self, trial_ids: Iterable[str] | None = None, *, whole: bool = True) -> None:
        """Reads what an earlier run of the study left on disk, and changes nothing there.

        Args:
            trial_ids: the trials to read; default: all.
            whole: otherwise, of a trial with an outcome that alone is read, and not its reports.
        """
        for trial_id in list(self._states if trial_ids is None else trial_ids):
            state = self._states[trial_id]
            folder = self.folder(state.trial)
            record = (None if whole else read_outcome(folder)) or read_record(folder)
            self._states[trial_id] = replace(state, record=record, phase=_phase_on_disk(record))

    def resume(self) -> list[str]:
        """Reads what an earlier run left on disk, to continue from there.

        Outcomes stand, except that a failed trial is run again. A trial that had trained to its end gets its
        outcome without running again. Damaged files are recovered, see `study.state.recovery`.

        Returns:
            one sentence about each trial whose files were recovered.
        """
        notes = []
        for trial_id, state in self._states.items():
            folder = self.folder(state.trial)
            record, note = recover_record(folder)
            if note:
                notes.append(f"{state.trial.label} ({trial_id}): {note}")
            if record.status is TrialStatus.FAILED:
                folder.delete(OUTCOME)
                record = TrialRecord(facts=record.facts, all_reports=record.all_reports)
            if not record.final:
                folder.delete(BEGUN)
            self._states[trial_id] = replace(state, record=record, phase=_phase_on_disk(record))
        self._settle()
        return notes

    def started(self, trial_id: str) -> None:
        """A worker takes the trial."""
        self.folder(self._states[trial_id].trial).write(BEGUN, b"")
        self._change(trial_id, Phase.RUNNING, attempts=self._states[trial_id].record.attempts + 1)

    def reported(self, trial_id: str, reports: Sequence[EpochReport]) -> list[EpochReport]:
        """Takes reports of a running trial; returns those of epochs that were not known yet."""
        state = self._states[trial_id]
        known = {report.epoch for report in state.record.all_reports}
        self._states[trial_id] = replace(state, record=state.record.with_reports(reports))
        self._anything_reported |= bool(reports)
        return [report for report in reports if report.epoch not in known]

    def should_end(self, trial_id: str) -> bool:
        """Whether a running trial has trained to its end, or is to be stopped at a rung."""
        state = self._states[trial_id]
        if state.record.training_ended:
            return True
        return stop_rung(self._decisions(state)[trial_id]) is not None

    def retried(self, trial_id: str, error: str) -> None:
        """The trial's process failed; another one will continue from the last checkpoint."""
        self._change(trial_id, Phase.RETRYING, error=error)

    def ended(self, trial_id: str, error: str = "") -> list[TrialState]:
        """No worker will continue the trial.

        Args:
            error: why it failed, '' if it did not.

        Returns:
            the trials whose outcome was written now.
        """
        state = self._states[trial_id]
        if not error and not self.should_end(trial_id):
            error = f"the trial ended after epoch {len(state.record.reports)} of {state.trial.config.epochs}"
        # The scores that an answer uses are facts, and a worker sends its reports alone.
        facts = read_record(self.folder(state.trial)).facts
        self._change(trial_id, Phase.ENDED, error=error, facts=facts or state.record.facts)
        return self._settle()

    def common_failure(self) -> str:
        """The message with which the first trials all failed, before anything worked; else ''."""
        if self._anything_reported:
            return ""
        failed = [
            state.record.error for state in self._states.values() if state.record.status is TrialStatus.FAILED
        ]
        kinds = {_without_numbers(error) for error in failed}
        enough = len(failed) >= min(ALIKE_FAILURES, len(self._states))
        return failed[0] if len(kinds) == 1 and enough else ""

    def folder(self, trial: PlannedTrial) -> Store:
        """The folder of a trial's files."""
        return self.study / "trials" / trial.trial_id

    def _change(self, trial_id: str, phase: Phase, **record: object) -> None:
        state = self._states[trial_id]
        self._states[trial_id] = replace(state, phase=phase, record=replace(state.record, **record))  # type: ignore[arg-type]

    def _settle(self) -> list[TrialState]:
        """Writes the outcome of every ended trial that no open decision can change any more."""
        settled = []
        for trial_id, state in self._states.items():
            if state.final or state.phase is not Phase.ENDED:
                continue
            decisions = self._decisions(state)[trial_id]
            if Decision.OPEN in decisions:
                continue
            record = self._with_outcome(state, stop_rung(decisions))
            write_outcome(self.folder(state.trial), record)
            self._states[trial_id] = replace(state, record=record)
            settled.append(self._states[trial_id])
        return settled

    def _with_outcome(self, state: TrialState, rung: int | None) -> TrialRecord:
        record, config = state.record, state.trial.config
        if rung is not None:
            epoch = self.rule.rung_epochs(config.epochs, config.validate_every)[rung]
            return replace(record, status=TrialStatus.STOPPED, stop_rung=rung, stop_epoch=epoch, error="")
        last = record.last_report
        if record.training_ended and last is not None:
            return replace(record, status=TrialStatus(last.status), error=last.message)
        return replace(record, status=TrialStatus.FAILED)

    def _decisions(self, state: TrialState) -> dict[str, tuple[Decision, ...]]:
        """The decisions of every rung about the trials of a trial's group."""
        if not self.rule.fractions:
            return {state.trial.trial_id: ()}
        group = [self._states[trial_id] for trial_id in self._groups[state.trial.group]]
        group.sort(key=lambda other: other.trial.order)
        table = decide([self._competitor(other) for other in group], self.rule)
        return {other.trial.trial_id: row for other, row in zip(group, table, strict=True)}

    def _competitor(self, state: TrialState) -> Competitor:
        known, found = self._competitors.get(state.trial.trial_id, (None, None))
        if known is not state or found is None:
            found = competitor(state, self.rule, self.metric)
            self._competitors[state.trial.trial_id] = state, found
        return found


def competitor(state: TrialState, rule: HalvingRule, metric: Metric) -> Competitor:
    """A trial as the rungs see it.

    References and trials of the answering stage compete but are never stopped. A diverged trial ranks last at
    each rung that it did not reach.
    """
    trial, record = state.trial, state.record
    epochs = rule.rung_epochs(trial.config.epochs, trial.config.validate_every)
    reports = {report.epoch: report for report in record.all_reports}
    diverged = bool(record.all_reports) and record.all_reports[-1].status == TrialStatus.DIVERGED
    missing = math.nan if diverged else None
    judged = [None if epoch is None else reports.get(epoch) for epoch in epochs]
    values = [None if report is None else metric.of_report(report) for report in judged]
    judged_before = record.final and record.status is not TrialStatus.FAILED
    return Competitor(
        epochs=epochs,
        values=tuple(missing if value is None else value for value in values),
        learned=tuple(None if report is None else _learned(report, metric.task) for report in judged),
        ended=record.final or state.phase is Phase.ENDED,
        exempt=trial.reference or trial.stage is Stage.ANSWERING or diverged,
        ranked=not trial.exempt,
        recorded=recorded_decisions(rule, record.stop_rung) if judged_before else None,
    )


def _learned(report: EpochReport, task: str) -> float | None:
    """Mean IoU of a task on the validation split, without that of the best class."""
    for score in report.scores:
        if score.split == "val" and score.task == task:
            found = [iou for iou in score.iou if iou is not None]
            return (sum(found) - max(found)) / len(found) if found else None
    return None


def _phase_on_disk(record: TrialRecord) -> Phase:
    return Phase.ENDED if not record.final and record.training_ended else Phase.WAITING


def _without_numbers(message: str) -> str:
    """A message without what differs from trial to trial: numbers, digests, addresses."""
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+", "#", message)


def count_final(states: Iterable[TrialState]) -> int:
    """How many trials have an outcome."""
    return sum(state.final for state in states)


ALL, LAST, NONE = "all", "last", "none"
# Checkpoints of each ended trial: `all` are the two newest ones and that of the best epoch.
KEPT = {ALL: 3, LAST: 1, NONE: 0}
KEPT_WORDS = {
    ALL: "the two newest and the best of each ended trial",
    LAST: "the last of each ended trial, from which predictions are made",
    NONE: "none of an ended trial once the report is written",
}


def drop_checkpoints(states: TrialStates, trials: Iterable[TrialState], keep: str) -> None:
    """Deletes the checkpoints of ended trials that are not kept.

    A failed trial keeps its own: `--resume` continues it from there. Of the others nothing is trained again.

    Args:
        keep: `all`, `last` (the newest one, from which predictions are made) or `none`.
    """
    if keep == ALL:
        return
    for state in trials:
        if not state.final or state.record.status is TrialStatus.FAILED:
            continue
        folder = states.folder(state.trial)
        epochs = checkpoint_epochs(folder.names())
        for epoch in epochs[: len(epochs) - KEPT[keep]]:
            # Without its digest a checkpoint counts as one that was never finished.
            folder.delete(digest_name(checkpoint_name(epoch)))
            folder.delete(checkpoint_name(epoch))
