"""The one place that changes a study while it runs: takes events, decides, proposes, records, notifies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segstrat.records import EpochReport
from study.driver.jobs import Jobs
from study.planning.trials import PlannedTrial
from study.search.base import NoTrial, Search
from study.state.executor import Ended, Event, Executor, Report, Reported, Retried, Started
from study.state.trial_states import TrialState, TrialStates


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Functions that are called after each event; they do not change the study's state.

    Args:
        reported: a new epoch of a running trial.
        finished: a trial whose outcome was written.
        retried: a job in words whose process failed, and why; another process continues it.
    """

    reported: Sequence[Callable[[TrialState, EpochReport], None]] = field(default=())
    finished: Sequence[Callable[[TrialState], None]] = field(default=())
    retried: Sequence[Callable[[str, str], None]] = field(default=())


class Loop:
    """Runs the waiting trials, and those that the search proposes.

    Args:
        jobs: hand the trials to the executor; by default at once.
        record: called with trials that the search has proposed, before the jobs record and start anything for
            them: after a kill they are known, and are not proposed again.
    """

    def __init__(
        self,
        states: TrialStates,
        search: Search,
        executor: Executor,
        observers: Observers | None = None,
        *,
        jobs: Jobs | None = None,
        record: Callable[[Sequence[PlannedTrial]], object] = lambda _: None,
    ) -> None:
        self.states = states
        self._search = search
        self._executor = executor
        self._observers = observers or Observers()
        self._jobs = jobs or Jobs(executor)
        self._record = record
        self._proposing = True

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Runs until every trial has an outcome and the search has no more, or `on_tick` raises.

        Args:
            on_tick: called several times a second.
        """
        self._jobs.add(self.states.waiting())
        self._propose()
        while self._proposing or not all(state.final for state in self.states.by_id.values()):
            self._jobs.start([state.trial for state in self.states.in_order()])
            events = self._executor.poll()
            for event in events:
                self._handle(event)
            if any(isinstance(event, Ended) for event in events):
                self._propose()
            on_tick()

    def _propose(self) -> None:
        """Takes all trials that the search proposes now."""
        proposed: list[PlannedTrial] = []
        while self._proposing:
            proposal = self._search.propose(self.states.in_order())
            if isinstance(proposal, NoTrial):
                self._proposing = proposal is not NoTrial.DONE
                break
            self.states.add(proposal)
            proposed.append(proposal)
        if self._proposing and all(state.final for state in self.states.by_id.values()):
            raise RuntimeError("the search waits, but no trial is left to wait for")
        if proposed:
            self._record(proposed)
            self._jobs.add(proposed)

    def _handle(self, event: Event) -> None:
        of_pretraining = self._jobs.handle(event)
        if isinstance(event, Retried):
            state = self.states.by_id.get(event.job_id)
            words = state.trial.label if state else self._jobs.words(event.job_id)
            for tell_of_retry in self._observers.retried:
                tell_of_retry(words, event.error)
        if of_pretraining:
            return
        match event:
            case Started(trial_id):
                self.states.started(trial_id)
            case Reported(trial_id, reports):
                self._report(trial_id, reports)
            case Retried(trial_id, error):
                self.states.retried(trial_id, error)
            case Ended(trial_id, error):
                for state in self.states.ended(trial_id, error):
                    for tell in self._observers.finished:
                        tell(state)

    def _report(self, trial_id: str, reports: Sequence[Report]) -> None:
        of_trial = [report for report in reports if isinstance(report, EpochReport)]
        for report in self.states.reported(trial_id, of_trial):
            for tell in self._observers.reported:
                tell(self.states.by_id[trial_id], report)
        if self.states.should_end(trial_id):
            self._executor.stop(trial_id)
