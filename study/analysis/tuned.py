"""Tuned axes, such as the learning rate: the trials at the value that is chosen for each setting.

The value is chosen by the mean validation score over seeds, in screening where a study has it
(`study.analysis.answering.nominate`). In a study of one stage, tables, figures and effects show each setting
at the value that is best over all seeds, while the contrasts of its verdict choose on the other seeds
(`study.analysis.contrasts`).
"""

from dataclasses import replace

import pandas as pd

from study.analysis.answering.nominate import rank_cells
from study.analysis.answering.stages import SCREENING, cells_of, in_stage, screening_table
from study.analysis.study import Context, Study, contexts


def at_tuned_values(study: Study, context: Context) -> Context:
    """The context with only the trials at each setting's chosen values; all of them without a tuned axis."""
    if not context.tuned:
        return context
    screening = in_stage(context, SCREENING)
    chosen = rank_cells(screening_table(study, screening if len(screening.trials) else context))
    return replace(context, trials=context.trials[cells_of(context).isin(chosen["cell"])])


def tuned_contexts(study: Study, task: str) -> list[Context]:
    """The contexts of a task at the chosen values, see `study.analysis.study.contexts`."""
    return [at_tuned_values(study, context) for context in contexts(study, task)]


def tuned_trials(study: Study, task: str) -> pd.DataFrame:
    """The trials of a task at the chosen values."""
    if not study.axes("tuned"):
        return study.trials_of(task)
    return pd.concat([context.trials for context in tuned_contexts(study, task)]).sort_index()
