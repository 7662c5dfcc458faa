"""`--track`: a study's trials, curves and verdict in MLflow or Weights & Biases, through their own libraries.

A thread of its own calls the library, so that neither its pace nor its failures get in the way of a study:
the first error is printed and ends the tracking alone.
"""

import importlib.util
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.records import EpochReport, TrialStatus
from segstrat.store import Store
from study.console.tensorboard import epoch_values
from study.state.trial_states import TrialState

# How long the end of a study waits for what is not yet recorded.
PATIENCE = 60.0
DATABASE = "mlflow.db"
# MLflow's limit for a parameter's value, and for a tag's.
LONGEST = 5000


class Library(Protocol):
    """What a library is told."""

    def start(self, state: TrialState) -> None:
        """A trial begins, or continues in another process."""

    def log(self, state: TrialState, report: EpochReport) -> None:
        """A trial has another epoch."""

    def end(self, state: TrialState) -> None:
        """A trial has its outcome."""

    def answer(self, verdict: Mapping[str, Any]) -> None:
        """The study has an answer, in the form of verdict.json."""


class Mlflow:
    """An experiment per study with a run per trial.

    It is in `$MLFLOW_TRACKING_URI` if that is set, else in `mlflow.db` beside the studies.
    """

    def __init__(self, study: Store, name: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{study.local_path.parent / DATABASE}"
        self._client = MlflowClient(uri)
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._runs: dict[str, str] = {}

    def start(self, state: TrialState) -> None:
        """Begins the trial's run, or finds that of an earlier process."""
        from mlflow.entities import Param

        trial = state.trial
        if trial.trial_id in self._runs:
            return
        known = self._client.search_runs([self._experiment], f"tags.trial_id = '{trial.trial_id}'")
        if known:
            self._runs[trial.trial_id] = known[0].info.run_id
            self._client.update_run(known[0].info.run_id, status="RUNNING")
            return
        tags = {"trial_id": trial.trial_id, "arm": trial.arm}
        run = self._client.create_run(self._experiment, tags=tags, run_name=trial.label)
        self._runs[trial.trial_id] = run.info.run_id
        params = [Param(name, str(value)[:LONGEST]) for name, value in facts(state).items()]
        self._client.log_batch(run.info.run_id, params=params)

    def log(self, state: TrialState, report: EpochReport) -> None:
        """Adds an epoch to the trial's run."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        values = epoch_values(report)
        metrics = [Metric(name, value, now, report.epoch) for name, value in values.items()]
        self._client.log_batch(self._runs[state.trial.trial_id], metrics=metrics)

    def end(self, state: TrialState) -> None:
        """Ends the trial's run; one that failed or diverged counts as failed."""
        status = state.record.status
        failed = status in (TrialStatus.FAILED, TrialStatus.DIVERGED)
        run = self._runs[state.trial.trial_id]
        self._client.set_tag(run, "status", status.value)
        self._client.set_terminated(run, "FAILED" if failed else "FINISHED")

    def answer(self, verdict: Mapping[str, Any]) -> None:
        """Records label and sentence."""
        for key, name in (("verdict", "verdict"), ("sentence", "mlflow.note.content")):
            self._client.set_experiment_tag(self._experiment, name, str(verdict[key])[:LONGEST])


class Wandb:
    """A project per study, a run per trial and one for the verdict; offline unless `$WANDB_MODE` is set."""

    def __init__(self, study: Store, name: str) -> None:
        import wandb

        self._wandb: Any = wandb
        self._study, self._name = study, name
        self._runs: dict[str, Any] = {}

    def start(self, state: TrialState) -> None:
        """Begins the trial's run, or finds that of an earlier process."""
        trial = state.trial
        if trial.trial_id not in self._runs:
            self._runs[trial.trial_id] = self._run(trial.trial_id, trial.label, trial.arm, facts(state))

    def log(self, state: TrialState, report: EpochReport) -> None:
        """Adds an epoch to the trial's run."""
        self._runs[state.trial.trial_id].log(epoch_values(report), step=report.epoch)

    def end(self, state: TrialState) -> None:
        """Ends the trial's run; one that failed or diverged counts as failed."""
        run, status = self._runs.pop(state.trial.trial_id), state.record.status
        run.summary["status"] = status.value
        run.finish(exit_code=int(status in (TrialStatus.FAILED, TrialStatus.DIVERGED)))

    def answer(self, verdict: Mapping[str, Any]) -> None:
        """Records label and sentence."""
        # Of trials that an interrupted study leaves.
        for run in self._runs.values():
            run.finish(exit_code=1)
        run = self._run("verdict", "verdict", None, {})
        run.summary.update({key: verdict[key] for key in ("verdict", "sentence")})
        run.finish()

    def _run(self, run_id: str, name: str, group: str | None, config: Mapping[str, Any]) -> Any:
        return self._wandb.init(
            project=self._name, id=f"{self._name}-{run_id}", name=name, group=group, config=dict(config),
            dir=str(self._study.local_path), mode=os.environ.get("WANDB_MODE", "offline"), resume="allow",
            reinit="create_new", settings=self._wandb.Settings(silent=True, console="off"),
        )  # fmt: skip


LIBRARIES: dict[str, Callable[[Store, str], Library]] = {"mlflow": Mlflow, "wandb": Wandb}


def check_library(name: str | None, study: Store) -> None:
    """Raises a UserError if a study cannot be tracked so."""
    if name is None:
        return
    if importlib.util.find_spec(name) is None:
        raise UserError(f"--track {name}: {name} is not installed; run: uv sync --extra {name}")
    if not (study.is_local or (name == "mlflow" and os.environ.get("MLFLOW_TRACKING_URI"))):
        raise UserError(
            f"--track {name}: its files are kept beside the study, which must be in a folder; give one with "
            "--storage" + ", or set MLFLOW_TRACKING_URI" * (name == "mlflow")
        )


def facts(state: TrialState) -> dict[str, Any]:
    """The config of a trial and the axes of its study, as plain values."""
    trial = state.trial
    return {"arm": trial.arm, "stage": trial.stage.value, **trial.config.to_dict(), **trial.axes}


class Tracker:
    """Tells a library what happens, in a thread of its own; without one it does nothing.

    Args:
        make: makes the library's side; an error of it is one of the library.
        warn: called once, with the first error in words.
    """

    def __init__(self, make: Callable[[], Library] | None, warn: Callable[[str], object]) -> None:
        self._make, self._warn = make, warn
        self._queue: queue.SimpleQueue[Callable[[Library], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        if make is not None:
            self._thread.start()

    @classmethod
    def of(cls, name: str | None, study: Store, title: str, console: Console) -> "Tracker":
        """The tracker that `--track` asks for."""

        def warn(words: str) -> None:
            console.print(Text(f"--track {name}: {words}; the study goes on without it", style="yellow"))

        return cls(None if name is None else lambda: LIBRARIES[name](study, title), warn)

    def reported(self, state: TrialState, report: EpochReport) -> None:
        """Records an epoch."""

        def tell(library: Library) -> None:
            library.start(state)
            library.log(state, report)

        self._put(tell)

    def finished(self, state: TrialState) -> None:
        """Records an outcome."""

        def tell(library: Library) -> None:
            library.start(state)
            library.end(state)

        self._put(tell)

    def answered(self, study: Store) -> None:
        """Records the answer of a study that has ended."""
        self._put(lambda library: library.answer(json.loads(study.read("verdict.json"))))

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the library, at most `PATIENCE` seconds."""
        if self._make is None:
            return
        self._queue.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._warn(f"it did not answer within {PATIENCE:.0f} s")

    def _put(self, tell: Callable[[Library], None]) -> None:
        if self._thread.is_alive():
            self._queue.put(tell)

    def _run(self) -> None:
        assert self._make is not None
        try:
            library = self._make()
            while (tell := self._queue.get()) is not None:
                tell(library)
        # Whatever another library raises; BaseException, because some end the process.
        except BaseException as error:
            self._warn(f"{type(error).__name__}: {error}")
