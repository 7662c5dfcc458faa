"""Paired contrasts between raw and pre-trained trainings, the best setting chosen on other seeds.

In a context (one task, one backbone, …) a *setting* is a choice of treatments and of separate or joint
training. Raw without regularization is the *reference*: separate, each treatment at its weakest value. Then

- gap = best pre-trained − reference,
- improvement = best regularized raw − reference,
- remaining = best pre-trained − best regularized raw,
- closure = improvement / gap,

all in validation mIoU, a value a seed. "Best" of seed s is the setting with the best mean over the other
seeds, so that no value is reported on the seed that picked it (leave-one-out cross-fitting).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from study.cells import Context, Study, final_bounds, setting_label
from study.intervals import Interval, mean_interval, ratio_interval


@dataclass(frozen=True)
class Side:
    """The raw or the pre-trained half of a context.

    Args:
        values: seeds × settings, final values of completed trials, NaN elsewhere.
        scores: the same, by which settings are chosen: a stopped trial counts with the best value it
            showed, a diverged one with 0, others not at all.
        reference: label of the unregularized setting, None if the study has no such cell.
    """

    values: pd.DataFrame
    scores: pd.DataFrame
    reference: str | None

    @property
    def settings(self) -> list[str]:
        """Labels of the settings, the weakest treatment first."""
        return [str(label) for label in self.values.columns]


@dataclass(frozen=True)
class Chosen:
    """The best setting of each seed and its value there.

    Args:
        setting: by seed.
        value: by seed; NaN where that trial has no final value.
        same_seed: with a single seed there is no other to choose on, so the choice is an optimistic one.
    """

    setting: dict[int, str]
    value: pd.Series
    same_seed: bool

    @property
    def usual(self) -> str | None:
        """The setting that most seeds choose."""
        return Counter(self.setting.values()).most_common(1)[0][0] if self.setting else None


@dataclass(frozen=True)
class Contrasts:
    """What a context says about the question, in shares of one (0.01 is one point of mIoU).

    Args:
        differences: the paired values behind each interval, by seed.
        missing: why a contrast cannot be made, in sentences.
    """

    gap: Interval
    improvement: Interval
    remaining: Interval
    closure: Interval
    raw: Chosen
    pretrained: Chosen
    reference: str | None
    differences: Mapping[str, pd.Series]
    missing: Sequence[str] = field(default_factory=list)

    @property
    def same_seed(self) -> bool:
        """Whether a best setting is reported on the seed that chose it."""
        return self.raw.same_seed or self.pretrained.same_seed


def final_values(study: Study, context: Context, column: str | None = None) -> pd.Series:
    """Final values of the context's completed trials, NaN for all others; by default validation mIoU."""
    trials = context.trials
    values = trials[column or study.column(context.task, "val", "miou")].astype(float)
    return values.where(trials["status"] == "completed")


def side(context: Context, values: pd.Series, scores: pd.Series, *, pretrained: bool) -> Side:
    """Arranges trial values as seeds × settings.

    Args:
        values: final values, indexed like `context.trials`.
        scores: values to choose by, likewise.
    """
    of_side = context.trials[context.trials["pretrained"].astype(bool) == pretrained]
    columns: dict[str, dict[int, float]] = {}
    chosen_by: dict[str, dict[int, float]] = {}
    axes = list(context.strategies)
    for index, trial in of_side.sort_values(axes).iterrows() if axes else of_side.iterrows():
        label = setting_label({axis: trial[axis] for axis in axes})
        columns.setdefault(label, {})[int(trial["seed"])] = float(values[index])  # type: ignore[call-overload]
        chosen_by.setdefault(label, {})[int(trial["seed"])] = float(scores[index])  # type: ignore[call-overload]
    weakest = setting_label(weakest_setting(context))
    frame, score_frame = (pd.DataFrame(each, dtype=float).sort_index() for each in (columns, chosen_by))
    return Side(frame, score_frame, weakest if weakest in frame else None)


def weakest_setting(context: Context) -> dict[str, object]:
    """The unregularized setting: separate training, each treatment at its smallest value."""
    return {
        axis: min(context.trials[axis], key=lambda tasks: (str(tasks).count("+"), str(tasks)))
        if axis == "tasks"
        else context.trials[axis].min()
        for axis in context.strategies
    }


