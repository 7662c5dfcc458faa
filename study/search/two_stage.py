"""Screening, then answering: every cell on few seeds, then the reference and the candidates on fresh ones.

Screening nominates candidates and may stop trials early. The answering stage trains the reference and the
candidates to the end, look by look, until each context is settled or the last look is reached; only its
trials enter the verdict. All decisions are those of the report on the same trials
(`study.analysis.answering.stages`), so a resumed study, and one that is extended by more seeds, repeats them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segstrat.errors import UserError
from segstrat.records import Stage, TrialStatus
from study.analysis.answering.decision import Look, Roles
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import better_half
from study.analysis.answering.stages import (
    AnsweringStage,
    answering_stage,
    candidates,
    recorded_candidates,
    reference_setting,
    screening_table,
)
from study.analysis.scores import reported_column
from study.analysis.study import Context
from study.planning.trials import PlannedTrial
from study.search.base import History, NoTrial, Search, answerable_contexts
from study.state.trial_states import TrialState

# Seeds beyond the planned ones, in place of those on which a trial failed or lost its score.
SPARE_SEEDS = 3

Pair = tuple[str, int]
MakeTrial = Callable[[PlannedTrial, int], PlannedTrial]
Answered = Mapping[Pair, TrialState]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a context is.

    Args:
        roles: reference and candidates; None if nothing was nominated.
        images: on which the context reports.
        looks: all looks so far.
        needed: cells and seeds of the next look; empty once the context is settled.
        problem: why nothing more can be answered, '' otherwise.
    """

    task: str
    roles: Roles | None = None
    images: str = ""
    looks: tuple[Look, ...] = ()
    needed: tuple[Pair, ...] = ()
    problem: str = ""

    @property
    def settled(self) -> bool:
        """Whether no more trials are needed."""
        return self.roles is not None and not self.needed

    def to_dict(self) -> dict[str, Any]:
        """What the manifest's `answering` says of the context: what is fixed, then a log of the looks."""
        roles = self.roles
        return {
            "images": self.images,
            "reference": roles.reference if roles else None,
            "other_references": list(roles.other_references) if roles else [],
            "raw": list(roles.raw) if roles else [],
            "pretrained": list(roles.pretrained) if roles else [],
            "looks": [
                {"number": look.number, "seeds": look.seeds, "label": look.label, "reason": look.reason}
                for look in self.looks
            ],
            "problem": self.problem,
        }


