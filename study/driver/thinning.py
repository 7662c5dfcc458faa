"""`--keep-checkpoints`: which checkpoints of ended trials are kept."""

from collections.abc import Callable, Iterable

from segstrat.records import TrialStatus, checkpoint_epochs, checkpoint_name, digest_name
from segstrat.store import Store
from study.state.trial_states import TrialState, TrialStates

ALL, LAST, NONE = "all", "last", "none"
# Checkpoints of each ended trial: `all` are the two newest ones and that of the best epoch.
KEPT = {ALL: 3, LAST: 1, NONE: 0}


def thin(states: TrialStates, trials: Iterable[TrialState], keep: str) -> None:
    """Deletes the checkpoints of ended trials that are not kept.

    A failed trial keeps its own: `--resume` continues it from there. Of the others nothing is trained again.

    Args:
        keep: `all`, `last` (the newest one, from which predictions are made) or `none`.
    """
    if keep == ALL:
        return
    for state in trials:
        if state.final and state.record.status is not TrialStatus.FAILED:
            _thin_folder(states.folder(state.trial), KEPT[keep])


def thinning(states: TrialStates, keep: str) -> Callable[[TrialState], None]:
    """Thins a trial once it has ended; until the report is written, the last checkpoints are needed."""
    return lambda state: thin(states, [state], ALL if keep == ALL else LAST)


def _thin_folder(folder: Store, count: int) -> None:
    epochs = checkpoint_epochs(folder.names())
    for epoch in epochs[: len(epochs) - count]:
        # Without its digest a checkpoint counts as one that was never finished.
        folder.delete(digest_name(checkpoint_name(epoch)))
        folder.delete(checkpoint_name(epoch))
