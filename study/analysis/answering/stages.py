"""The two stages of a study: screening nominates candidates, and only the answering stage is judged.

The driver and the report call the same functions on the same frames, so both make the same decisions.
`manifest["design"]` holds the `AnsweringDesign` and marks a study of two stages; `manifest["answering"]`
holds what is fixed before the first look of each context: the images that report, and the candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from segstrat.errors import UserError
from study.analysis.answering.decision import Look, Roles, asked_for, look_intervals, replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import nominate
from study.analysis.contrasts import Arm, Chosen, Contrasts
from study.analysis.intervals import MIN_SEEDS, Interval
from study.analysis.scores import seeds_by_cells, trial_scores
from study.analysis.study import ANSWERING, SCREENING, Context, Study
from study.frame.build import HALVED

ARMS = {False: "raw", True: "pre-trained"}


@dataclass(frozen=True)
class AnsweringStage:
    """The answering stage of one context so far.

    Args:
        context: with the answering trials only.
        roles: reference and candidates as nominated.
        values: seeds × cells, the scores that are reported.
        looks: all looks that the complete seeds allow.
    """

    context: Context
    design: AnsweringDesign
    roles: Roles
    values: pd.DataFrame
    looks: tuple[Look, ...]

    @property
    def last_look(self) -> Look | None:
        """The newest look; None before the first one."""
        return self.looks[-1] if self.looks else None


def design_of(study: Study) -> AnsweringDesign | None:
    """How the answering stage was planned; None for a study of one stage."""
    design: Mapping[str, Any] | None = study.manifest.get("design")
    return AnsweringDesign.from_dict(design) if design else None


def planned_looks(study: Study) -> int:
    """How often the plan of a study looks at its seeds."""
    design = design_of(study)
    return len(design.looks) if design else 1


def screening_table(study: Study, context: Context) -> pd.DataFrame:
    """The trials of a context as `nominate` ranks them, in the study's order.

    With scores on two halves of the validation images, the first half nominates; the second one is left to
    be reported.
    """
    trials = context.trials
    shown = trials[study.column(context.task, "val", "miou")].astype(float)
    if context.images == HALVED:
        first_half = trial_scores(study, context)[0].choosing
        shown = first_half.where(context.completed, shown)
    table = pd.DataFrame(
        {
            "cell": trials["cell"],
            "setting": trials["setting"],
            "pretrained": context.pretrained,
            "seed": trials["seed"].astype(int),
            "status": trials["status"].astype(str),
            "value": shown,
            "reached": trials["epochs_run"] / trials["epochs_budget"],
        }
    )
    return table.loc[trials.sort_values("order", kind="stable").index]


def candidates(study: Study, context: Context, design: AnsweringDesign) -> Roles:
    """Reference and candidates of a context: those on record, else those that its screening nominates.

    Args:
        context: with the trials of both stages.

    Raises:
        UserError: if screening allows no candidates.
    """
    roles = recorded_candidates(study, context.key)
    if roles is not None and roles.reference in set(context.trials["cell"]):
        return roles
    screening = context.in_stage(SCREENING)
    if screening.trials.empty:
        return _trained_roles(context.in_stage(ANSWERING))
    return nominate(screening_table(study, screening), reference_setting(context), design).roles


def reference_setting(context: Context) -> str:
    """The reference's `setting` in the frame of an answerable context."""
    return str(context.trials.loc[context.trials["reference"].astype(bool), "setting"].iloc[0])


def recorded_candidates(study: Study, key: str) -> Roles | None:
    """The reference and candidates that the manifest has of a context, by its key; None if it has none."""
    recorded: Mapping[str, Any] = (study.manifest.get("answering") or {}).get(key) or {}
    if not recorded.get("reference"):
        return None
    return Roles(
        reference=recorded["reference"],
        other_references=tuple(recorded.get("other_references", ())),
        raw=tuple(recorded["raw"]),
        pretrained=tuple(recorded["pretrained"]),
    )


def _trained_roles(context: Context) -> Roles:
    """The cells that a study without screening trains, which confirms another one."""
    trials = context.trials.drop_duplicates("cell")
    reference, pretrained = trials["reference"].astype(bool), trials["pretrained"].astype(bool)
    references, raw, pre = (
        tuple(trials.loc[rows, "cell"]) for rows in (reference, ~reference & ~pretrained, pretrained)
    )
    if not (references and raw and pre):
        raise UserError("the answering stage trains no reference, no other raw cell or no pre-trained one")
    return Roles(reference=references[0], other_references=references[1:], raw=raw, pretrained=pre)


