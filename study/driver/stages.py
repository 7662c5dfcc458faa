"""How a study is divided into stages, screening and then answering, and the log of its looks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.records import Stage
from study.analysis.answering.design import AnsweringDesign
from study.analysis.sections.labels_needed import differ_in_labels
from study.analysis.study import contexts
from study.cli import Flags, StudySettings
from study.planning.space import Space
from study.planning.trials import PlannedTrial, plan, planned_trial
from study.search.base import FixedPlan, History, NoTrial, Search, answerable_contexts
from study.search.two_stage import Progress, TwoStageSearch
from study.state.manifest import ManifestFile
from study.state.trial_states import TrialState, TrialStates


def stage_defaults(flags: Flags, space: Space) -> dict[str, Any]:
    """Seeds, scheduler and `max_seeds` of a new study where no flag says otherwise.

    A study has two stages unless early stopping is off, or its space has nothing to choose from: then it
    trains all cells to the end.

    Raises:
        UserError: for --max-seeds with a space whose contexts need no answering stage.
    """
    one_stage = {"seeds": space.seeds, "scheduler": "none", "max_seeds": 0}
    given = flags.settings
    if given.get("scheduler") == "none" and "max_seeds" not in given:
        return one_stage
    # Which cells there are does not depend on data, weights or seeds.
    trials = plan(space, given.get("data", StudySettings.data), weights="any")
    if not contexts_to_answer(History(None, study_facts(space)), trials):
        if "max_seeds" in given:
            raise UserError(
                f"--max-seeds: space {space.name} has no reference with other raw and pre-trained cells to "
                "choose from; give --seeds instead"
            )
        return one_stage
    design = AnsweringDesign()
    enough = space.search == "tpe" or len(space.seeds) >= design.screening_seeds
    seeds = space.seeds if enough else tuple(range(design.screening_seeds))
    return {"seeds": seeds, "scheduler": "asha", "max_seeds": design.max_seeds}


def answering_design(
    flags: Flags, settings: StudySettings, space: Space, recorded: Mapping[str, Any]
) -> AnsweringDesign | None:
    """The plan of the answering stage, None for a study of one stage.

    Comparisons of several pairs of starting points, or at several numbers of labelled images, share the error
    (Bonferroni): what the study says of all of them together holds with 95 %.

    A resumed study keeps its plan; a larger `--max-seeds` extends it.

    Raises:
        UserError: if a study cannot be extended so.
    """
    if not recorded:
        return _new_design(flags, settings, space) if settings.max_seeds else None
    design = recorded.get("design")
    most = flags.settings.get("max_seeds")
    if design is None:
        if most is not None:
            raise UserError(
                f"--max-seeds: {settings.name} has no answering stage; give it more seeds with --seeds, or "
                "confirm its best cells with --confirm"
            )
        return None
    begun = AnsweringDesign.from_dict(design)
    return begun if most in (None, begun.max_seeds) else begun.extended(most)


def _new_design(flags: Flags, settings: StudySettings, space: Space) -> AnsweringDesign:
    design = AnsweringDesign(max_seeds=settings.max_seeds)
    if settings.confirm and "seeds" in flags.settings:
        # Seeds that are given are trained without interim looks.
        design = AnsweringDesign.single_look(len(settings.seeds))
    if settings.top:
        design = replace(design, raw_candidates=settings.top, pretrained_candidates=settings.top)
    planned = [TrialState(trial=trial) for trial in plan(space, settings.data, weights="any")]
    study = History(None, study_facts(space)).study(planned)
    found = contexts(study, study.tasks[0])
    joint = found if differ_in_labels(found) else study.pairings
    return design.of_comparisons(len(joint))


def study_facts(
    space: Space, design: AnsweringDesign | None = None, manifest: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What decisions need of a study's manifest, which is not written yet where a study is only planned."""
    facts = {
        "study": space.name,
        "space": space.name,
        "roles": space.roles,
        "metric": space.metric.name,
        "design": design.to_dict() if design else None,
        "claims": space.claims,
    }
    return facts | {key: value for key, value in (manifest or {}).items() if key not in ("trials", *facts)}