class TwoStageSearch:
    """Proposes the trials of the answering stage once screening has ended.

    Args:
        contexts: key -> task of those that are answered, see `study.analysis.study.Context`.
        design: looks, error rates and numbers of candidates.
        history: reads the study's trials.
        first_seed: the first of the fresh seeds.
        make_trial: `(a trial of the cell, seed) -> the cell's trial on that seed`.
        screening: where further screening trials come from.
        recorded: the manifest's `answering`; what it fixes stands.
        screened: the screening trials and their history, where they belong to another study (`--confirm`).
    """

    def __init__(
        self,
        contexts: Mapping[str, str],
        design: AnsweringDesign,
        history: History,
        *,
        first_seed: int,
        make_trial: MakeTrial,
        screening: Search,
        recorded: Mapping[str, Any] | None = None,
        screened: tuple[Sequence[TrialState], History] | None = None,
    ) -> None:
        self._contexts = contexts
        self._design = design
        self._history = history
        self._seeds = range(first_seed, first_seed + design.max_seeds + SPARE_SEEDS)
        self._make_trial = make_trial
        self._screening = screening
        self._screened = screened
        self._fixed: dict[str, Any] = dict(recorded or {})
        # What was found last, and from how many outcomes: the same thing is asked again and again.
        self._known: dict[str, Progress] = {}
        self._seen: set[str] = set()

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
        for progress in self._progress(history).values():
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
            # Of the pre-trained candidates, one alone at first.
            pretrained = 2 if self._history.judges_claims else 1
            cells = len(self._contexts) * (references + self._design.raw_candidates + pretrained)
            # Contexts of one task and three starting points share cells.
            cells = min(cells, len({state.trial.cell for state in screened}) or cells)
            return more + cells * self._design.looks[0]
        answered = _answered(history)
        needed = {pair for progress in self._progress(history).values() for pair in progress.needed}
        return len(needed - set(answered))

    def screening_left(self, history: Sequence[TrialState]) -> int:
        """How many more trials will be screened, at most; they are among those of `remaining`."""
        if self._screened is not None:
            return 0
        return self._screening.remaining(self._screening_of(history))

    def progress(self, history: Sequence[TrialState]) -> dict[str, Progress]:
        """How far each context is, by its key; empty while screening runs."""
        screened = self._screening_of(history)
        # Between two screening seeds all trials are final although more will follow.
        more = self._screened is None and self._screening.remaining(screened)
        if more or not all(state.final for state in screened):
            return {}
        return self._progress(history)

    def _screening_of(self, history: Sequence[TrialState]) -> list[TrialState]:
        if self._screened is not None:
            return list(self._screened[0])
        return [state for state in history if state.trial.stage is Stage.SCREENING]

    def _progress(self, history: Sequence[TrialState]) -> dict[str, Progress]:
        """How far each context is, once screening has ended."""
        ended = {state.trial.trial_id for state in history if state.final}
        if not self._known or not self._seen <= ended or self._anything_new(history):
            self._known = self._all_progress(history)
        self._seen = ended
        return self._known

    def _anything_new(self, history: Sequence[TrialState]) -> bool:
        """Whether a context has all trials of its next look, or one of them has lost its score.

        Looks depend on complete seeds only: no frame need be built for anything else.
        """
        ended = {pair: state for pair, state in _answered(history).items() if state.final}
        new = {pair: state for pair, state in ended.items() if state.trial.trial_id not in self._seen}
        for progress in self._known.values():
            if progress.needed and all(pair in ended for pair in progress.needed):
                return True
            if not all(self._is_scored(new[pair], progress) for pair in progress.needed if pair in new):
                return True
            if progress.looks and not progress.needed:
                # Only a trial that was trained again, because its files were lost, changes what is settled.
                look = progress.looks[-1]
                if any(cell in look.roles.active and seed <= max(look.used) for cell, seed in new):
                    return True
        return False

    def _is_scored(self, state: TrialState, progress: Progress) -> bool:
        """Whether a trial has a score on the images that report; a diverged one has the floor."""
        score = self._history.metric.of(progress.task).score
        value = self._history.row(state).get(reported_column(progress.task, progress.images, score))
        if state.record.status is not TrialStatus.COMPLETED:
            return state.record.status is TrialStatus.DIVERGED
        return value is not None and math.isfinite(value)

    def _all_progress(self, history: Sequence[TrialState]) -> dict[str, Progress]:
        problems = self._nominate(history)
        answered = _answered(history)
        self._history.forget(answered.values())
        study = self._history.study(history, self._fixed)
        stages, companions = {}, {}
        for context in answerable_contexts(study):
            if roles := recorded_candidates(study, context.key):
                stages[context.key] = answering_stage(study, context, self._design, roles)
                if self._history.judges_claims:
                    companions[context.key] = _pretrained_at_reference(context, roles)
        found = {}
        for key, task in self._contexts.items():
            roles = recorded_candidates(study, key)
            if key in problems or roles is None:
                found[key] = Progress(task=task, problem=problems[key])
            else:
                images = self._fixed[key]["images"]
                known = Progress(task=task, roles=roles, images=images)
                looked = self._with_looks(known, stages.get(key), roles, answered)
                found[key] = _accompanied(looked, companions.get(key))
        return found

    def _nominate(self, history: Sequence[TrialState]) -> dict[str, str]:
        """Fixes images and candidates of each context; returns why that fails, by key."""
        states, reader = self._screened or (history, self._history)
        cells = {state.trial.cell for state in states}
        recorded = {key: self._fixed.get(key, {}) for key in self._contexts}
        open_keys = [
            key
            for key, fixed in recorded.items()
            if fixed.get("reference") not in cells or not fixed.get("images")
        ]
        if not open_keys:
            return {}
        problems = {}
        study = reader.study(states, self._fixed)
        for context in answerable_contexts(study):
            if context.key in open_keys:
                try:
                    roles = candidates(study, context, self._design)
                except UserError as error:
                    problems[context.key] = str(error)
                else:
                    fixed = Progress(task=context.task, roles=roles, images=context.images)
                    self._fixed[context.key] = fixed.to_dict()
        return problems

    def _with_looks(
        self, known: Progress, stage: AnsweringStage | None, roles: Roles, answered: Answered
    ) -> Progress:
        looks = stage.looks if stage else ()
        found = replace(known, looks=looks)
        if looks and looks[-1].label is not None:
            return found
        active = (looks[-1].roles if looks else roles).active
        seeds = (looks[-1].next_seeds if looks else None) or self._design.looks[0]
        incomplete = {seed for seed in self._seeds if _is_incomplete(seed, active, stage, answered)}
        usable = [seed for seed in self._seeds if seed not in incomplete][:seeds]
        if len(usable) < seeds:
            problem = "trials failed on too many seeds, or lost their pixel counts; --resume runs them again"
            return replace(found, problem=problem)
        return replace(found, needed=tuple((cell, seed) for seed in usable for cell in active))

    def _trial(self, screened: Sequence[TrialState], cell: str, seed: int) -> PlannedTrial:
        cells = list(dict.fromkeys(state.trial.cell for state in screened))
        known = next(state.trial for state in screened if state.trial.cell == cell)
        # The position depends on cell and seed alone, and not on which context was quicker.
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


