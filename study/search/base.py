"""Where further trials come from: nowhere, for a fixed plan, or a search that learns from outcomes."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from segstrat.records import TrialRecord
from segstrat.scores import Metric
from segstrat.store import Store
from study.analysis.study import Context, Study, contexts
from study.frame.build import epoch_table, metric_of, trial_row, trials_frame
from study.planning.trials import PlannedTrial
from study.state.trial_states import TrialState


class NoTrial(Enum):
    """Why a search proposes no trial now."""

    WAIT = "wait"
    """Another one may follow once running trials have ended."""
    DONE = "done"


class Search(Protocol):
    """Proposes trials as a pure function of what is known; the driver adds, records and starts them."""

    def propose(self, history: Sequence[TrialState]) -> PlannedTrial | NoTrial:
        """The next trial.

        Args:
            history: all trials of the study in its order, including waiting and running ones.
        """

    def remaining(self, history: Sequence[TrialState]) -> int:
        """How many more trials will be proposed, at most."""


class FixedPlan:
    """Proposes nothing: the trials of the plan are all there are."""

    def propose(self, history: Sequence[TrialState]) -> NoTrial:  # noqa: ARG002
        """Nothing, ever."""
        return NoTrial.DONE

    def remaining(self, history: Sequence[TrialState]) -> int:  # noqa: ARG002
        """None."""
        return 0


class History:
    """What the trials of a running study say: the `Study` that its report would read from disk.

    A trial's row is built once, when the trial has ended; until then it says what was planned.

    Args:
        folder: the study's; None where no trial has ended, as in a plan.
        manifest: `study`, `space`, `roles`, `metric` and `design` are needed, `claims` is read.
    """

    def __init__(self, folder: Store | None, manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        self._manifest = manifest
        self._rows: dict[str, tuple[TrialRecord | None, dict[str, Any]]] = {}

    def study(self, states: Sequence[TrialState], answering: Mapping[str, Any] | None = None) -> Study:
        """The study of these trials.

        Args:
            answering: what is fixed of each context, as in the manifest.
        """
        manifest = {**self._manifest, "answering": answering or {}}
        rows = [self.row(state) for state in states]
        trials = trials_frame(rows, manifest)
        return Study(str(manifest["study"]), manifest, trials, epoch_table("", []))

    @property
    def judges_claims(self) -> bool:
        """Whether the study is to judge the claims of the thesis, as its space says."""
        return bool(self._manifest.get("claims"))

    @property
    def metric(self) -> Metric:
        """By what the study judges its trials."""
        return metric_of(self._manifest)

    def forget(self, states: Iterable[TrialState]) -> None:
        """Reads the files of these trials again: what was lost or damaged since is lost here too."""
        for state in states:
            self._rows.pop(state.trial.trial_id, None)

    def row(self, state: TrialState) -> dict[str, Any]:
        """A trial's row of the `trials` frame."""
        trial_id = state.trial.trial_id
        record = state.record if state.final else None
        known, row = self._rows.get(trial_id, (None, {}))
        if not row or known is not record:
            folder = self._folder / "trials" / trial_id if self._folder and record else None
            row = trial_row(self._manifest, state.trial.to_dict(), record or TrialRecord(), folder)
            self._rows[trial_id] = record, row
        return row


def answerable_contexts(study: Study) -> list[Context]:
    """The contexts of all tasks that an answering stage can answer."""
    return [context for task in study.tasks for context in contexts(study, task) if context.answerable]
