"""The two stages of a study: screening nominates candidates, and only the answering stage is judged.

The driver and the report call the same functions on the same scores, so both make the same decisions.
`manifest["design"]` holds the `AnsweringDesign` and marks a study of two stages; `manifest["answering"]`
holds the candidates of each context.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from study.analysis.answering.decision import replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.looks import Look, Roles
from study.analysis.answering.nominate import Nomination, nominate
from study.analysis.choice import Arm, Chosen
from study.analysis.contrasts import Contrasts
from study.analysis.scores import Images, trial_scores
from study.analysis.study import Context, Study

SCREENING, ANSWERING = "screening", "answering"
ARMS = {False: "raw", True: "pre-trained"}


@dataclass(frozen=True)
class Stage:
    """The answering stage of one context so far.

    Args:
        context: with the answering trials only.
        roles: reference and candidates as nominated.
        values: seeds × cells, the scores that are reported.
        images: on which images they are computed.
        looks: all looks that the complete seeds allow.
    """

    context: Context
    design: AnsweringDesign
    roles: Roles
    values: pd.DataFrame
    images: Images
    looks: tuple[Look, ...]

    @property
    def last_look(self) -> Look | None:
        """The newest look; None before the first one."""
        return self.looks[-1] if self.looks else None


def answering_design(study: Study) -> AnsweringDesign | None:
    """How the answering stage was planned; None for a study of one stage."""
    design: Mapping[str, Any] | None = study.manifest.get("design")
    return AnsweringDesign.from_dict(design) if design else None


def planned_looks(study: Study) -> int:
    """How often the plan of a study looks at its seeds."""
    design = answering_design(study)
    return len(design.looks) if design else 1


def in_stage(context: Context, stage: str) -> Context:
    """The context without the trials of other stages; trials of a frame without stages are answering ones."""
    stages = context.trials.get("stage", pd.Series(ANSWERING, index=context.trials.index))
    return replace(context, trials=context.trials[stages == stage])


def comparable(context: Context) -> bool:
    """Whether arms can be compared: a task of multi-task arms alone has no raw cell but its reference."""
    raw = context.untuned_settings[~context.pretrained]
    return bool(context.pretrained.any() and (raw != context.reference_setting).any())


def cell_label(pretrained: bool, setting: str) -> str:
    """A cell of a context in words: `raw: weight decay 0`."""
    return f"{ARMS[pretrained]}: {setting}"


def cells_of(context: Context) -> pd.Series:
    """The cell of each trial, indexed like the context's trials."""
    pairs = zip(context.pretrained, context.settings, strict=True)
    return pd.Series([cell_label(bool(pre), setting) for pre, setting in pairs], index=context.trials.index)


def nominate_candidates(study: Study, context: Context, design: AnsweringDesign) -> Nomination:
    """The candidates of a context.

    Args:
        context: with the screening trials only.

    Raises:
        UserError: if the context has no reference, or an arm has no cell with a score.
    """
    return nominate(screening_table(study, context), cell_label(False, context.reference_setting), design)


def screening_table(study: Study, context: Context) -> pd.DataFrame:
    """The trials of a context as `nominate` ranks them.

    With scores on two halves of the validation images, the first half nominates; the second one is left to
    be reported.
    """
    task = context.task
    pairs = trial_scores(study, context)
    shown = context.trials[study.column(task, "val", "miou")].astype(float)
    if pairs.images == "halves of the validation images":
        shown = pairs.pairs[0].choosing.where(context.completed, shown)
    untuned = zip(context.pretrained, context.untuned_settings, strict=True)
    table = pd.DataFrame(
        {
            "cell": cells_of(context),
            "setting": [cell_label(bool(pre), setting) for pre, setting in untuned],
            "pretrained": context.pretrained,
            "seed": context.trials["seed"].astype(int),
            "status": context.trials["status"].astype(str),
            "value": shown,
            "reached": context.trials["epochs_run"] / context.trials["epochs_budget"],
        }
    )
    order = context.trials.sort_values(["pretrained", *context.strategies, *context.tuned, "seed"]).index
    return table.loc[order]


def answering_stage(study: Study, context: Context, design: AnsweringDesign) -> Stage | None:
    """The answering stage of a context; None before it has a trial, and where nothing can be compared.

    Args:
        context: with the trials of both stages; the cells of the answering stage are the candidates.
    """
    roles = _roles(study, context, design) if comparable(context) else None
    if roles is None:
        return None
    context = in_stage(context, ANSWERING)
    scores = trial_scores(study, context)
    # Nominated on the first half of the images: the second half is reported.
    reported = scores.pairs[0].reported
    values = pd.DataFrame(
        {"seed": context.trials["seed"].astype(int), "cell": cells_of(context), "value": reported}
    ).pivot(index="seed", columns="cell", values="value")
    values = values.reindex(columns=[*roles.references, *roles.raw, *roles.pretrained])
    return Stage(context, design, roles, values, scores.images, tuple(replay(values, roles, design)))


