"""Tuned axes, such as the learning rate: the trials at the value that is chosen for each setting.

The value is chosen by the mean validation score over seeds: among answering trials for the settings that have
them, in screening for all others. The verdict does not depend on this choice: intervals of an answering stage
allow for all values that are left (`study.analysis.answering.decision`), and a study of one stage chooses on
the other seeds (`study.analysis.contrasts`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from study.analysis.answering.nominate import best_values
from study.analysis.answering.stages import ARMS, screening_table
from study.analysis.study import ANSWERING, SCREENING, Context, Study, contexts
from study.analysis.verdict import Verdict


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
    """The contexts of a task at the chosen values, see `study.analysis.study.contexts`."""
    return [at_tuned_values(study, context) for context in contexts(study, task)]


def tuned_trials(study: Study, task: str) -> pd.DataFrame:
    """The trials of a task at the chosen values."""
    if not study.axes("tuned"):
        return study.trials_of(task)
    return pd.concat([context.trials for context in tuned_contexts(study, task)]).sort_index()


@dataclass(frozen=True)
class Tuning:
    """How a tuned axis was chosen in one context, and what that cost.

    Args:
        context: the context's label.
        tried: all values, the smallest first.
        chosen: the value of the reference and of each arm's best setting, by the cell's label.
        edges: labels of those whose value is the smallest or the largest that was tried, of several.
        trials, hours: by arm (`raw`, `pre-trained`), the cost of the values that were not chosen.
    """

    context: str
    axis: str
    tried: tuple[Any, ...]
    chosen: Mapping[str, Any]
    edges: tuple[str, ...]
    trials: Mapping[str, int]
    hours: Mapping[str, float]


def tunings(study: Study, verdicts: Sequence[Verdict]) -> list[Tuning]:
    """Every tuned axis of every context."""
    return [_tuning(study, verdict, axis) for verdict in verdicts for axis in verdict.context.tuned]


def full_context(study: Study, context: Context) -> Context:
    """The context with the trials of all stages."""
    return next(each for each in contexts(study, context.task) if each.fixed == context.fixed)


def _tuning(study: Study, verdict: Verdict, axis: str) -> Tuning:
    context = full_context(study, verdict.context)
    found = verdict.contrasts
    cells = ((False, found.reference), (False, found.best_raw.usual), (True, found.best_pretrained.usual))
    chosen: dict[str, Any] = {}
    edges = []
    for pretrained, setting in cells:
        same = context.trials[(context.pretrained == pretrained) & (context.settings == setting)]
        if setting is None or same.empty:
            continue
        label = f"{ARMS[pretrained]}: {setting}"
        chosen[label] = same[axis].iloc[0]
        tried = _tried_with(context, same.index[0], axis)
        if len(tried) > 1 and chosen[label] in (tried[0], tried[-1]):
            edges.append(label)
    kept = at_tuned_values(study, context).trials.index
    other = context.trials.drop(index=kept).groupby(context.pretrained.map(ARMS))
    seconds = other["seconds"].sum()
    return Tuning(
        context=context.label,
        axis=axis,
        tried=tuple(sorted(context.trials[axis].dropna().unique())),
        chosen=chosen,
        edges=tuple(dict.fromkeys(edges)),
        trials={arm: int(other.size().get(arm, 0)) for arm in ARMS.values()},
        hours={arm: float(seconds.get(arm, 0.0)) / 3600 for arm in ARMS.values()},
    )


def _tried_with(context: Context, trial: Any, axis: str) -> list[Any]:
    """The values that were tried in the arm and the setting of a trial, the smallest first."""
    untuned, pretrained = context.untuned_settings, context.pretrained
    same = (untuned == untuned.loc[trial]) & (pretrained == pretrained.loc[trial])
    return sorted(context.trials.loc[same, axis].dropna().unique())
