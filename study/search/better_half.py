"""Screening over several seeds: all cells on the first, the better half of each arm on each further one.

With a tuned axis these are the better half of an arm's settings, and the better half of the values that each
of them has tried.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from study.analysis.answering.nominate import better_half
from study.planning.trials import PlannedTrial
from study.search.answering import Question, screening_frame
from study.search.base import NoTrial
from study.state.trial_states import TrialState


class BetterHalf:
    """Proposes the trials of further screening seeds once those of the seeds before have ended.

    A cell that is slow to start is judged by where it ends, which stopping within a training cannot do, and
    a study of two seeds costs three quarters of the whole grid.

    Args:
        questions: see `study.search.answering`; a cell is trained if it is in the better half of any.
        later: all cells on the further seeds.
    """

    def __init__(self, questions: Sequence[Question], later: Sequence[PlannedTrial]) -> None:
        self._questions = questions
        self._later = later

    def propose(self, history: Sequence[TrialState]) -> PlannedTrial | NoTrial:
        """The next trial of the first seed that lacks one."""
        known = {state.trial.trial_id for state in history}
        for seed in self._seeds():
            wanted = self._wanted(history, seed)
            if wanted is None:
                return NoTrial.WAIT
            for trial in wanted:
                if trial.trial_id not in known:
                    return trial
        return NoTrial.DONE

    def remaining(self, history: Sequence[TrialState]) -> int:
        """How many more trials will be proposed, at most; half of the cells of each seed still open."""
        known = {state.trial.trial_id for state in history}
        count = 0
        for seed in self._seeds():
            wanted = self._wanted(history, seed)
            if wanted is None:
                count += self._expected([trial for trial in self._later if trial.config.seed == seed])
            else:
                count += sum(trial.trial_id not in known for trial in wanted)
        return count

    def _expected(self, trials: Sequence[PlannedTrial]) -> int:
        """About how many trials of a seed are in the better half."""
        settings = {trial.setting for trial in trials}
        if not settings or len(settings) == len(trials):
            return math.ceil(len(trials) / 2)
        values = math.ceil(len(trials) / len(settings) / 2)
        return (math.ceil(len(settings) / 2) + len(self._questions)) * values

    def _seeds(self) -> list[int]:
        return list(dict.fromkeys(sorted(trial.config.seed for trial in self._later)))

    def _wanted(self, history: Sequence[TrialState], seed: int) -> list[PlannedTrial] | None:
        """The trials of a seed; None while those of the seeds before are not known to be complete."""
        own = {trial.trial_id for trial in self._later if trial.config.seed >= seed}
        before = [state for state in history if state.trial.trial_id not in own]
        if not before or not all(state.final for state in before):
            return None
        cells: set[str] = set()
        for question in self._questions:
            cells.update(better_half(screening_frame(question, before), question.reference))
        return [trial for trial in self._later if trial.config.seed == seed and trial.cell in cells]


def first_seed_to_the_end(trials: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """The trials of the first seed, none of which may be stopped."""
    first = min(trial.config.seed for trial in trials)
    return [replace(trial, exempt=True) for trial in trials if trial.config.seed == first]