def stage_contrasts(stage: Stage, look: Look) -> Contrasts:
    """The contrasts of a look, with its repeated confidence intervals, between the leading candidates."""
    seeds = stage.values.dropna(subset=list(look.leaders.values())).index[: look.seeds]
    values = stage.values.loc[seeds]
    roles = stage.roles
    best_raw = _leader(values, look.leaders["raw"], len(roles.raw))
    best_pretrained = _leader(values, look.leaders["pretrained"], len(roles.pretrained))
    best_reference = _leader(values, look.leaders["reference"], len(roles.references))
    reference, raw, pretrained = best_reference.value, best_raw.value, best_pretrained.value
    return Contrasts(
        raw=_arm(values, roles.references, roles.raw),
        pretrained=_arm(values, (), roles.pretrained),
        chosen_reference=best_reference,
        best_raw=best_raw,
        best_pretrained=best_pretrained,
        gap=look.gap,
        improvement=look.improvement,
        remaining=look.remaining,
        closure=look.closure,
        differences={
            "gap": pretrained - reference,
            "improvement": raw - reference,
            "remaining": pretrained - raw,
        },
        variance_factors=dict.fromkeys(("gap", "improvement", "remaining"), 1.0),
    )


def _setting(cell: str) -> str:
    """The setting of a cell's label."""
    return cell.partition(": ")[2]


def _arm(values: pd.DataFrame, references: tuple[str, ...], candidates: tuple[str, ...]) -> Arm:
    cells = [*references, *candidates]
    table = values[cells].set_axis([_setting(cell) for cell in cells], axis=1)
    labels = [_setting(cell) for cell in references]
    reference = labels[0] if labels else None
    return Arm(table, table, reference, {label: str(reference) for label in labels})


def _leader(values: pd.DataFrame, cell: str, candidates: int) -> Chosen:
    """The leading candidate of an arm, the same for every seed."""
    settings = {int(seed): (_setting(cell),) for seed in values.index}
    return Chosen(settings, values[cell], same_seed=False, candidates=candidates)


def _roles(study: Study, context: Context, design: AnsweringDesign) -> Roles | None:
    """Reference and candidates: as the driver recorded them, else the cells that the stage has trained."""
    return _recorded_roles(study, context) or _trained_roles(study, context, design)


def _recorded_roles(study: Study, context: Context) -> Roles | None:
    """The roles in `manifest["answering"]`: by question, whose cells are named by arm and axes."""
    recorded: Mapping[str, Any] = study.manifest.get("answering") or {}
    cells = dict(zip(context.trials["trial_id"], cells_of(context), strict=True))
    names = {
        _recorded_cell(trial): cells[trial["trial_id"]]
        for trial in study.manifest.get("trials", [])
        if trial["trial_id"] in cells
    }
    for question, found in recorded.items():
        if question.split(", ")[0] == context.task and found.get("reference") in names:
            return Roles(
                reference=names[found["reference"]],
                other_references=tuple(names[cell] for cell in found.get("other_references", ())),
                raw=tuple(names[cell] for cell in found["raw"]),
                pretrained=tuple(names[cell] for cell in found["pretrained"]),
            )
    return None


def _recorded_cell(trial: Mapping[str, Any]) -> str:
    """A planned trial's cell as `study.planning.trials.PlannedTrial.cell` names it."""
    hidden = ("pretrained", "tasks", "backbone", "model", "seed")
    exact = {
        name: f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial["axes"].items()
        if name not in hidden
    }
    tuned = [exact.pop(name) for name in trial.get("tuned", ())]
    return " ".join([trial["arm"], *exact.values()]) + (f" ({' '.join(tuned)})" if tuned else "")


def _trained_roles(study: Study, context: Context, design: AnsweringDesign) -> Roles | None:
    """The cells that the answering stage trains, in the order of their nomination."""
    answering = in_stage(context, ANSWERING)
    labels = cells_of(answering)
    cells = list(dict.fromkeys(labels))
    references = labels[~answering.pretrained & (answering.untuned_settings == context.reference_setting)]
    if references.empty:
        return None
    order = cells
    screening = in_stage(context, SCREENING)
    if len(screening.trials):
        nominated = nominate_candidates(study, screening, design).roles
        order = [*nominated.references, *nominated.raw, *nominated.pretrained, *cells]
    trained = [cell for cell in dict.fromkeys(order) if cell in cells]
    first, *others = [cell for cell in trained if cell in set(references)]
    ranked = [cell for cell in trained if cell not in set(references)]
    return Roles(
        reference=first,
        other_references=tuple(others),
        raw=tuple(cell for cell in ranked if cell.startswith("raw: ")),
        pretrained=tuple(cell for cell in ranked if cell.startswith("pre-trained: ")),
    )
