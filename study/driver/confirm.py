"""`--confirm DIR`: a study that trains the best cells of another one again, to the end, on other seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segstrat.errors import UserError
from segstrat.store import Store
from study.cli import Flags
from study.planning.settings import CONFIRM_TOP, StudySettings
from study.planning.trials import PlannedTrial
from study.state.manifest import read_study_manifest

# What a confirming study takes from the study that it confirms.
INHERITED = ("space", "data", "data_root", "weights", "budget", "numerics")
CONFIRM_SEEDS = 3


def defaults_from_parent(flags: Flags) -> dict[str, Any]:
    """What a confirming study uses where no flag says otherwise.

    Raises:
        UserError: if there is no such study, or for seeds on which its cells were chosen.
    """
    parent = read_study_manifest(Store(flags.confirm or ""))
    used = parent["seeds"]
    if not flags.resume and (again := sorted(set(used).intersection(flags.seeds or ()))):
        raise UserError(
            f"--seeds {again[0]}: the cells of {parent['study']} were chosen on seeds {used}; confirm them "
            "on others"
        )
    inherited = {key: parent["options"][key] for key in INHERITED if key in parent["options"]}
    return inherited | {
        "name": f"{parent['study']}-confirm",
        "seeds": [max(used) + 1 + offset for offset in range(CONFIRM_SEEDS)],
        "scheduler": "none",
        "top": CONFIRM_TOP,
    }


def cells_to_confirm(
    settings: StudySettings, plan_cells: Callable[..., list[PlannedTrial]]
) -> list[dict[str, Any]]:
    """The points of the space that `--confirm` trains again, see `study.analysis.confirm`.

    Args:
        plan_cells: plans the trials of given `seeds` and `cells`.

    Raises:
        UserError: if the confirmed study has no best cells, or was run with another recipe.
    """
    from study.analysis.confirm import confirm_cells
    from study.analysis.study import Study

    parent = Study.open(settings.confirm)
    cells = [cell.axes for arm in confirm_cells(parent, settings.top).values() for cell in arm]
    then = {trial["trial_id"] for trial in parent.manifest["trials"]}
    same_budget = parent.manifest["options"]["budget"] == settings.budget
    for axes in cells if same_budget else ():
        seed = parent.manifest["seeds"][0]
        now = plan_cells(seeds=[seed], cells=[axes])[0]
        if now.trial_id not in then:
            commit = (parent.manifest.get("commit") or "unknown")[:10]
            raise UserError(
                f"{settings.confirm}: the recipe of space {settings.space} has changed since ({now.label} is "
                f"another training run now); go back to commit {commit}, or run the space again"
            )
    return sorted(cells, key=_sort_key)


def parent_of(settings: StudySettings, trials: Sequence[PlannedTrial]) -> dict[str, Any] | None:
    """What the manifest says of the study that this one confirms; None for any other."""
    if not settings.confirm:
        return None
    parent = read_study_manifest(Store(settings.confirm))
    cells = [{name: value for name, value in trial.axes.items() if name != "seed"} for trial in trials]
    return {
        "study": parent["study"],
        "folder": settings.confirm,
        "commit": parent.get("commit"),
        "top": settings.top,
        # In the order of `cells_to_confirm`, so that a resumed study plans its trials in the same one.
        "cells": sorted((cell for i, cell in enumerate(cells) if cell not in cells[:i]), key=_sort_key),
    }


def _sort_key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)
