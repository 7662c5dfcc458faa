"""`Study`: frames and manifest of one study, what its axes mean, and its cells (arm × treatment)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segstrat.store import Store
from study.frame import STATUSES, load, read_manifest
from study.intervals import mean_interval

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
        return ", ".join(f"{axis_name(axis)} {level_name(value)}" for axis, value in self.fixed.items())


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


def setting_label(values: Mapping[str, Any]) -> str:
    """A setting in words: `joint semseg+parts, dropout 0.3`; `as is` where nothing is varied."""
    words = []
    for axis, value in values.items():
        if axis == "tasks":
            words.append(f"joint {value}" if "+" in str(value) else "separate")
        else:
            words.append(f"{axis_name(axis)} {level_name(value)}")
    return ", ".join(words) or "as is"


def axis_name(axis: str) -> str:
    """An axis in words."""
    return axis.replace("_", " ")


def level_name(value: object) -> str:
    """A level as it is written on an axis: 0, 1e-4, 0.02, yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    short = f"{value:.0e}".replace("e-0", "e-")
    return short if 0 < value < 0.01 and float(short) == value else f"{value:.3g}"


def cell_table(study: Study, task: str) -> pd.DataFrame:
    """Every cell of a study for one task.

    Returns:
        a row for each context × arm × setting: `context arm pretrained setting`, the strategy axes, the
        number of trials in each status, and over the completed seeds `val_miou` with `low`/`high` (95 %),
        `train_miou`, `val_loss`, `train_loss`, `val_miou_best` (best epoch) and `val_miou_thesis`. Where
        trials were stopped, `bound_low`/`bound_high` say between which values the cell's mean would lie had
        they gone on: at their best value so far, or at the best final value of their arm.
    """
    rows = []
    for context in contexts(study, task):
        bounds = final_bounds(study, context)
        keys = ["pretrained", *context.strategies]
        for values, trials in context.trials.groupby(keys, sort=True, dropna=False):
            setting = dict(zip(keys, values, strict=True))
            done = trials[trials["status"] == "completed"]
            interval = mean_interval(done[study.column(task, "val", "miou")].to_numpy(float))
            count = {status: int((trials["status"] == status).sum()) for status in STATUSES}
            among = bounds.loc[trials.index].dropna()
            rows.append(
                {"context": context.label, "arm": trials["arm"].iloc[0]}
                | setting
                | {"setting": setting_label({axis: setting[axis] for axis in context.strategies})}
                | count
                | {"n": interval.n, "val_miou": interval.estimate, "low": interval.low, "high": interval.high}
                | {
                    name: done[column].mean()
                    for name, column in {
                        "train_miou": study.column(task, "train", "miou"),
                        "val_loss": study.column(task, "val", "loss"),
                        "train_loss": study.column(task, "train", "loss"),
                        "val_miou_best": f"{task}_val_miou",
                        "val_miou_thesis": study.column(task, "val", "miou_thesis"),
                    }.items()
                }
                | {
                    "bound_low": among["low"].mean() if count["stopped"] else None,
                    "bound_high": among["high"].mean() if count["stopped"] else None,
                }
            )
    return pd.DataFrame(rows)


def final_bounds(study: Study, context: Context) -> pd.DataFrame:
    """Between which values each trial's final validation mIoU lies, under two stated assumptions.

    A stopped (or unfinished) trial would not have ended below the best value it had shown, nor above the
    best final value of its arm. A completed trial's bounds are its value; diverged and failed trials have
    none, they are counted.

    Returns:
        columns `low` and `high`, indexed like the context's trials.
    """
    trials = context.trials
    final = trials[study.column(context.task, "val", "miou")].where(trials["status"] == "completed")
    ceiling = final.groupby(trials["arm"]).transform("max")
    open_ended = trials["status"].isin(["stopped", "unfinished"])
    shown = trials[f"{context.task}_val_miou"].where(open_ended)
    high = ceiling.where(open_ended & shown.notna())
    # A stopped trial may have been ahead of every trial that its arm completed.
    high = high.where(high.isna() | (high >= shown), shown)
    return pd.DataFrame({"low": final.fillna(shown), "high": final.fillna(high)}, index=trials.index)
