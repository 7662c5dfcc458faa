"""The questions of a study's answering stage: which cells may be candidates, and what the trials say.

A question is one context: a task, a value of each nuisance axis and of each arm axis that is not compared
(such as the backbone). It needs a reference, another raw cell and a pre-trained cell. Every question is
answered for itself; two questions may share trials, as two tasks share the multi-task ones.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from segstrat.records import TrialStatus
from study.planning.space import Space
from study.planning.trials import PlannedTrial
from study.state.trial_states import TrialState

# Arm axes whose values are compared with each other; another value of any other arm axis is another question.
COMPARED = ("pretrained", "tasks")


@dataclass(frozen=True)
class Question:
    """One context of a study.

    Args:
        fixed: values of the axes that distinguish it from the other questions.
        reference: the setting from which gains and gaps are measured, see `PlannedTrial.setting`.
        cells: all its cells, in the order of the space.
    """

    task: str
    fixed: tuple[tuple[str, Any], ...]
    reference: str
    cells: tuple[str, ...]

    @property
    def name(self) -> str:
        """The question in words."""
        return ", ".join([self.task, *(f"{axis} {value}" for axis, value in self.fixed)])


def questions(space: Space, trials: Iterable[PlannedTrial]) -> list[Question]:
    """The questions that the planned trials of a space can answer, in the order of the trials."""
    splitting = [
        axis
        for axis, role in space.roles.items()
        if role == "nuisance" or (role == "arm" and axis not in COMPARED)
    ]
    members: dict[tuple[str, tuple], dict[str, PlannedTrial]] = {}
    for trial in trials:
        fixed = tuple((axis, trial.axes[axis]) for axis in splitting if axis in trial.axes)
        for task in trial.config.tasks:
            members.setdefault((task, fixed), {}).setdefault(trial.cell, trial)
    found = []
    for (task, fixed), cells in members.items():
        references = {trial.setting for trial in cells.values() if trial.reference}
        pretrained = {trial.setting for trial in cells.values() if trial.config.pretrained}
        other_raw = {trial.setting for trial in cells.values()} - references - pretrained
        if len(references) == 1 and pretrained and other_raw:
            found.append(Question(task, fixed, references.pop(), tuple(cells)))
    return found


def screening_frame(question: Question, screening: Iterable[TrialState]) -> pd.DataFrame:
    """What `study.analysis.answering.nominate.nominate` needs of a question's screening trials."""
    rows = []
    for state in screening:
        if state.trial.cell not in question.cells:
            continue
        scored = [
            (report.epoch, value)
            for report in state.record.reports
            if (value := report.value(question.task, "val", "miou")) is not None
        ]
        epoch, value = scored[-1] if scored else (0, math.nan)
        if state.record.status is TrialStatus.COMPLETED:
            value = state.record.choosing_score(question.task)
        rows.append(
            {
                "cell": state.trial.cell,
                "setting": state.trial.setting,
                "pretrained": state.trial.config.pretrained,
                "seed": state.trial.config.seed,
                "status": str(state.record.status),
                "value": value,
                "reached": epoch / state.trial.config.epochs,
            }
        )
    columns = ["cell", "setting", "pretrained", "seed", "status", "value", "reached"]
    return pd.DataFrame(rows, columns=columns)


def answering_frame(
    task: str,
    cells: Sequence[str],
    seeds: Sequence[int],
    answered: Mapping[tuple[str, int], TrialState],
) -> pd.DataFrame:
    """Final scores (seeds × cells) of a task; NaN where there is none yet.

    Args:
        answered: answering trials by cell and seed.
    """
    rows = [
        [
            answered[cell, seed].record.reported_score(task) if (cell, seed) in answered else math.nan
            for cell in cells
        ]
        for seed in seeds
    ]
    return pd.DataFrame(rows, index=list(seeds), columns=list(cells), dtype=float)
