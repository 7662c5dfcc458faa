"""What runs jobs, behind a small interface: the driver decides, an executor starts, reports and ends.

A job is a trial, or the pre-training of weights that trials start from.
"""

from dataclasses import dataclass
from typing import Protocol

from segstrat.pretraining.job import PretrainReport
from segstrat.records import EpochReport
from study.planning.trials import PlannedTrial
from study.state.pretrainings import PlannedPretraining

Job = PlannedTrial | PlannedPretraining
Report = EpochReport | PretrainReport


def job_id(job: Job) -> str:
    """The name of a job, by which events mean it."""
    return job.trial_id if isinstance(job, PlannedTrial) else job.file


@dataclass(frozen=True)
class Started:
    """A worker has taken the job, for the first time or again after a failure."""

    job_id: str


@dataclass(frozen=True)
class Reported:
    """Reports of epochs that the job has finished; after a restart of a trial, of all its epochs."""

    job_id: str
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class Retried:
    """The job's process failed, and another one will continue the job."""

    job_id: str
    error: str


@dataclass(frozen=True)
class Ended:
    """No worker will continue the job; `error` says why it failed, '' if it did not."""

    job_id: str
    error: str = ""


Event = Started | Reported | Retried | Ended


class Executor(Protocol):
    """Runs jobs one epoch at a time, as many at once as fit."""

    def start(self, job: Job) -> None:
        """Queues a job; jobs start in the order in which they were queued."""

    def poll(self) -> list[Event]:
        """What has happened since the last call; waits briefly where nothing has.

        A trial whose epoch was reported continues with the next call, unless it is stopped before.
        """

    def stop(self, job_id: str) -> None:
        """Ends a trial after the epoch that it reported last, a pre-training at once; `Ended` follows."""