def contexts_to_answer(history: History, trials: Sequence[PlannedTrial]) -> dict[str, str]:
    """Key and task of the contexts that planned trials can answer."""
    study = history.study([TrialState(trial=trial) for trial in trials])
    return {context.key: context.task for context in answerable_contexts(study)}


def two_stage_search(
    settings: StudySettings,
    space: Space,
    design: AnsweringDesign,
    trials: Sequence[PlannedTrial],
    *,
    history: History,
    weights: str | None,
    screening: Search | None = None,
    recorded: Mapping[str, Any] | None = None,
    screened: tuple[Sequence[TrialState], History] | None = None,
) -> TwoStageSearch:
    """The search of a study with an answering stage.

    Args:
        trials: the screening trials that are known.
        history: reads the study's trials.
        weights: source of the pre-trained arm's weights in planned configs.
        screening: where further screening trials come from; default: nowhere.
        recorded: the manifest's `answering`.
        screened: the screening trials of the study that is confirmed, and their history.
    """

    def make_trial(known: PlannedTrial, seed: int) -> PlannedTrial:
        axes = {name: value for name, value in known.axes.items() if name != "seed"}
        return planned_trial(space, settings.data, axes, seed=seed, budget=settings.budget, weights=weights)

    return TwoStageSearch(
        contexts_to_answer(screened[1] if screened else history, trials),
        design,
        history,
        first_seed=first_fresh_seed(settings),
        make_trial=make_trial,
        screening=screening or FixedPlan(),
        recorded=recorded,
        screened=screened,
    )


def first_fresh_seed(settings: StudySettings) -> int:
    """The first seed of the answering stage; a confirming study's own seeds are the fresh ones."""
    return settings.seeds[0] if settings.confirm else max(settings.seeds) + 1


def first_proposals(search: Search) -> list[PlannedTrial]:
    """What a search proposes before any of its trials has ended."""
    states: list[TrialState] = []
    while not isinstance(proposal := search.propose(states), NoTrial):
        states.append(TrialState(trial=proposal))
    return [state.trial for state in states]


def as_screening(trials: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """The trials as those of a screening stage."""
    return [replace(trial, stage=Stage.SCREENING) for trial in trials]


class AnsweringLog:
    """Records images, nominations and looks as they are decided; call `update` when a trial has ended."""

    def __init__(self, search: Search, states: TrialStates, manifest: ManifestFile, console: Console) -> None:
        self._search = search
        self._states = states
        self._manifest = manifest
        self._console = console
        self._printed: set[str] = set()

    def update(self) -> None:
        """Writes what is new."""
        if not isinstance(self._search, TwoStageSearch):
            self._fix_images()
            return
        progress = self._search.progress(self._states.in_order())
        content = {key: found.to_dict() for key, found in progress.items()}
        if content and content != self._manifest.content.get("answering"):
            self._manifest.update(answering=content)
        for key, found in progress.items():
            for line in lines(found):
                text = f"{key}: {line}"
                if text not in self._printed:
                    self._printed.add(text)
                    self._console.print(Text(text))

    def _fix_images(self) -> None:
        """Which images report a study of one stage, once all of its trials have ended."""
        states = self._states.in_order()
        done = all(state.final for state in states) and not self._search.remaining(states)
        if not done or self._manifest.content.get("answering"):
            return
        study = History(self._states.study, self._manifest.content).study(states)
        every = [context for task in study.tasks for context in contexts(study, task)]
        self._manifest.update(answering={context.key: {"images": context.images} for context in every})


def lines(progress: Progress) -> list[str]:
    """A context's nomination and looks in words."""
    found = []
    if progress.roles is not None:
        candidates = ", ".join([*progress.roles.raw, *progress.roles.pretrained])
        found.append(f"screening nominates {candidates}; reference: {', '.join(progress.roles.references)}")
    for look in progress.looks:
        found.append(f"look {look.number} of {look.looks}, {look.seeds} seeds: {look.reason}")
    if progress.problem:
        found.append(progress.problem)
    return found