def answering_stage(study: Study, context: Context, design: AnsweringDesign, roles: Roles) -> AnsweringStage:
    """The answering stage of a context so far.

    Args:
        context: with the trials of both stages.
        roles: as from `candidates`.
    """
    answering = context.in_stage(ANSWERING)
    # Nominated on the first half of the images: the second half is reported.
    values = seeds_by_cells(answering, trial_scores(study, answering)[0].reported)
    values = values.reindex(columns=[*roles.references, *roles.raw, *roles.pretrained])
    ended = seeds_by_cells(answering, (answering.trials["status"] != "unfinished").astype(float))
    ended = ended.reindex(columns=values.columns)
    looks = tuple(replay(values, roles, design, context.floor, ended))
    return AnsweringStage(answering, design, roles, asked_for(values, looks), looks)


def intervals_with_images(stage: AnsweringStage, look: Look, split: str) -> dict[str, Interval]:
    """A look's intervals of gap, improvement and remaining over seeds and images.

    The variance of each difference over images, by the grouped jackknife (see `study.analysis.contrasts`), is
    added to its variance over seeds; critical values and shares of the error are those of the look.

    Args:
        split: `val` or `test`, whichever is reported.

    Returns:
        empty without the scores that it needs.
    """
    column = f"last_{stage.context.task}_{split}_miou_jackknife"
    trials = stage.context.trials
    if column not in trials:
        return {}
    roles = look.roles_before
    cells = list(roles.active)
    rows = trials["cell"].isin(cells) & trials["seed"].isin(look.used)
    without: dict[str, list[np.ndarray]] = {cell: [] for cell in cells}
    for cell, scores in zip(trials.loc[rows, "cell"], trials.loc[rows, column], strict=True):
        if isinstance(scores, np.ndarray):
            without[cell].append(scores)
    lengths = {len(scores) for cell in cells for scores in without[cell]}
    if len(lengths) != 1 or min(lengths) < MIN_SEEDS or not all(without.values()):
        return {}
    means = np.array([np.mean(without[cell], axis=0) for cell in cells])
    groups = means.shape[1]
    differences = means[:, None, :] - means[None, :, :]
    variance = (groups - 1) * differences.var(axis=2)
    method = f"{{}}, and over {groups} groups of images"
    found = look_intervals(stage.values.loc[list(look.used)], roles, stage.design, look.number, variance)
    return {
        name: replace(each, method=method.format(each.method))
        for name, each in found.items()
        if name != "closure"
    }


def stage_contrasts(stage: AnsweringStage, look: Look) -> Contrasts:
    """The contrasts of a look, with its repeated confidence intervals, between the leading candidates."""
    values, roles = stage.values.loc[list(look.used)], stage.roles
    labels = stage.context.cell_labels
    # Pre-trained candidates that nobody has asked for yet have no scores.
    pretrained_cells = tuple(cell for cell, arm in look.roles_before.arms.items() if arm == "pretrained")
    best_raw = _leader(values, look.leaders["raw"], labels, len(roles.raw))
    best_pretrained = _leader(values, look.leaders["pretrained"], labels, len(roles.pretrained))
    best_reference = _leader(values, look.leaders["reference"], labels, len(roles.references))
    reference, raw, pretrained = best_reference.value, best_raw.value, best_pretrained.value
    return Contrasts(
        raw=_arm(values, roles.references, roles.raw, labels),
        pretrained=_arm(values, (), pretrained_cells, labels),
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


def _arm(
    values: pd.DataFrame,
    references: tuple[str, ...],
    candidates: tuple[str, ...],
    labels: Mapping[str, str],
) -> Arm:
    cells = [*references, *candidates]
    table = values[cells].set_axis([labels[cell] for cell in cells], axis=1)
    names = [labels[cell] for cell in references]
    reference = names[0] if names else None
    return Arm(table, table, reference, {name: str(reference) for name in names})


def _leader(values: pd.DataFrame, cell: str, labels: Mapping[str, str], candidates: int) -> Chosen:
    """The leading candidate of an arm, the same for every seed."""
    settings = {int(seed): (labels[cell],) for seed in values.index}
    return Chosen(settings, values[cell], same_seed=False, candidates=candidates)
