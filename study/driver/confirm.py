"""`--confirm DIR`: the answering stage alone, with another study instead of screening."""

from collections.abc import Sequence
from typing import Any

from segstrat.errors import UserError
from segstrat.records import Stage
from segstrat.store import Store
from study.analysis.answering.design import AnsweringDesign
from study.cli import Flags, StudySettings
from study.planning.space import Space
from study.planning.trials import planned_trial
from study.state.manifest import read_study_manifest
from study.state.trial_states import TrialState, TrialStates

# What a confirming study takes from the study that it confirms.
INHERITED = (
    *("space", "data", "data_root", "weights", "pretrain_on", "pretrain_self"),
    "pretrain_epochs",
    *("budget", "numerics", "overrides"),
)


def defaults_from_parent(flags: Flags) -> dict[str, Any]:
    """What a confirming study uses where no flag says otherwise.

    Raises:
        UserError: if there is no such study, or for seeds on which its cells were chosen.
    """
    parent = read_study_manifest(Store(flags.settings["confirm"]))
    seeds = flags.settings.get("seeds")
    used = sorted({trial["config"]["seed"] for trial in parent["trials"]})
    if not flags.resume and (again := sorted(set(used).intersection(seeds or ()))):
        raise UserError(
            f"--seeds {again[0]}: the cells of {parent['study']} were chosen on seeds {used}; confirm them "
            "on others"
        )
    if seeds is not None and list(seeds) != list(range(seeds[0], seeds[-1] + 1)):
        raise UserError(f"--seeds {list(seeds)}: --confirm needs consecutive seeds, such as 5,6,7")
    inherited = {key: parent["options"][key] for key in INHERITED if key in parent["options"]}
    return inherited | {
        "name": f"{parent['study']}-confirm",
        "seeds": [max(used) + 1],
        "scheduler": "none",
        "max_seeds": len(seeds) if seeds is not None else AnsweringDesign().max_seeds,
    }


def screened_states(settings: StudySettings) -> list[TrialState]:
    """The trials of the study that is confirmed.

    Raises:
        UserError: if none of them was completed.
    """
    folder = Store(settings.confirm)
    parent = read_study_manifest(folder)
    states = TrialStates.recorded(folder, parent)
    if not any(state.final for state in states.in_order()):
        raise UserError(f"{settings.confirm}: no trial has ended; finish this study, or confirm another one")
    # All of them are screening here, also those of a study that had one stage.
    return [state.as_stage(Stage.SCREENING) for state in states.in_order()]


def refuse_another_recipe(settings: StudySettings, space: Space, screened: Sequence[TrialState]) -> None:
    """Raises a UserError if the confirmed study was run with another recipe of the same space."""
    parent = read_study_manifest(Store(settings.confirm))
    if parent["options"]["budget"] != settings.budget or parent["data"]["name"] != settings.data:
        return
    for state in screened:
        known = state.trial
        axes = {name: value for name, value in known.axes.items() if name != "seed"}
        now = planned_trial(
            space,
            settings.data,
            axes,
            seed=known.config.seed,
            budget=settings.budget,
            weights=known.config.weights,
        )
        if now.trial_id != known.trial_id:
            commit = (parent.get("commit") or "unknown")[:10]
            raise UserError(
                f"{settings.confirm}: the recipe of space {settings.space} has changed since ({now.label} is "
                f"another training run now); go back to commit {commit}, or run the space again"
            )


def parent_of(settings: StudySettings) -> dict[str, Any] | None:
    """What the manifest says of the study that this one confirms; None for any other."""
    if not settings.confirm:
        return None
    parent = read_study_manifest(Store(settings.confirm))
    return {
        "study": parent["study"],
        "folder": settings.confirm,
        "commit": parent.get("commit"),
        "top": settings.top,
    }
