"""Cells, arm × setting: at which tuned value, with counts, means over seeds, and what open trials had shown.

The value of a tuned axis, such as the learning rate, is chosen by the mean validation score over seeds: among
answering trials for the settings that have them, in screening for all others. The verdict does not depend on
this choice: intervals of an answering stage allow for all values that are left
(`study.analysis.answering.decision`), and a study of one stage chooses on the other seeds
(`study.analysis.contrasts`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from segstrat.config import INITIALIZATIONS
from segstrat.formatting import setting_label
from study.analysis.answering.nominate import best_values
from study.analysis.answering.stages import screening_table
from study.analysis.contrasts import Contrasts
from study.analysis.intervals import mean_interval
from study.analysis.study import ANSWERING, SCREENING, Context, Study, contexts, groups
from study.frame import STATUSES


def at_tuned_values(study: Study, context: Context) -> Context:
    """The context with only the trials at each setting's chosen values; all of them without a tuned axis."""
    if not context.tuned:
        return context
    chosen: dict[str, str] = {}
    for stage in (ANSWERING, SCREENING):
        ranking = best_values(screening_table(study, context.in_stage(stage)))
        chosen = dict(zip(ranking["setting"], ranking["cell"], strict=True)) | chosen
    return replace(context, trials=context.trials[context.trials["cell"].isin(chosen.values())])


def tuned_contexts(study: Study, task: str) -> list[Context]:
    """The contexts of a task at the chosen values: those of the study's main pair of starting points."""
    main = study.pairings[0]
    return [at_tuned_values(study, each) for each in contexts(study, task) if each.starts == main]


def _tuned_groups(study: Study, task: str) -> list[Context]:
    """All trials of a task at the chosen values, in one group per value of the nuisance axes."""
    return [at_tuned_values(study, group) for group in groups(study, task)]


def tuned_trials(study: Study, task: str) -> pd.DataFrame:
    """The trials of a task at the chosen values."""
    if not study.axes("tuned"):
        return study.trials_of(task)
    return pd.concat([group.trials for group in _tuned_groups(study, task)]).sort_index()


@dataclass(frozen=True)
class Tuning:
    """How a tuned axis was chosen in one context, and what that cost.

    Args:
        context: the context's label.
        tried: all values, the smallest first.
        chosen: the value of the reference and of each arm's best setting, by the cell's label.
        edges: labels of those whose value is the smallest or the largest that was tried, of several.
        trials, hours: by arm, such as `raw` and `pre-trained`, the cost of the values that were not chosen.
    """

    context: str
    axis: str
    tried: tuple[Any, ...]
    chosen: Mapping[str, Any]
    edges: tuple[str, ...]
    trials: Mapping[str, int]
    hours: Mapping[str, float]


def tunings(study: Study, compared: Iterable[tuple[Context, Contrasts]]) -> list[Tuning]:
    """Every tuned axis of every context."""
    return [_tuning(study, context, found, axis) for context, found in compared for axis in context.tuned]


def full_context(study: Study, context: Context) -> Context:
    """The context with the trials of all stages."""
    same = (context.fixed, context.starts)
    return next(each for each in contexts(study, context.task) if (each.fixed, each.starts) == same)


def _tuning(study: Study, context: Context, found: Contrasts, axis: str) -> Tuning:
    context = full_context(study, context)
    cells = ((False, found.reference), (False, found.best_raw.usual), (True, found.best_pretrained.usual))
    arms = {False: context.raw_name, True: context.pretrained_name}
    chosen: dict[str, Any] = {}
    edges = []
    for pretrained, setting in cells:
        same = context.trials[(context.pretrained == pretrained) & (context.settings == setting)]
        if setting is None or same.empty:
            continue
        label = f"{arms[pretrained]}: {setting}"
        chosen[label] = same[axis].iloc[0]
        tried = _tried_with(context, same.index[0], axis)
        if len(tried) > 1 and chosen[label] in (tried[0], tried[-1]):
            edges.append(label)
    kept = at_tuned_values(study, context).trials.index
    other = context.trials.drop(index=kept).groupby(context.pretrained.map(arms))
    seconds = other["seconds"].sum()
    return Tuning(
        context=context.label,
        axis=axis,
        tried=tuple(sorted(context.trials[axis].dropna().unique())),
        chosen=chosen,
        edges=tuple(dict.fromkeys(edges)),
        trials={arm: int(other.size().get(arm, 0)) for arm in arms.values()},
        hours={arm: float(seconds.get(arm, 0.0)) / 3600 for arm in arms.values()},
    )


def _tried_with(context: Context, trial: Any, axis: str) -> list[Any]:
    """The values that were tried in the arm and the setting of a trial, the smallest first."""
    untuned, pretrained = context.untuned_settings, context.pretrained
    same = (untuned == untuned.loc[trial]) & (pretrained == pretrained.loc[trial])
    return sorted(context.trials.loc[same, axis].dropna().unique())


def cell_table(study: Study, task: str) -> pd.DataFrame:
    """Every cell of a study for one task; with a tuned axis, each setting at its chosen value.

    Returns:
        one row per context × arm × setting: `context arm pretrained setting`, the strategy axes, `reference`
        (whether each axis has the reference's value), the number of trials in each status, and over the
        completed seeds `n`, `val_miou` with `low`/`high` (95 %), `train_miou`, `val_loss`, `train_loss`
        (see `Study.training_split`),
        `val_miou_best` (best epoch) and `val_miou_thesis`. `shown` is the mean of the best values that
        stopped and unfinished trials had shown, see `best_shown`.
    """
    rows = [row for group in _tuned_groups(study, task) for row in _context_rows(study, group)]
    return pd.DataFrame(rows)


def _context_rows(study: Study, context: Context) -> list[dict]:
    task = context.task
    shown = best_shown(context)
    keys = ["start", "pretrained", *context.strategies]
    in_order = context.trials["initialization"].map(INITIALIZATIONS.index)
    means = {
        "train_miou": study.column(task, study.training_split(task), "miou"),
        "val_loss": study.column(task, "val", "loss"),
        "train_loss": study.column(task, study.training_split(task), "loss"),
        "val_miou_best": f"{task}_val_miou",
        "val_miou_thesis": study.column(task, "val", "miou_thesis"),
    }
    rows = []
    for values, trials in context.trials.assign(start=in_order).groupby(keys, sort=True, dropna=False):
        levels = dict(zip(keys[1:], values[1:], strict=True))
        setting = {axis: levels[axis] for axis in context.strategies}
        completed = trials[trials["status"] == "completed"]
        label = context.settings[trials.index[0]] if context.tuned else setting_label(setting)
        interval = mean_interval(completed[study.column(task, "val", "miou")].to_numpy(float))
        counts = {status: int((trials["status"] == status).sum()) for status in STATUSES}
        rows.append(
            {"context": context.label, "arm": trials["arm"].iloc[0]}
            | levels
            | {"setting": label, "reference": setting == dict(context.reference)}
            | counts
            | {"n": interval.n, "val_miou": interval.estimate, "low": interval.low, "high": interval.high}
            | {name: completed[column].mean() for name, column in means.items()}
            | {"shown": shown.loc[trials.index].mean()}
        )
    return rows


def best_shown(context: Context) -> pd.Series:
    """The best validation mIoU that trials without a final value had shown when they ended; else NaN.

    It says nothing about how they would have ended: an interim value is never compared with a final one.
    """
    open_ended = context.trials["status"].isin(["stopped", "unfinished"])
    return context.trials[f"{context.task}_val_miou"].astype(float).where(open_ended)
