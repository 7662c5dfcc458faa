"""Screen, then confirm: which cells of a study deserve full runs with more seeds.

A screening study stops weak trials early and may have one seed; its best cells are optimistic because they
were picked. `confirm_cells` names the best K of each arm and the raw reference cell from which gap closure
is measured; a second study trains these to the end, on other seeds, and is judged alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from segstrat.errors import UserError
from segstrat.formatting import format_value
from study.analysis.cells import final_bounds
from study.analysis.scores import floor_or_zero
from study.analysis.study import Context, Study


@dataclass(frozen=True)
class Cell:
    """A cell to train again.

    Args:
        axes: the space's axes as the manifest holds them, without the seed.
        score: mean over seeds by which it was chosen, relative to its arm's median; None for the reference
            cell of an arm that did not rank it.
        rank: place in its arm, from 1; None for a reference that is not among the best.
        reference: whether it is the raw reference, see `Study.reference_levels`.
    """

    arm: str
    axes: dict[str, Any]
    score: float | None
    rank: int | None
    reference: bool


def confirm_cells(study: Study, top_k: int) -> dict[str, list[Cell]]:
    """The best cells of each arm (and of each value of the nuisance axes), best first.

    A cell's score is the mean over its seeds of the final validation mIoU, each taken relative to its
    arm's median on that seed, so that a missing seed neither helps nor harms. A stopped trial counts with the
    best value it showed, a diverged one with the score of a constant prediction, a failed or unfinished one
    not at all; a cell that completed nothing comes after every cell that did. Ties go to the weaker
    treatment. The raw reference cell is added where it is not among the best, because gap closure is
    measured from it; a study need not have one.

    Raises:
        UserError: if `top_k` is below 1, or if no trial was completed.
    """
    if top_k < 1:
        raise UserError(f"--top {top_k}: expected at least one cell for each arm")
    if not (study.trials["status"] == "completed").any():
        raise UserError(
            f"{study.name} has no completed trial and hence no best cells; finish it, or confirm another one"
        )
    axes_of = {trial["trial_id"]: trial["axes"] for trial in study.manifest.get("trials", [])}
    found: dict[str, list[Cell]] = {}
    nuisance = study.axes("nuisance")
    for values, trials in study.trials.groupby(["arm", *nuisance], sort=True):
        arm, *levels = values
        words = [f"{axis} {format_value(value)}" for axis, value in zip(nuisance, levels, strict=True)]
        found[", ".join([str(arm), *words])] = _best_of_arm(study, str(arm), trials, axes_of, top_k)
    return found


def _best_of_arm(
    study: Study, arm: str, trials: pd.DataFrame, axes_of: dict[str, dict[str, Any]], top_k: int
) -> list[Cell]:
    treatments = study.axes("treatment")
    task = next(task for task in study.tasks if task in str(trials["tasks"].iloc[0]).split("+"))
    context = Context(task, {}, study.reference_levels(task), trials)
    shown = final_bounds(study, context)["low"].astype(float)
    scores = shown.where(trials["status"] != "diverged", floor_or_zero(study, context))
    relative = scores - scores.groupby(trials["seed"]).transform("median")
    is_reference = context.at_reference() & ~context.pretrained
    keys = [trials[axis] for axis in treatments] or [pd.Series(0, index=trials.index)]
    ranked = []
    for _, cell in trials.groupby(keys, sort=True):
        score = relative.loc[cell.index].mean()
        completed = (cell["status"] == "completed").any()
        axes = {key: value for key, value in axes_of[cell["trial_id"].iloc[0]].items() if key != "seed"}
        ranked.append((completed, score, axes, bool(is_reference.loc[cell.index].all())))
    # A stable sort leaves ties in the order of the treatments, the weaker first.
    ranked.sort(key=lambda row: (not row[0], -row[1] if np.isfinite(row[1]) else np.inf))
    cells = []
    for rank, (_, score, axes, reference) in enumerate(ranked, start=1):
        best = rank <= top_k and np.isfinite(score)
        if best or reference:
            known = float(score) if np.isfinite(score) else None
            cells.append(Cell(arm, axes, known, rank if best else None, reference=reference))
    return cells
