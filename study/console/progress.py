"""How far a study is, in words, and how much longer it will take."""

import statistics
from collections.abc import Sequence

from segstrat.formatting import format_duration
from segstrat.records import TrialStatus
from study.cli import StudySettings
from study.state.pretrainings import PretrainState
from study.state.trial_states import Phase, TrialState, count_final


def resume_words(name: str, storage: str) -> str:
    """The command that continues a study.

    Args:
        storage: folder or URI of all studies.
    """
    where = "" if storage == StudySettings.storage else f" --storage {storage!r}"
    return f"uv run python study/run.py --resume --name {name}{where}"


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


def seconds_left(
    states: Sequence[TrialState],
    pretrainings: Sequence[PretrainState] = (),
    *,
    concurrent: int,
    unproposed: int = 0,
) -> float | None:
    """Wall time until the last trial ends if nobody is stopped early; None while no epoch was timed.

    Args:
        pretrainings: those that must be made; without a timed epoch of one, nothing is known.
        concurrent: jobs that run at the same time.
        unproposed: trials that a search will still propose, each as long as the mean of the known ones.
    """
    pace = seconds_per_epoch(states)
    epochs = sum(state.epochs_left for state in pretrainings)
    timed = [seconds for state in pretrainings for seconds in state.seconds]
    if not pace or (epochs and not timed):
        return None
    seconds = sum(remaining_epochs(state) * pace[state.trial.arm] for state in states)
    mean = statistics.fmean(state.trial.config.epochs * pace[state.trial.arm] for state in states)
    before = epochs * statistics.fmean(timed) if epochs else 0.0
    return (seconds + unproposed * mean + before) / max(1, concurrent)


def remaining_epochs(state: TrialState) -> int:
    """Epochs until the end of a trial's budget; 0 once it has ended."""
    if state.final or state.phase is Phase.ENDED:
        return 0
    last = state.record.last_report
    return state.trial.config.epochs - (last.epoch if last else 0)


def seconds_per_epoch(states: Sequence[TrialState]) -> dict[str, float]:
    """Mean epoch time of each arm; an arm without a report takes the mean of all.

    Returns:
        arm -> seconds, empty while there is no report at all.
    """
    by_arm: dict[str, list[float]] = {state.trial.arm: [] for state in states}
    for state in states:
        by_arm[state.trial.arm] += [report.seconds for report in state.record.reports]
    everything = [seconds for times in by_arm.values() for seconds in times]
    if not everything:
        return {}
    return {arm: statistics.fmean(times or everything) for arm, times in by_arm.items()}
