"""Paired contrasts between raw and pre-trained trainings, the best setting chosen on other seeds.

In a context (one task, one backbone, …) a *setting* is a choice of treatments and of separate or joint
training. Raw without regularization is the *reference*: separate, each treatment at its weakest value. Then

- gap = best pre-trained − reference,
- improvement = best regularized raw − reference,
- remaining = best pre-trained − best regularized raw,
- closure = improvement / gap,

all in validation mIoU, a value a seed. "Best" of seed s is the setting with the best mean over the other
seeds, so that no value is reported on the seed that picked it (leave-one-out cross-fitting).

Each such value is unbiased for the setting that was picked, but where settings are nearly tied the seeds pick
different ones, and the picked values then share the noise that picked them: their mean varies up to
1.9 times as much as that of independent values (simulated, 3 to 24 tied settings, 3 to 8 seeds). So where the
seeds disagree the variance is doubled; the intervals' coverage is measured in tests/study/test_contrasts.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from segstrat.config import REGULARIZERS
from study.analysis.cells import final_bounds
from study.analysis.intervals import Interval, mean_interval, ratio_interval
from study.analysis.names import setting_label
from study.analysis.study import Context, Study

DISAGREEMENT = 2.0


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
    def unanimous(self) -> bool:
        """Whether all seeds choose the same setting."""
        return len(set(self.setting.values())) <= 1

    @property
    def usual(self) -> str | None:
        """The setting that most seeds choose."""
        return Counter(self.setting.values()).most_common(1)[0][0] if self.setting else None


@dataclass(frozen=True)
class Contrasts:
    """What a context says about the question, in shares of one (0.01 is one point of mIoU).

    Args:
        differences: the paired values behind each interval, by seed.
        variance_factors: by how much each interval's variance was raised.
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
    variance_factors: Mapping[str, float]
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
    axes = list(context.strategies)
    of_side = of_side.sort_values([*axes, "seed"])
    settings = trial_settings(context).loc[of_side.index]
    order = list(dict.fromkeys(settings))
    frames = [
        pd.DataFrame(
            {"seed": of_side["seed"].astype(int), "setting": settings, "value": each.loc[of_side.index]}
        )
        .pivot(index="seed", columns="setting", values="value")
        .reindex(columns=order)
        .astype(float)
        for each in (values, scores)
    ]
    weakest = setting_label(weakest_setting(context))
    return Side(frames[0], frames[1], weakest if weakest in order else None)


def trial_settings(context: Context) -> pd.Series:
    """The label of each trial's setting, indexed like the context's trials."""
    axes = context.strategies
    rows = zip(*(context.trials[axis] for axis in axes), strict=True) if axes else [()] * len(context.trials)
    labels = [setting_label(dict(zip(axes, row, strict=True))) for row in rows]
    return pd.Series(labels, index=context.trials.index, dtype=object)


def weakest_setting(context: Context) -> dict[str, object]:
    """The unregularized setting: separate training, no regularizer, other treatments at their smallest value.

    A study need not have it.
    """
    return {
        axis: min(context.trials[axis], key=lambda tasks: (str(tasks).count("+"), str(tasks)))
        if axis == "tasks"
        else (0.0 if axis in REGULARIZERS else context.trials[axis].min())
        for axis in context.strategies
    }


def scores_for_choice(context: Context, bounds: pd.DataFrame) -> pd.Series:
    """By what settings are chosen; see `Side.scores`."""
    return bounds["low"].where(context.trials["status"] != "diverged", 0.0)


def choose(half: Side, candidates: Sequence[str]) -> Chosen:
    """The best of the candidate settings for each seed, judged on all other seeds; ties take the weaker."""
    seeds = [int(seed) for seed in half.values.index]
    columns = [half.settings.index(label) for label in candidates]
    values, scores = (each.to_numpy(float)[:, columns] for each in (half.values, half.scores))
    known = np.isfinite(scores)
    # Relative to its seed, so that a setting that misses a hard seed does not win by that.
    level = np.array(
        [np.median(row[has]) if has.any() else 0.0 for row, has in zip(scores, known, strict=True)]
    )
    relative = np.where(known, scores - level[:, None], 0.0)
    setting: dict[int, str] = {}
    value = pd.Series(np.nan, index=seeds, dtype=float)
    for row, seed in enumerate(seeds):
        others = np.arange(len(seeds)) != row if len(seeds) > 1 else np.ones(1, dtype=bool)
        count = known[others].sum(axis=0)
        if not count.any():
            continue
        means = np.where(count > 0, relative[others].sum(axis=0) / np.maximum(count, 1), -np.inf)
        best = int(means.argmax())
        setting[seed] = candidates[best]
        value[seed] = values[row, best]
    return Chosen(setting, value, same_seed=len(seeds) == 1 and len(candidates) > 1)


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
    found = compare(raw, pre)
    return replace(found, missing=_missing(context, raw, pre, found.raw, found.pretrained))


def compare(raw: Side, pre: Side) -> Contrasts:
    """The contrasts of two sides."""
    regularized = [label for label in raw.settings if label != raw.reference]
    best_raw, best_pre = choose(raw, regularized), choose(pre, pre.settings)
    nothing = pd.Series(dtype=float)
    reference = raw.values[raw.reference] if raw.reference is not None else nothing
    differences = {
        "gap": _minus(best_pre.value, reference),
        "improvement": _minus(best_raw.value, reference),
        "remaining": _minus(best_pre.value, best_raw.value),
    }
    chosen = {"gap": [best_pre], "improvement": [best_raw], "remaining": [best_pre, best_raw]}
    factors = {
        name: 1.0 if all(each.unanimous for each in sides) else DISAGREEMENT for name, sides in chosen.items()
    }
    gap, improvement, remaining = (
        mean_interval(values.to_numpy(), variance_factor=factors[name])
        for name, values in differences.items()
    )
    seeds = differences["improvement"].index.intersection(differences["gap"].index)
    both = np.column_stack([differences[name].loc[seeds].to_numpy() for name in ("improvement", "gap")])
    return Contrasts(
        gap=gap,
        improvement=improvement,
        remaining=remaining,
        closure=ratio_interval(both[:, 0], both[:, 1], variance_factor=factors["remaining"]),
        raw=best_raw,
        pretrained=best_pre,
        reference=raw.reference,
        differences=differences,
        variance_factors=factors,
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
