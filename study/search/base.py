"""Where further trials come from: nowhere, for a fixed plan, or a search that learns from outcomes."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

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
