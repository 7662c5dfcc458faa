"""Where the next trial comes from: a fixed plan, or a search that learns from finished trials."""

from collections.abc import Iterable
from typing import Protocol

from study.planning.trials import PlannedTrial
from study.state.trial_states import TrialRow


class Search(Protocol):
    """Hands out trials and hears what became of them."""

    def next_trial(self) -> PlannedTrial | None:
        """The trial to start next; None if there is none now."""

    @property
    def unproposed(self) -> int:
        """Trials that the search will still propose, besides those that the ledger knows."""

    @property
    def finished(self) -> bool:
        """Whether `next_trial` will never hand out another one."""

    def record(self, row: TrialRow) -> None:
        """Hears of a trial whose outcome was just written."""


class PlannedSearch:
    """Hands out the trials of a plan in their order."""

    def __init__(self, trials: Iterable[PlannedTrial]) -> None:
        self._waiting = sorted(trials, key=lambda trial: trial.order, reverse=True)

    def next_trial(self) -> PlannedTrial | None:
        """The trial to start next; None at the end of the plan."""
        return self._waiting.pop() if self._waiting else None

    @property
    def unproposed(self) -> int:
        """None: the ledger knows the whole plan."""
        return 0

    @property
    def finished(self) -> bool:
        """Whether all trials were handed out."""
        return not self._waiting

    def record(self, row: TrialRow) -> None:
        """A plan is fixed: outcomes change nothing."""
