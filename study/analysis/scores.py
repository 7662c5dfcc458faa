"""The score of each trial: which one chooses a setting, and which one is reported.

A setting that was chosen because it did well on some images looks better on them than on others. So a study
with a test split chooses on validation images and reports on test images. Without one, and with pixel counts
of every image, each half of the validation images chooses for the other half. Otherwise the same images
choose and report, and the report says so.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from segstrat.image_counts import HALVES
from study.analysis.study import Context, Study

Images = Literal["test images", "halves of the validation images", "the images that chose"]


@dataclass(frozen=True)
class ScorePair:
    """Two scores of every trial, indexed like `context.trials`; NaN where there is none.

    Args:
        choosing: by which settings are chosen.
        reported: what is reported of the chosen setting.
    """

    choosing: pd.Series
    reported: pd.Series


@dataclass(frozen=True)
class TrialScores:
    """The primary scores of a context.

    Args:
        images: on which images the reported scores are computed.
        pairs: one, or one per half of the images; a contrast is the mean over them.
    """

    images: Images
    pairs: tuple[ScorePair, ...]


def trial_scores(study: Study, context: Context) -> TrialScores:
    """The best scores that the frame has, by the order of this module's docstring."""
    task = context.task
    validation = final_values(study, context)
    test = f"last_{task}_test_miou"
    if _complete(context, test):
        return TrialScores("test images", (ScorePair(validation, final_values(study, context, test)),))
    halves = [f"last_{task}_val_miou_{half}" for half in HALVES]
    if all(_complete(context, column) for column in halves):
        a, b = (final_values(study, context, column) for column in halves)
        return TrialScores("halves of the validation images", (ScorePair(a, b), ScorePair(b, a)))
    return TrialScores("the images that chose", (ScorePair(validation, validation),))


def final_values(
    study: Study, context: Context, column: str | None = None, *, survivors: bool = False
) -> pd.Series:
    """Final values of the context's trials; by default validation mIoU at the last epoch.

    Only completed trials have a final value. A diverged trial counts with the floor: intention to treat. If
    only the seeds that survived counted, a setting that often diverges would look good.

    Args:
        survivors: leave diverged trials out instead.
    """
    values = context.trials[column or study.column(context.task, "val", "miou")].astype(float)
    values = values.where(context.completed)
    if survivors:
        return values
    return values.where(context.trials["status"] != "diverged", floor_or_zero(study, context))


def floor(study: Study, context: Context, split: str = "val") -> float | None:
    """mIoU of the best constant prediction; None where neither trials nor manifest know it."""
    column = f"{context.task}_{split}_constant_miou"
    if column in context.trials and context.trials[column].notna().any():
        return float(context.trials[column].dropna().iloc[0])
    known = (study.manifest.get("data") or {}).get("constant_miou", {}).get(context.task, {})
    return known.get(split)


def floor_or_zero(study: Study, context: Context) -> float:
    """The floor, or 0 where it is unknown."""
    return floor(study, context) or 0.0


def _complete(context: Context, column: str) -> bool:
    """Whether a column has a value for every completed trial."""
    trials, completed = context.trials, context.completed
    return column in trials and bool(completed.any() and trials.loc[completed, column].notna().all())
