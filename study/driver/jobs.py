"""The jobs of a study: trials that wait for their weights, and the pre-trainings that make them.

A trial is handed to the executor once its weights exist; one that starts from none waits for nothing. Where
slots would be idle, the weights of the next look's seeds are trained ahead of time. Such a pre-training ends
at once where it takes the place of a job that is needed: its last complete epoch is kept, and a look that may
settle the study is not delayed, not even by the rest of an epoch.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from segstrat.errors import UserError
from segstrat.pretraining.job import PretrainReport
from study.planning.trials import PlannedTrial
from study.state.executor import Ended, Event, Executor, Job, Reported, Retried, Started, job_id
from study.state.pretrainings import PlannedPretraining, PretrainState
from study.state.trial_states import Phase

# A needed job that waits for so long is taken to lack a slot, for example after a node was lost.
PATIENCE_SECONDS = 60.0


class WeightFiles(Protocol):
    """What the jobs need of `study.driver.weights.Weights`."""

    def of(self, trial: PlannedTrial) -> PlannedPretraining | None:
        """The pre-training whose weights a trial starts from; None if it needs none."""

    def of_next_look(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        """The pre-trainings that the next look may need."""

    def find(self, job: PlannedPretraining, seconds: float | None = None) -> bool:
        """Whether the weights exist."""

    def epochs_done(self, job: PlannedPretraining) -> int:
        """How many epochs of a pre-training an earlier run has completed."""

    def placed(self, trial: PlannedTrial) -> PlannedTrial:
        """The trial with the path of its weights, which exist."""


Record = Callable[[Sequence[PlannedTrial], Sequence[PlannedPretraining]], object]


class Jobs:
    """Hands jobs to an executor as soon as they can start.

    Args:
        slots: jobs that run at the same time, as far as it is known.
        record: called with trials before they start, and with the pre-trainings that are not complete.
        clock: seconds.
    """

    def __init__(
        self,
        executor: Executor,
        weights: WeightFiles | None = None,
        *,
        slots: int = 1,
        record: Record = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._weights = weights
        self._slots = slots
        self._record = record
        self._clock = clock
        self._held: list[PlannedTrial] = []
        self._states: dict[str, PretrainState] = {}
        # Jobs that the executor has: since when they wait, or that they run.
        self._waiting: dict[str, float] = {}
        self._running: set[str] = set()
        self._stopping: set[str] = set()
        self._failed_ahead: set[str] = set()
        self._absent: set[str] = set()
        # Whether trials were added, which are recorded together with what can start now.
        self._added = False

    def pretrainings(self, trials: Sequence[PlannedTrial]) -> list[PretrainState]:
        """All pre-trainings of this run of the study, then those that the next look may need.

        Args:
            trials: all trials that are known.
        """
        return [
            *self._states.values(),
            *(PretrainState(job=job, ahead=True) for job in self._expected(trials)),
        ]

    def add(self, trials: Sequence[PlannedTrial]) -> None:
        """Takes trials that are to run."""
        self._held += trials
        self._added = True

    def start(self, trials: Sequence[PlannedTrial]) -> None:
        """Starts everything that can start, pre-trainings that trials need first; then fills idle slots.

        Args:
            trials: all trials that are known.
        """
        needed = self._needed()
        self._plan(needed, ahead=False)
        ready = [trial for trial in self._held if (job := self._job_of(trial)) is None or self._made(job)]
        placed = [self._weights.placed(trial) if self._weights else trial for trial in ready]
        if ready or needed or self._added:
            self._added = False
            self._held = [trial for trial in self._held if trial not in ready]
            self._record(placed, self._unfinished())
        for pretraining in needed:
            self._hand_over(pretraining)
        for trial in placed:
            self._hand_over(trial)
        self._balance(trials)

    def handle(self, event: Event) -> bool:
        """Takes note of an event; returns whether it was about a pre-training.

        Raises:
            UserError: if a pre-training that trials need has failed.
        """
        name = event.job_id
        match event:
            case Started():
                self._waiting.pop(name, None)
                self._running.add(name)
            case Retried():
                self._running.discard(name)
                self._waiting[name] = self._clock()
            case Ended():
                self._waiting.pop(name, None)
                self._running.discard(name)
        state = self._states.get(name)
        if state is None:
            return False
        match event:
            case Started():
                self._states[name] = replace(state, phase=Phase.RUNNING, error="")
            case Retried(_, error):
                self._states[name] = replace(state, phase=Phase.RETRYING, error=error)
            case Reported(_, reports):
                known = tuple(report for report in reports if isinstance(report, PretrainReport))
                self._states[name] = state.with_reports(known)
            case Ended(_, error):
                self._end(state, error)
        return True

    def words(self, job_id: str) -> str:
        """A pre-training that is queued, in words."""
        return f"pre-training of {self._states[job_id].job.pretraining}"

    def _job_of(self, trial: PlannedTrial) -> PlannedPretraining | None:
        return self._weights.of(trial) if self._weights else None

    def _expected(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        """The pre-trainings that the next look may need and that are not queued yet."""
        return [
            job
            for job in (self._weights.of_next_look(trials) if self._weights else [])
            if not (job.file in self._states or job.file in self._failed_ahead or self._made(job))
        ]

    def _made(self, job: PlannedPretraining) -> bool:
        """Whether weights exist; those of a pre-training that is not queued are looked for once."""
        if state := self._states.get(job.file):
            return state.made
        if job.file not in self._absent and self._weights is not None and self._weights.find(job):
            return True
        self._absent.add(job.file)
        return False

    def _needed(self) -> list[PlannedPretraining]:
        """The pre-trainings that trials wait for and the executor does not have."""
        needed: dict[str, PlannedPretraining] = {}
        for trial in self._held:
            job = self._job_of(trial)
            if job is None:
                continue
            state = self._states.get(job.file)
            if state is not None:
                self._states[job.file] = replace(state, ahead=False)
            elif job.file not in needed and not self._made(job):
                needed[job.file] = job
        return list(needed.values())

    def _plan(self, jobs: Sequence[PlannedPretraining], *, ahead: bool) -> None:
        for job in jobs:
            epoch = self._weights.epochs_done(job) if self._weights else 0
            self._states[job.file] = PretrainState(job=job, epoch=epoch, ahead=ahead)

    def _hand_over(self, job: Job) -> None:
        self._waiting[job_id(job)] = self._clock()
        self._executor.start(job)

    def _balance(self, trials: Sequence[PlannedTrial]) -> None:
        """Fills idle slots with pre-trainings ahead of time, or ends some that are in the way."""
        ahead = [
            name
            for name, state in self._states.items()
            if state.ahead and not state.made and name not in self._stopping
        ]
        needed = [
            since
            for name, since in self._waiting.items()
            if not (name in self._states and (self._states[name].ahead or name in self._stopping))
        ]
        room = self._slots - len(self._waiting) - len(self._running)
        if room > 0 and not needed:
            jobs = self._expected(trials)[:room]
            self._plan(jobs, ahead=True)
            if jobs:
                self._record((), self._unfinished())
            for job in jobs:
                self._hand_over(job)
        surplus = -room - len(self._stopping)
        if needed and self._clock() - min(needed) > PATIENCE_SECONDS and not self._stopping:
            surplus = max(surplus, 1)
        for name in ahead[::-1][: max(0, surplus)]:
            self._stopping.add(name)
            self._executor.stop(name)

    def _end(self, state: PretrainState, error: str) -> None:
        name = state.job.file
        stopped = name in self._stopping
        self._stopping.discard(name)
        if not error and self._weights is not None and self._weights.find(state.job, state.total_seconds):
            self._states[name] = replace(state, made=True)
        elif state.ahead or (stopped and not error):
            # Nobody needs it yet: it is continued when a trial does, or when slots are idle again.
            del self._states[name]
            if not stopped:
                self._failed_ahead.add(name)
        else:
            raise UserError(f"pre-training of {state.job.pretraining}: {error or 'it ended without weights'}")
        self._record((), self._unfinished())

    def _unfinished(self) -> list[PlannedPretraining]:
        return [state.job for state in self._states.values() if not state.made]
