"""The one place that changes a study while it runs: takes events, decides, proposes, records, notifies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segstrat.records import EpochReport
from study.planning.trials import PlannedTrial
from study.search.base import NoTrial, Search
from study.state.executor import Ended, Event, Executor, Reported, Retried, Started
from study.state.trial_states import TrialState, TrialStates


@dataclass(frozen=True, kw_only=True)
class Observers:
    """Functions that are called after each event; they do not change the study's state.

    Args:
        reported: a new epoch of a running trial.
        finished: a trial whose outcome was written.
    """

    reported: Sequence[Callable[[TrialState, EpochReport], None]] = field(default=())
    finished: Sequence[Callable[[TrialState], None]] = field(default=())


class Loop:
    """Runs the waiting trials, and those that the search proposes.

    Args:
        prepare: called with trials before they start: adds what the search does not know, such as the paths
            of their weights, and records them.
    """

    def __init__(
        self,
        states: TrialStates,
        search: Search,
        executor: Executor,
        observers: Observers | None = None,
        *,
        prepare: Callable[[Sequence[PlannedTrial]], Sequence[PlannedTrial]] = lambda trials: trials,
    ) -> None:
        self.states = states
        self._search = search
        self._executor = executor
        self._observers = observers or Observers()
        self._prepare = prepare
        self._proposing = True

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Runs until every trial has an outcome and the search has no more, or `on_tick` raises.

        Args:
            on_tick: called several times a second.
        """
        self._start(self.states.waiting())
        self._propose()
        while self._proposing or not all(state.final for state in self.states.by_id.values()):
            events = self._executor.poll()
            for event in events:
                self._handle(event)
            if any(isinstance(event, Ended) for event in events):
                self._propose()
            on_tick()

    def _propose(self) -> None:
        """Starts all trials that the search proposes now, together: their weights may have to be trained."""
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
        self._start(proposed)

    def _start(self, trials: Sequence[PlannedTrial]) -> None:
        for trial in self._prepare(trials) if trials else ():
            self._executor.start(trial)

    def _handle(self, event: Event) -> None:
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

    def _report(self, trial_id: str, reports: Sequence[EpochReport]) -> None:
        for report in self.states.reported(trial_id, reports):
            for tell in self._observers.reported:
                tell(self.states.by_id[trial_id], report)
        if self.states.should_end(trial_id):
            self._executor.stop(trial_id)
