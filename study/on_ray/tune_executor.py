"""Runs jobs under Ray Tune, which starts, places, retries and ends their processes.

Tune wants to own the main loop; here the driver does. So Tune runs in its own thread and hands over what
happens as events. After an epoch it waits until the driver has handled the report and called `poll` again:
a trial that is to stop trains no further epoch.
"""

import contextlib
import os
import pickle
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segstrat.pretraining.job import PretrainReport
from segstrat.records import EpochReport
from study.on_ray.jobs import StudyJob
from study.on_ray.runtime import ClusterLostError
from study.on_ray.trainable import SegmentationTrial
from study.planning.trials import PlannedTrial
from study.state.executor import Ended, Event, Job, Report, Reported, Retried, Started, job_id

POLL_SECONDS = 0.25
# How long Tune may take to end its actors before the driver gives up waiting.
CLOSE_SECONDS = 60.0


class TuneExecutor:
    """An executor (see `study.state.executor`) for the length of a `with` block. Ray must be initialized.

    Args:
        settings: what every worker needs besides its job, see `study.driver.session.worker_settings`.
        expected_concurrent: jobs that fit now; as many workers are started at the same time.
        max_concurrent: jobs that may run at the same time; None: as many as fit, also on later nodes.
        max_retries: how often in a row, without an epoch gained, a job whose process fails is continued
            from its last checkpoint.
        reuse_actors: let a process run one job after the other.
        scratch: folder for what Tune writes and nobody reads; default: the system's temporary folder.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        expected_concurrent: int,
        max_concurrent: int | None = None,
        max_retries: int = 2,
        reuse_actors: bool = True,
        scratch: Path | None = None,
        trial_class: type[SegmentationTrial] = StudyJob,
    ) -> None:
        self._settings = dict(settings)
        self._expected_concurrent = expected_concurrent
        self._max_concurrent = max_concurrent
        self._max_retries = max_retries
        self._reuse_actors = reuse_actors
        self._scratch = scratch
        self._trial_class = trial_class
        self._queued: deque[Job] = deque()
        # Each event with what is set once the driver has handled it.
        self._events: queue.Queue[tuple[Event, threading.Event]] = queue.Queue()
        self._returned: list[threading.Event] = []
        self._stopping: set[str] = set()
        self._closing = threading.Event()
        self._error: BaseException | None = None
        # A daemon: should Tune hang, the driver's process can still end.
        self._thread = threading.Thread(target=self._run, name="ray-tune", daemon=True)

    def __enter__(self) -> "TuneExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        # Where Ray has ended, Tune would wait for answers that never come.
        if self._thread.ident is not None and not isinstance(error, ClusterLostError):
            self._thread.join(CLOSE_SECONDS)

    def start(self, job: Job) -> None:
        """Queues a job."""
        # One that was stopped may come again.
        self._stopping.discard(job_id(job))
        self._queued.append(job)

    def stop(self, job_id: str) -> None:
        """Ends a job after its next report."""
        self._stopping.add(job_id)

    def poll(self) -> list[Event]:
        """What has happened; raises what ended Tune itself."""
        if self._thread.ident is None:
            # Not earlier: Tune sleeps for a second where it finds no trial.
            self._thread.start()
        for handled in self._returned:
            handled.set()
        self._returned = []
        events = []
        try:
            item = self._events.get(timeout=POLL_SECONDS)
            while True:
                events.append(item[0])
                self._returned.append(item[1])
                item = self._events.get_nowait()
        except queue.Empty:
            if not events and self._error is not None:
                raise self._error from None
        return events

    # What follows is called from Tune's thread.

    @property
    def closing(self) -> bool:
        """Whether no more trials come."""
        return self._closing.is_set()

    def next_job(self) -> dict[str, Any] | None:
        """The worker's config of the next queued job."""
        while self._queued:
            job = self._queued.popleft()
            name = job_id(job)
            if name in self._stopping:
                self.send(Ended(name))
                continue
            common = {"job_id": name, **self._settings}
            if not isinstance(job, PlannedTrial):
                return common | {"pretraining": job.to_dict()}
            trial = job.to_dict()
            return trial.pop("config") | {"trial": trial} | common
        return None

    def send(self, event: Event) -> threading.Event:
        """Hands an event to the driver; returns what is set once the driver has handled it."""
        handled = threading.Event()
        self._events.put((event, handled))
        return handled

    def report(self, job_id: str, reports: tuple[Report, ...]) -> bool:
        """Hands over reports, waits until they were handled, and says whether the job is to stop."""
        handled = self.send(Reported(job_id, reports))
        while not (handled.wait(POLL_SECONDS) or self.closing):
            continue
        return job_id in self._stopping

    def _run(self) -> None:
        try:
            with contextlib.suppress(ClosedError):
                self._fit()
        except BaseException as error:
            self._error = error

    def _fit(self) -> None:
        # Tune asks for one trial at a time by default; starting a worker takes seconds.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self._expected_concurrent)
        with tempfile.TemporaryDirectory(prefix="segstrat-tune-", dir=self._scratch) as scratch:
            # What Tune itself writes is thrown away: nothing is ever restored from it.
            tuner = tune.Tuner(
                self._trial_class,
                tune_config=tune.TuneConfig(
                    search_alg=QueuedJobs(self),
                    scheduler=ReportingScheduler(self),
                    num_samples=-1,
                    max_concurrent_trials=self._max_concurrent,
                    reuse_actors=self._reuse_actors,
                    trial_name_creator=job_id_of,
                    trial_dirname_creator=job_id_of,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=self._max_retries),
                    callbacks=[EventCallback(self, self._max_retries)],
                    verbose=0,
                ),
            )
            tuner.fit()


def job_id_of(trial: Trial) -> str:
    """Our id of a Tune trial, which is a job here."""
    return trial.config["job_id"]


class ClosedError(Exception):
    """The driver ends the study while jobs run."""


class DriverOnly:
    """Tune pickles these objects for a restore that never happens here, so their state is left out."""

    def __reduce__(self) -> tuple:
        return object, ()


class ReportingScheduler(DriverOnly, FIFOScheduler):
    """Starts jobs in order and stops those that the driver wants stopped.

    All decisions are made in `study.state.halving`: unlike those of Ray's own schedulers, they survive a
    killed driver, because they are repeated from the trials' records.
    """

    def __init__(self, link: TuneExecutor) -> None:
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

    def __init__(self, link: TuneExecutor) -> None:
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

    def __init__(self, link: TuneExecutor, max_retries: int) -> None:
        self._link = link
        self._max_retries = max_retries
        self._newest: dict[str, int] = {}

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
        """Resets the count of failures after each epoch gained: on spot nodes a long trial may fail often.

        A job that could not write its checkpoint reports epochs again that it had reported before.
        """
        newest = max((report["epoch"] for report in result["reports"]), default=0)
        if newest > self._newest.get(trial.trial_id, 0):
            self._newest[trial.trial_id] = newest
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