def scores_for_choice(context: Context, bounds: pd.DataFrame) -> pd.Series:
    """By what settings are chosen; see `Side.scores`."""
    return bounds["low"].where(context.trials["status"] != "diverged", 0.0)


def choose(half: Side, candidates: Sequence[str]) -> Chosen:
    """The best of the candidate settings for each seed, judged on all other seeds; ties take the weaker."""
    seeds = list(half.values.index)
    setting: dict[int, str] = {}
    value = pd.Series(np.nan, index=seeds, dtype=float)
    alone = len(seeds) == 1 and len(candidates) > 1
    for seed in seeds:
        judged = half.scores.loc[:, list(candidates)]
        # Relative to its seed, so that a setting that misses a hard seed does not win by that.
        judged = judged.sub(judged.mean(axis=1), axis=0)
        means = (judged if len(seeds) == 1 else judged.drop(index=seed)).mean()
        if means.notna().any():
            setting[seed] = str(means.idxmax())
            value[seed] = half.values.loc[seed, setting[seed]]
    return Chosen(setting, value, alone)


def contrasts(study: Study, context: Context, values: pd.Series | None = None) -> Contrasts:
    """The contrasts of a context.

    Args:
        values: a value a trial in place of its final validation mIoU (another metric, another epoch, a
            bound), indexed like `context.trials`; the choice of settings follows it.
    """
    if values is None:
        values = final_values(study, context)
        scores = scores_for_choice(context, final_bounds(study, context))
    else:
        scores = values.where(context.trials["status"] != "diverged", 0.0)
    raw = side(context, values, scores, pretrained=False)
    pre = side(context, values, scores, pretrained=True)
    regularized = [label for label in raw.settings if label != raw.reference]
    best_raw, best_pre = choose(raw, regularized), choose(pre, pre.settings)
    nothing = pd.Series(dtype=float)
    reference = raw.values[raw.reference] if raw.reference is not None else nothing
    differences = {
        "gap": _minus(best_pre.value, reference),
        "improvement": _minus(best_raw.value, reference),
        "remaining": _minus(best_pre.value, best_raw.value),
    }
    both = pd.concat([differences["improvement"], differences["gap"]], axis=1).dropna()
    return Contrasts(
        gap=mean_interval(differences["gap"].to_numpy()),
        improvement=mean_interval(differences["improvement"].to_numpy()),
        remaining=mean_interval(differences["remaining"].to_numpy()),
        closure=ratio_interval(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()),
        raw=best_raw,
        pretrained=best_pre,
        reference=raw.reference,
        differences=differences,
        missing=_missing(context, raw, pre, best_raw, best_pre),
    )


def _minus(left: pd.Series, right: pd.Series) -> pd.Series:
    """Differences of the seeds that both have."""
    return left.sub(right).dropna()


def _missing(context: Context, raw: Side, pre: Side, best_raw: Chosen, best_pre: Chosen) -> list[str]:
    """What the context lacks, one sentence each."""
    found = []
    for half, name in ((raw, "raw"), (pre, "pre-trained")):
        if half.values.empty:
            found.append(f"The study has no {name} trial.")
        elif half.values.notna().sum().sum() == 0:
            found.append(f"No {name} trial was completed ({status_count(context, name)}).")
    if not raw.values.empty:
        if raw.reference is None:
            weakest = setting_label(weakest_setting(context))
            found.append(f"No raw trial is without regularization ({weakest}), so there is no reference.")
        elif raw.values[raw.reference].isna().all():
            found.append(f"The unregularized raw setting ({raw.reference}) was not completed on any seed.")
        if raw.settings == [raw.reference]:
            found.append("The study varies neither a treatment nor joint training of the raw arm.")
    for chosen, half, name in ((best_raw, raw, "raw"), (best_pre, pre, "pre-trained")):
        lost = [str(seed) for seed, value in chosen.value.items() if np.isnan(value)]
        if lost and chosen.setting and half.values.notna().any(axis=None):
            found.append(
                f"The {name} setting that the other seeds choose has no final value on seed "
                f"{', '.join(lost)}."
            )
    return found


def status_count(context: Context, side_name: str) -> str:
    """`3 stopped, 1 diverged` of one side's trials."""
    of_side = context.trials[context.trials["pretrained"].astype(bool) == (side_name != "raw")]
    counts = of_side["status"].value_counts()
    return ", ".join(f"{count} {status}" for status, count in counts.items())