def _pretrained_at_reference(context: Context, roles: Roles) -> str | None:
    """The pre-trained cell without regularization, at the tuned values that are best in screening.

    H2 and the first two claims of the thesis compare it with the reference, also where no look asks for it.
    """
    cells = set(context.trials.loc[context.pretrained & context.at_reference(), "cell"])
    return next((cell for cell in roles.pretrained if cell in cells), None)


def _accompanied(progress: Progress, companion: str | None) -> Progress:
    """The progress with a cell that is trained on every seed and has no say in the looks."""
    pairs = dict.fromkeys(progress.needed)
    if companion is not None:
        pairs |= dict.fromkeys((companion, seed) for _, seed in progress.needed)
    return replace(progress, needed=tuple(pairs))


def _is_incomplete(
    seed: int, active: Sequence[str], stage: AnsweringStage | None, answered: Answered
) -> bool:
    """Whether a trial of the seed has ended without a score: another seed takes its place."""
    ended = [cell for cell in active if (cell, seed) in answered and answered[cell, seed].final]
    return bool(stage is not None and ended and stage.values.loc[seed, ended].isna().any())


class BetterHalf:
    """Proposes the trials of further screening seeds once those of the seeds before have ended.

    All cells are screened on the first seed, the better half of each arm on each further one. A cell that is
    slow to start is judged by where it ends, which ranks within a training cannot do, and a study of two
    seeds costs three quarters of the whole grid. Only a cell that trails by far is stopped on its way. With a
    tuned axis these are the better half of an arm's settings, and the better half of the values that each of
    them has tried.

    Args:
        contexts: key -> task of those that are answered; a cell is trained if it is in the better half of
            any.
        history: reads the study's trials.
        later: all cells on the further seeds.
    """

    def __init__(self, contexts: Mapping[str, str], history: History, later: Sequence[PlannedTrial]) -> None:
        self._contexts = contexts
        self._history = history
        self._later = later
        # The cells of a seed, and the trials that chose them.
        self._known: dict[int, tuple[list[str], set[str]]] = {}

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
        return (math.ceil(len(settings) / 2) + len(self._contexts)) * values

    def _seeds(self) -> list[int]:
        return list(dict.fromkeys(sorted(trial.config.seed for trial in self._later)))

    def _wanted(self, history: Sequence[TrialState], seed: int) -> list[PlannedTrial] | None:
        """The trials of a seed; None while those of the seeds before are not known to be complete."""
        own = {trial.trial_id for trial in self._later if trial.config.seed >= seed}
        before = [state for state in history if state.trial.trial_id not in own]
        if not before or not all(state.final for state in before):
            return None
        now = [state.trial.trial_id for state in before]
        if seed not in self._known or self._known[seed][0] != now:
            self._known[seed] = now, self._better_cells(before)
        cells = self._known[seed][1]
        return [trial for trial in self._later if trial.config.seed == seed and trial.cell in cells]

    def _better_cells(self, before: Sequence[TrialState]) -> set[str]:
        study = self._history.study(before)
        cells: set[str] = set()
        for context in answerable_contexts(study):
            if context.key in self._contexts:
                cells.update(better_half(screening_table(study, context), reference_setting(context)))
        return cells


def split_by_seed(trials: Sequence[PlannedTrial]) -> tuple[list[PlannedTrial], list[PlannedTrial]]:
    """The trials of the first seed and the later ones; no rank stops any of them."""
    first = min(trial.config.seed for trial in trials)
    exempt = [replace(trial, exempt=True) for trial in trials]
    return (
        [trial for trial in exempt if trial.config.seed == first],
        [trial for trial in exempt if trial.config.seed != first],
    )
