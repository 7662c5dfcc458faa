"""How far a study is, in words."""

from collections.abc import Sequence

from segstrat.formatting import format_duration
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


def outlook_words(seconds: float, *, two_stages: bool) -> str:
    """`at most about 5 min left`: trials that are stopped early take less.

    Args:
        seconds: until the last of the trials that are known to follow.
        two_stages: whether a look at the seeds may ask for more trials.
    """
    return f"at most about {format_duration(seconds)} {'until the next look' if two_stages else 'left'}"
