"""Screening, then answering: every cell on few seeds, then the reference and the candidates on fresh ones.

Screening nominates candidates and may stop trials early. The answering stage trains the reference and the
candidates to the end, look by look, until each question is settled or the last look is reached; only its
trials enter the verdict. Everything is a pure function of the trials' outcomes, so a resumed study, and one
that is extended by more seeds, repeats all decisions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from segstrat.errors import UserError
from segstrat.records import Stage, TrialStatus
from study.analysis.answering.decision import replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.looks import Look, Roles
from study.analysis.answering.nominate import nominate
from study.planning.trials import PlannedTrial
from study.search.answering import Question, answering_frame, screening_frame
from study.search.base import NoTrial, Search
from study.state.trial_states import TrialState

# Seeds beyond the planned ones, in place of those on which a trial failed.
SPARE_SEEDS = 3

Pair = tuple[str, int]
MakeTrial = Callable[[PlannedTrial, int], PlannedTrial]
Answered = Mapping[Pair, TrialState]


@dataclass(frozen=True)
class Progress:
    """How far a question is.

    Args:
        roles: reference and candidates; None if nothing was nominated (yet).
        looks: all looks so far.
        needed: cells and seeds of the next look; empty once the question is settled.
        problem: why nothing more can be answered, '' otherwise.
    """

    roles: Roles | None = None
    looks: tuple[Look, ...] = ()
    needed: tuple[Pair, ...] = ()
    problem: str = ""

    @property
    def settled(self) -> bool:
        """Whether no more trials are needed."""
        return self.roles is not None and not self.needed


class TwoStageSearch:
    """Proposes the trials of the answering stage once screening has ended.

    Args:
        questions: see `study.search.answering`.
        design: looks, error rates and numbers of candidates.
        first_seed: the first of the fresh seeds.
        make_trial: `(a trial of the cell, seed) -> the cell's trial on that seed`.
        screening: where further screening trials come from.
        screened: the screening trials, where they belong to another study (`--confirm`).
    """

    def __init__(
        self,
        questions: Sequence[Question],
        design: AnsweringDesign,
        *,
        first_seed: int,
        make_trial: MakeTrial,
        screening: Search,
        screened: Sequence[TrialState] | None = None,
    ) -> None:
        self._questions = questions
        self._design = design
        self._seeds = range(first_seed, first_seed + design.max_seeds + SPARE_SEEDS)
        self._make_trial = make_trial
        self._screening = screening
        self._screened = screened
        # What was found last, and of which outcomes: the same question is asked again and again.
        self._known: tuple[tuple, list[Progress]] | None = None

    def propose(self, history: Sequence[TrialState]) -> PlannedTrial | NoTrial:
        """The next screening trial, then the next answering trial."""
        screened = self._screening_of(history)
        if self._screened is None:
            proposal = self._screening.propose(screened)
            if isinstance(proposal, PlannedTrial):
                return replace(proposal, stage=Stage.SCREENING)
            if proposal is NoTrial.WAIT or not all(state.final for state in screened):
                return NoTrial.WAIT
        answered = _answered(history)
        waits = False
        for progress in self._progress(screened, answered):
            for cell, seed in progress.needed:
                if (cell, seed) not in answered:
                    return self._trial(screened, cell, seed)
                waits |= not answered[cell, seed].final
        return NoTrial.WAIT if waits else NoTrial.DONE

    def remaining(self, history: Sequence[TrialState]) -> int:
        """Trials until the next look; how many follow it, only the look can tell."""
        screened = self._screening_of(history)
        more = self._screening.remaining(screened) if self._screened is None else 0
        if more or not all(state.final for state in screened):
            tuned = any(state.trial.tuned for state in screened)
            references = self._design.reference_values if tuned else 1
            cells = references + self._design.raw_candidates + self._design.pretrained_candidates
            return more + len(self._questions) * cells * self._design.looks[0]
        answered = _answered(history)
        needed = {pair for progress in self._progress(screened, answered) for pair in progress.needed}
        return len(needed - set(answered))

    def progress(self, history: Sequence[TrialState]) -> dict[str, Progress]:
        """How far each question is, by its name; empty while screening runs."""
        screened = self._screening_of(history)
        # Between two screening seeds all trials are final although more will follow.
        more = self._screened is None and self._screening.remaining(screened)
        if more or not all(state.final for state in screened):
            return {}
        found = self._progress(screened, _answered(history))
        return dict(zip((question.name for question in self._questions), found, strict=True))

    def _screening_of(self, history: Sequence[TrialState]) -> list[TrialState]:
        if self._screened is not None:
            return list(self._screened)
        return [state for state in history if state.trial.stage is Stage.SCREENING]

    def _progress(self, screened: Sequence[TrialState], answered: Answered) -> list[Progress]:
        """How far each question is, once screening has ended."""
        ended = tuple((state.trial.trial_id, state.record.status) for state in screened if state.final)
        outcomes = (
            ended,
            tuple((pair, state.record.status) for pair, state in answered.items() if state.final),
        )
        if self._known is None or self._known[0] != outcomes:
            found = [self._question_progress(question, screened, answered) for question in self._questions]
            self._known = outcomes, found
        return self._known[1]

    def _question_progress(
        self, question: Question, screened: Sequence[TrialState], answered: Answered
    ) -> Progress:
        try:
            nomination = nominate(screening_frame(question, screened), question.reference, self._design)
        except UserError as error:
            return Progress(problem=str(error))
        roles = nomination.roles
        cells = (*roles.references, *roles.raw, *roles.pretrained)
        values = answering_frame(question.task, cells, self._seeds, answered)
        looks = replay(values, roles, self._design)
        if looks and looks[-1].label is not None:
            return Progress(roles, tuple(looks))
        active = (looks[-1].roles if looks else roles).active
        seeds = (looks[-1].next_seeds if looks else None) or self._design.looks[0]
        needed = self._needed(active, seeds, answered)
        if needed is None:
            problem = "trials failed on too many seeds; --resume runs them again"
            return Progress(roles, tuple(looks), problem=problem)
        if all(pair in answered and answered[pair].final for pair in needed):
            return Progress(roles, tuple(looks), problem=f"trials have no final {question.task} score")
        return Progress(roles, tuple(looks), needed)

    def _needed(self, active: Sequence[str], count: int, answered: Answered) -> tuple[Pair, ...] | None:
        """Cells and seeds of the next look; a seed on which a trial failed is replaced by a spare one.

        Returns:
            seed by seed; None if there are not enough seeds.
        """

        def failed(seed: int) -> bool:
            states = [answered[cell, seed] for cell in active if (cell, seed) in answered]
            return any(state.record.status is TrialStatus.FAILED for state in states)

        usable = [seed for seed in self._seeds if not failed(seed)][:count]
        if len(usable) < count:
            return None
        return tuple((cell, seed) for seed in usable for cell in active)

    def _trial(self, screened: Sequence[TrialState], cell: str, seed: int) -> PlannedTrial:
        cells = list(dict.fromkeys(state.trial.cell for state in screened))
        known = next(state.trial for state in screened if state.trial.cell == cell)
        # The position depends on cell and seed alone, and not on which question was quicker.
        first = 0 if self._screened is not None else max(state.trial.order for state in screened) + 1
        order = first + (seed - self._seeds[0]) * len(cells) + cells.index(cell)
        return replace(self._make_trial(known, seed), order=order, stage=Stage.ANSWERING)


def _answered(history: Sequence[TrialState]) -> dict[Pair, TrialState]:
    """The answering trials by cell and seed."""
    return {
        (state.trial.cell, state.trial.config.seed): state
        for state in history
        if state.trial.stage is Stage.ANSWERING
    }
