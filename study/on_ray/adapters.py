"""Ray Tune's side of the decisions: thin adapters between Tune, the ledger and the search."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from segstrat.records import EpochReport
from study.search.base import Search
from study.state.trial_states import Ledger


def trial_id_of(trial: Trial) -> str:
    """Our id of a Tune trial."""
    return trial.config["trial"]["trial_id"]


class DriverOnly:
    """Tune pickles what it is given, for a restore that is never asked for here; the ledger stays."""

    def __reduce__(self) -> tuple:
        return object, ()


class ArmFairASHA(DriverOnly, FIFOScheduler):
    """Starts trials in order and stops those that the ledger's rungs do not let pass.

    All judgement is in `study.state.halving`: unlike Ray's own schedulers it survives a killed driver,
    because it is replayed from the trials' records.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Stops a trial at its rung, at its end, or where it says that it cannot go on."""
        reports = [EpochReport.from_dict(report) for report in result["reports"]]
        ended = self._ledger.reported(trial_id_of(trial), reports)
        return TrialScheduler.STOP if ended or result["error"] else TrialScheduler.CONTINUE


class SearchAdapter(DriverOnly, Searcher):
    """Lets Tune take its trials from a `study.search.base.Search`.

    Args:
        settings: what every trial's worker needs besides the trial itself.
    """

    def __init__(self, search: Search, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._search = search
        self._settings = dict(settings)

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """The next trial's dict, None to be asked again, or that there are no more."""
        trial = self._search.next_trial()
        if trial is not None:
            return {"trial": trial.to_dict(), **self._settings}
        return Searcher.FINISHED if self._search.finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The search hears of outcomes from the ledger, which knows what they are."""


class LedgerCallback(DriverOnly, tune.Callback):
    """Tells the ledger what Tune does with the trials' processes.

    Args:
        max_retries: failures in a row, without an epoch in between, after which a trial is given up.
        on_tick: called several times a second from Tune's loop; may raise to end the study.
    """

    def __init__(self, ledger: Ledger, max_retries: int, on_tick: Callable[[], None]) -> None:
        self._ledger = ledger
        self._max_retries = max_retries
        self._on_tick = on_tick

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002
        """Gives the console and the signals their turn."""
        self._on_tick()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """A worker runs the trial."""
        self._ledger.started(trial_id_of(trial))

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """An epoch was gained: on a spot node a long trial may fail more often than a hopeless one may."""
        if result["reports"]:
            trial.max_failures = trial.num_failures + self._max_retries

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The worker failed; Tune starts another one."""
        self._ledger.retried(trial_id_of(trial), reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The worker failed once too often."""
        self._ledger.ended(trial_id_of(trial), error=reason(trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The trial was stopped, by its end or by the scheduler."""
        self._ledger.ended(trial_id_of(trial), error=(trial.last_result or {}).get("error", ""))


def reason(trial: Trial) -> str:
    """Why a trial's worker failed, in one line."""
    error = _error(trial)
    if isinstance(error, RayActorError):
        return "the trial's process died (killed, out of memory, or its node was lost)"
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"


def _error(trial: Trial) -> Exception:
    # Tune's own accessor reads the copy in its storage, which lags behind.
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("Ray Tune gives no reason; run again with --verbose")
    return pickle.loads(Path(path).read_bytes())
