"""`Study`: frames and manifest of one study, what its axes mean, and the contexts that it compares."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segstrat.formatting import format_value
from segstrat.store import Store
from study.analysis.names import axis_name
from study.frame import load, read_manifest

# Arm axes whose values are compared with each other; any other arm axis (the backbone) splits the study into
# contexts with a comparison of their own.
COMPARED = ("pretrained", "tasks")


@dataclass(frozen=True)
class Study:
    """A study as the analysis sees it.

    Args:
        name: the study's name.
        manifest: what was asked; may be empty.
        trials, epochs: the frames, see `study.frame`.
    """

    name: str
    manifest: Mapping[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame

    @classmethod
    def open(cls, folder: str | Path | Store) -> "Study":
        """Reads a study's folder.

        Raises:
            UserError: if there are no frames, or of another version.
        """
        store = folder if isinstance(folder, Store) else Store(folder)
        trials, epochs = load(store)
        manifest = read_manifest(store)
        name = manifest.get("study") or store.uri.rstrip("/").rpartition("/")[2]
        return cls(name, manifest, trials, epochs)

    def axes(self, role: str) -> list[str]:
        """Names of the axes of a role (`arm`, `treatment`, `nuisance`) that the frame holds."""
        roles = self.manifest.get("roles") or {}
        return [axis for axis, its in roles.items() if its == role and axis in self.trials]

    @property
    def varies_joint_training(self) -> bool:
        """Whether joint training is among what may stand in for pre-training."""
        return self.trials["multi_task"].astype(bool).nunique() > 1

    @property
    def tasks(self) -> list[str]:
        """Tasks that any trial learnt, the one of the study's metric first."""
        found = dict.fromkeys(task for tasks in self.trials["tasks"] for task in str(tasks).split("+"))
        metric = str(self.manifest.get("metric", ""))
        return sorted(found, key=lambda task: not metric.startswith(f"{task}_"))

    @property
    def value(self) -> str:
        """Prefix of the primary value's columns: the last epoch's, or the best's where only that is known.

        The last epoch of a completed trial is chosen by nobody; published tables may hold the best one only.
        """
        return "" if self.manifest.get("value") == "best" else "last_"

    def column(self, task: str, split: str, score: str) -> str:
        """Column of `trials` that holds the primary value of a score."""
        return f"{self.value}{task}_{split}_{score}"

    @property
    def data_name(self) -> str:
        """Name of the data protocol, `(synthetic)` beside it where the data is drawn."""
        data = self.manifest.get("data") or {}
        name = str(data.get("name", "unknown data"))
        return f"{name} (synthetic)" if data.get("synthetic") else name


@dataclass(frozen=True)
class Context:
    """The trials among which raw is compared with pre-trained: one task, and one value of all that is no
    strategy (backbone, nuisance axes).

    Args:
        fixed: values of the axes that tell this context from the study's others.
        strategies: axes whose values make a setting: `tasks` where varied, then the treatments.
        trials: the context's trials.
    """

    task: str
    fixed: Mapping[str, Any]
    strategies: tuple[str, ...]
    trials: pd.DataFrame

    @property
    def label(self) -> str:
        """The fixed values in words; empty where the study has one context only."""
        return ", ".join(f"{axis_name(axis)} {format_value(value)}" for axis, value in self.fixed.items())


def contexts(study: Study, task: str) -> list[Context]:
    """The comparisons that a study allows for a task, in the order of its trials."""
    learnt = study.trials[[task in str(tasks).split("+") for tasks in study.trials["tasks"]]]
    splitting = [axis for axis in study.axes("arm") if axis not in COMPARED] + study.axes("nuisance")
    tasks_axis = ["tasks"] if learnt["tasks"].nunique() > 1 else []
    strategies = (*tasks_axis, *study.axes("treatment"))
    if not splitting or learnt.empty:
        return [Context(task, {}, strategies, learnt)] if len(learnt) else []
    found = []
    for values, trials in learnt.groupby(splitting, sort=True, dropna=False):
        varied = [axis for axis in splitting if learnt[axis].nunique(dropna=False) > 1]
        fixed = {axis: value for axis, value in zip(splitting, values, strict=True) if axis in varied}
        found.append(Context(task, fixed, strategies, trials))
    return found
