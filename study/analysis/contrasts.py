"""Paired contrasts between raw and pre-trained trials, with the best setting chosen on other seeds.

In a context (one task, one backbone, …) a *setting* is a choice of treatments and of single-task or
multi-task training. The *reference* is raw (trained from scratch), single-task, with every regularizer at 0
(`Study.reference_levels`). Then

- gap = best pre-trained − reference,
- improvement = best other raw setting − reference,
- remaining = best pre-trained − best other raw setting,
- closure = improvement / gap,

all in mIoU, one value per seed. "Best" of seed s is the setting with the best mean over the other seeds, so
that no value is reported on the seed that picked it (leave-one-out cross-fitting), nor, where the frame
allows it, on the images that picked it (`study.analysis.scores`). With a tuned axis, such as the learning
rate, settings compete at each of its values, and the reference's value is chosen on the other seeds likewise.

Each such value is unbiased for the setting that was picked, but where settings are nearly tied the seeds pick
different ones, and the picked values then share the noise that picked them: their mean varies up to
1.9 times as much as that of independent values (simulated, 3 to 24 tied settings, 3 to 8 seeds). So where the
seeds disagree the variance is doubled; the intervals' coverage is measured in
tests/study/analysis/test_contrasts.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.choice import Arm, Chosen, choose, choose_reference
from study.analysis.intervals import Interval, mean_interval, ratio_interval
from study.analysis.scores import ScorePair, trial_scores
from study.analysis.study import Context, Study

DISAGREEMENT = 2.0


@dataclass(frozen=True)
class Contrasts:
    """What a context says about the question, in shares of one (0.01 is one point of mIoU).

    Args:
        raw, pretrained: the values that everything else is computed from; means over the score pairs.
        chosen_reference: the reference, at the tuned value chosen for each seed.
        best_raw, best_pretrained: the setting chosen for each seed; raw's reference is not among the
            candidates.
        differences: the paired values behind each interval, by seed.
        variance_factors: by how much each interval's variance was raised.
    """

    raw: Arm
    pretrained: Arm
    chosen_reference: Chosen
    best_raw: Chosen
    best_pretrained: Chosen
    gap: Interval
    improvement: Interval
    remaining: Interval
    closure: Interval
    differences: Mapping[str, pd.Series]
    variance_factors: Mapping[str, float]

    @property
    def reference(self) -> str | None:
        """Label of the raw reference setting, None where the study has no such trial."""
        return self.chosen_reference.usual

    @property
    def reference_values(self) -> pd.Series:
        """The reference's final values by seed; empty where there is no reference."""
        return self.chosen_reference.value

    @property
    def same_seed(self) -> bool:
        """Whether a best setting is reported on the seed that chose it."""
        choices = (self.chosen_reference, self.best_raw, self.best_pretrained)
        return any(choice.same_seed for choice in choices)


def contrasts(study: Study, context: Context, values: pd.Series | None = None) -> Contrasts:
    """The contrasts of a context.

    Args:
        values: one value per trial in place of its primary score (another metric, another epoch), indexed
            like `context.trials`; the choice of settings follows it.
    """
    pairs = trial_scores(study, context) if values is None else (ScorePair(values, values),)
    return compare_pairs(
        [
            (
                arm_values(context, pair.reported, pair.choosing, pretrained=False),
                arm_values(context, pair.reported, pair.choosing, pretrained=True),
            )
            for pair in pairs
        ]
    )


def arm_values(context: Context, values: pd.Series, scores: pd.Series, *, pretrained: bool) -> Arm:
    """Arranges trial values as seeds × settings.

    Args:
        values: final values that are reported, indexed like `context.trials`.
        scores: final values to choose by, likewise.
    """
    trials = context.trials[context.pretrained == pretrained]
    trials = trials.sort_values([*context.strategies, *context.tuned, "seed"])
    settings = context.settings.loc[trials.index]
    order = list(dict.fromkeys(settings))
    tables = [
        pd.DataFrame(
            {"seed": trials["seed"].astype(int), "setting": settings, "value": series.loc[trials.index]}
        )
        .pivot(index="seed", columns="setting", values="value")
        .reindex(columns=order)
        .astype(float)
        for series in (values, scores)
    ]
    reference = context.reference_setting
    untuned = dict(zip(settings, context.untuned_settings.loc[trials.index], strict=True))
    return Arm(tables[0], tables[1], reference if reference in untuned.values() else None, untuned)


