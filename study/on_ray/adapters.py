"""Ray Tune's side of `TuneExecutor`: thin adapters that turn its calls into events."""

import pickle
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segstrat.pretraining.job import PretrainReport
from segstrat.records import EpochReport
from study.state.executor import Ended, Event, Report, Retried, Started


def job_id_of(trial: Trial) -> str:
    """Our id of a Tune trial, which is a job here."""
    return trial.config["job_id"]


class ClosedError(Exception):
    """The driver ends the study while jobs run."""


class TuneLink(Protocol):
    """What Tune's side needs of `study.on_ray.tuning.TuneExecutor`."""

    @property
    def closing(self) -> bool:
        """Whether no more jobs come."""

    def next_job(self) -> dict[str, Any] | None:
        """The worker's config of the next queued job."""

    def send(self, event: Event) -> object:
        """Hands an event to the driver."""

    def report(self, job_id: str, reports: tuple[Report, ...]) -> bool:
        """Hands over reports, waits until they were handled, and says whether the job is to stop."""


class DriverOnly:
    """Tune pickles these objects for a restore that never happens here, so their state is left out."""

    def __reduce__(self) -> tuple:
        return object, ()


class ReportingScheduler(DriverOnly, FIFOScheduler):
    """Starts jobs in order and stops those that the driver wants stopped.

    All decisions are made in `study.state.halving`: unlike those of Ray's own schedulers, they survive a
    killed driver, because they are repeated from the trials' records.
    """

    def __init__(self, link: TuneLink) -> None:
        super().__init__()
        self._link = link

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Stops a trial at a rung or its end, and any job that is in the way or cannot continue."""
        pretraining = "pretraining" in trial.config
        reports = tuple(
            PretrainReport(**report) if pretraining else EpochReport.from_dict(report)
            for report in result["reports"]
        )
        stop = self._link.report(job_id_of(trial), reports)
        return TrialScheduler.STOP if stop or result["error"] else TrialScheduler.CONTINUE


class QueuedJobs(DriverOnly, Searcher):
    """Lets Tune take the jobs that the driver has queued."""

    def __init__(self, link: TuneLink) -> None:
        super().__init__()
        self._link = link

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """The next job's config, None to be asked again, or that there are no more."""
        if self._link.closing:
            return Searcher.FINISHED
        return self._link.next_job()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the driver knows the outcomes."""


class EventCallback(DriverOnly, tune.Callback):
    """Reports to the driver what Tune does with the jobs' processes.

    Args:
        max_retries: failures in a row, without an epoch in between, after which a job is given up.
    """

    def __init__(self, link: TuneLink, max_retries: int) -> None:
        self._link = link
        self._max_retries = max_retries

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002
        """Ends Tune's loop where the driver ends while jobs run."""
        if self._link.closing and not all(trial.is_finished() for trial in trials):
            raise ClosedError

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A worker runs the job."""
        self._link.send(Started(job_id_of(trial)))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Resets the count of failures after each epoch gained: on spot nodes a long trial may fail often."""
        if result["reports"]:
            trial.max_failures = trial.num_failures + self._max_retries

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The worker failed; Tune starts another one."""
        self._link.send(Retried(job_id_of(trial), reason(trial)))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The worker failed too often."""
        self._link.send(Ended(job_id_of(trial), reason(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The job is complete, was stopped, or has said that it cannot continue."""
        if (actor := trial.temporary_state.ray_actor) is not None:
            # A process that waits for its next job would keep the memory of this one, and its locks.
            actor.cleanup.remote()
        self._link.send(Ended(job_id_of(trial), (trial.last_result or {}).get("error", "")))


def reason(trial: Trial) -> str:
    """Why a job's worker failed, in one line."""
    error = _error(trial)
    if isinstance(error, RayActorError):
        return "its process died (killed, out of memory, or its node was lost)"
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"


def _error(trial: Trial) -> Exception:
    # Tune's own accessor reads the copy in its storage, which lags behind.
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("Ray Tune gives no reason; run again with --verbose")
    return pickle.loads(Path(path).read_bytes())
