"""Where the next trial comes from: a fixed plan, or a search that learns from finished trials."""

from collections.abc import Iterable
from typing import Protocol

from segstrat.records import EpochReport
from study.plan import PlannedTrial


class Search(Protocol):
    """Hands out trials and hears what became of them."""

    def next_trial(self) -> PlannedTrial | None:
        """The trial to start next; None if there is none now."""

    @property
    def finished(self) -> bool:
        """Whether `next_trial` will never hand out another one."""

    def on_end(self, trial: PlannedTrial, status: str, reports: list[EpochReport]) -> None:
        """Hears the outcome of a trial: its status, and its reports up to where it was stopped."""


class PlannedSearch:
    """Hands out the trials of a plan in their order."""

    def __init__(self, trials: Iterable[PlannedTrial]) -> None:
        self._waiting = sorted(trials, key=lambda trial: trial.order, reverse=True)

    def next_trial(self) -> PlannedTrial | None:
        """The trial to start next; None at the end of the plan."""
        return self._waiting.pop() if self._waiting else None

    @property
    def finished(self) -> bool:
        """Whether all trials were handed out."""
        return not self._waiting

    def on_end(self, trial: PlannedTrial, status: str, reports: list[EpochReport]) -> None:
        """A plan is fixed: outcomes change nothing."""
