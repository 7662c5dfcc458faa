"""How far a study is, in words."""

from collections.abc import Sequence

from segstrat.records import TrialStatus
from study.state.trial_states import TrialState, count_final


def progress_words(states: Sequence[TrialState], unproposed: int = 0) -> str:
    """`5/8 trials done, 1 failed`: a failed trial has ended, but it is not done.

    Args:
        unproposed: trials that a search will still propose.
    """
    failed = sum(state.record.status is TrialStatus.FAILED for state in states)
    words = f"{count_final(states) - failed}/{len(states) + unproposed} trials done"
    return f"{words}, {failed} failed" if failed else words