def compare(raw: Arm, pretrained: Arm) -> Contrasts:
    """The contrasts of two arms."""
    return compare_pairs([(raw, pretrained)])


def compare_pairs(arms: Sequence[tuple[Arm, Arm]]) -> Contrasts:
    """The contrasts of raw and pre-trained arms, averaged over pairs that were scored on different images."""
    raw, pretrained = _average([pair[0] for pair in arms]), _average([pair[1] for pair in arms])
    reference = _merge([choose_reference(arm) for arm, _ in arms])
    others = [label for label in raw.settings if label not in raw.references]
    best_raw = _merge([choose(arm, others) for arm, _ in arms])
    best_pretrained = _merge([choose(arm, arm.settings) for _, arm in arms])
    return make_contrasts(raw, pretrained, reference, best_raw, best_pretrained)


def make_contrasts(
    raw: Arm, pretrained: Arm, reference: Chosen, best_raw: Chosen, best_pretrained: Chosen
) -> Contrasts:
    """The contrasts of chosen settings, with intervals over seeds."""
    differences = {
        "gap": _minus(best_pretrained.value, reference.value),
        "improvement": _minus(best_raw.value, reference.value),
        "remaining": _minus(best_pretrained.value, best_raw.value),
    }
    choices = {
        "gap": [best_pretrained, reference],
        "improvement": [best_raw, reference],
        "remaining": [best_pretrained, best_raw],
    }
    factors = {
        name: 1.0 if all(choice.unanimous for choice in involved) else DISAGREEMENT
        for name, involved in choices.items()
    }
    gap, improvement, remaining = (
        mean_interval(values.to_numpy(), variance_factor=factors[name])
        for name, values in differences.items()
    )
    seeds = differences["improvement"].index.intersection(differences["gap"].index)
    pairs = np.column_stack([differences[name].loc[seeds].to_numpy() for name in ("improvement", "gap")])
    return Contrasts(
        raw=raw,
        pretrained=pretrained,
        chosen_reference=reference,
        best_raw=best_raw,
        best_pretrained=best_pretrained,
        gap=gap,
        improvement=improvement,
        remaining=remaining,
        closure=ratio_interval(pairs[:, 0], pairs[:, 1], variance_factor=factors["remaining"]),
        differences=differences,
        variance_factors=factors,
    )


def _average(arms: Sequence[Arm]) -> Arm:
    """The mean of an arm's values over several sets of images."""
    if len(arms) == 1:
        return arms[0]
    values = sum((arm.values for arm in arms[1:]), arms[0].values) / len(arms)
    scores = sum((arm.scores for arm in arms[1:]), arms[0].scores) / len(arms)
    return Arm(values, scores, arms[0].reference, arms[0].untuned)


def _merge(chosen: Sequence[Chosen]) -> Chosen:
    """Choices on several sets of images as one: all settings of a seed, and the mean of their values."""
    if len(chosen) == 1:
        return chosen[0]
    settings = {
        int(seed): tuple(setting for choice in chosen for setting in choice.settings.get(int(seed), ()))
        for seed in chosen[0].value.index
    }
    return Chosen(
        settings={seed: found for seed, found in settings.items() if found},
        value=sum((choice.value for choice in chosen[1:]), chosen[0].value) / len(chosen),
        same_seed=any(choice.same_seed for choice in chosen),
        candidates=chosen[0].candidates,
    )


def _minus(left: pd.Series, right: pd.Series) -> pd.Series:
    """Differences of the seeds that both have."""
    return left.sub(right).dropna()
