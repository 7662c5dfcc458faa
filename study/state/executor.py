"""What runs trials, behind a small interface: the driver decides, an executor starts, reports and ends."""

from dataclasses import dataclass
from typing import Protocol

from segstrat.records import EpochReport
from study.planning.trials import PlannedTrial


@dataclass(frozen=True)
class Started:
    """A worker has taken the trial, for the first time or again after a failure."""

    trial_id: str


@dataclass(frozen=True)
class Reported:
    """Reports of epochs that the trial has finished; after a restart, of all its epochs."""

    trial_id: str
    reports: tuple[EpochReport, ...]


@dataclass(frozen=True)
class Retried:
    """The trial's process failed, and another one will continue the trial."""

    trial_id: str
    error: str


@dataclass(frozen=True)
class Ended:
    """No worker will continue the trial; `error` says why it failed, '' if it did not."""

    trial_id: str
    error: str = ""


Event = Started | Reported | Retried | Ended


class Executor(Protocol):
    """Runs trials one epoch at a time, as many at once as fit."""

    def start(self, trial: PlannedTrial) -> None:
        """Queues a trial; trials start in the order in which they were queued."""

    def poll(self) -> list[Event]:
        """What has happened since the last call; waits briefly where nothing has.

        A trial whose epoch was reported continues with the next call, unless it is stopped before.
        """

    def stop(self, trial_id: str) -> None:
        """Ends a running trial after the epoch that it reported last; `Ended` follows."""
