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

The interval over seeds alone takes the images as fixed. How much a difference depends on them is estimated
by the grouped jackknife (Shao & Tu 1995, section 2.3): the mean difference over the seeds is computed without
each group of images in turn. Both variances are added; Satterthwaite's formula gives the degrees of freedom.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from segstrat.errors import UserError
from study.analysis.intervals import CONFIDENCE, MIN_SEEDS, Interval, mean_interval, ratio_interval
from study.analysis.scores import ScorePair, trial_scores
from study.analysis.study import Context, Study


@dataclass(frozen=True)
class Arm:
    """The raw or the pre-trained trials of a context, as seeds × settings.

    Args:
        values: final values that are reported, NaN where a trial has none.
        scores: final values by which settings are chosen. A value from the middle of a training never
            competes with a final one.
        reference: label of the reference's setting, None if the arm has no such cell.
        untuned: label of each column without its tuned values; empty without a tuned axis.
    """

    values: pd.DataFrame
    scores: pd.DataFrame
    reference: str | None
    untuned: Mapping[str, str] = field(default_factory=dict)

    @property
    def references(self) -> list[str]:
        """Labels of the reference's columns: one, or one for each of the tuned values."""
        return [label for label in self.settings if self.untuned.get(label, label) == self.reference]

    @property
    def settings(self) -> list[str]:
        """Labels of the settings, the weakest treatment first."""
        return [str(label) for label in self.values.columns]


@dataclass(frozen=True)
class Chosen:
    """The best setting of each seed and its value there.

    Args:
        settings: by seed; one setting for each `ScorePair`.
        value: by seed; NaN where a chosen trial has no final value.
        same_seed: with a single seed there is no other to choose on, so the choice is optimistically biased.
        candidates: number of settings to choose from.
    """

    settings: Mapping[int, tuple[str, ...]]
    value: pd.Series
    same_seed: bool
    candidates: int

    @property
    def counts(self) -> Counter[str]:
        """How often each setting was chosen."""
        return Counter(setting for chosen in self.settings.values() for setting in chosen)

    @property
    def unanimous(self) -> bool:
        """Whether all seeds choose the same setting."""
        return len(self.counts) <= 1

    @property
    def usual(self) -> str | None:
        """The setting that is chosen most often."""
        return self.counts.most_common(1)[0][0] if self.settings else None

    def label(self, seed: int) -> str:
        """The settings of a seed in words."""
        return " / ".join(dict.fromkeys(self.settings.get(seed, ())))


def choose(arm: Arm, candidates: Sequence[str]) -> Chosen:
    """The best of the candidate settings for each seed, judged on all other seeds; ties take the weaker."""
    seeds = [int(seed) for seed in arm.values.index]
    columns = [arm.settings.index(label) for label in candidates]
    values, scores = (table.to_numpy(float)[:, columns] for table in (arm.values, arm.scores))
    known = np.isfinite(scores)
    # Relative to its seed, so that a setting that misses a hard seed does not win by that.
    level = np.array(
        [np.median(row[has]) if has.any() else 0.0 for row, has in zip(scores, known, strict=True)]
    )
    relative = np.where(known, scores - level[:, None], 0.0)
    settings: dict[int, tuple[str, ...]] = {}
    value = pd.Series(np.nan, index=seeds, dtype=float)
    for row, seed in enumerate(seeds):
        others = np.arange(len(seeds)) != row if len(seeds) > 1 else np.ones(1, dtype=bool)
        count = known[others].sum(axis=0)
        if not count.any():
            continue
        means = np.where(count > 0, relative[others].sum(axis=0) / np.maximum(count, 1), -np.inf)
        best = int(means.argmax())
        settings[seed] = (candidates[best],)
        value[seed] = values[row, best]
    same_seed = len(seeds) == 1 and len(candidates) > 1
    return Chosen(settings, value, same_seed=same_seed, candidates=len(candidates))


def choose_reference(raw: Arm) -> Chosen:
    """The reference; where it was trained at several tuned values, each seed's is chosen on all others."""
    references = raw.references
    if len(references) > 1:
        return choose(raw, references)
    if not references:
        return Chosen({}, pd.Series(dtype=float), same_seed=False, candidates=0)
    settings = {int(seed): (references[0],) for seed in raw.values.index}
    return Chosen(settings, raw.values[references[0]], same_seed=False, candidates=1)


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
        gap_alone: whether a study of starting points tries nothing else on the first of these two, so that
            the gap is the answer.
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
    gap_alone: bool = False

    @property
    def reference(self) -> str | None:
        """Label of the raw reference setting, None where the study has no such trial."""
        return self.chosen_reference.usual

    @property
    def reference_values(self) -> pd.Series:
        """The reference's final values by seed; empty where there is no reference."""
        return self.chosen_reference.value

    def shows_share(self, margin: float) -> bool:
        """Whether there is a gap and a part of it that is gained, so that a share of it means something."""
        return self.gap.above(margin) and self.improvement.above(0)

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
    found = compare_pairs(
        [
            (
                arm_values(context, pair.reported, pair.choosing, pretrained=False),
                arm_values(context, pair.reported, pair.choosing, pretrained=True),
            )
            for pair in pairs
        ],
        context.confidence,
    )
    stated = {
        name: replace(getattr(found, name), confidence=context.joint_confidence)
        for name in ("gap", "improvement", "remaining", "closure")
    }
    untreated = bool(found.raw.references) and not found.best_raw.candidates
    return replace(found, **stated, gap_alone=untreated and context.pairings > 1)


def arm_values(context: Context, values: pd.Series, scores: pd.Series, *, pretrained: bool) -> Arm:
    """Arranges trial values as seeds × settings.

    Args:
        values: final values that are reported, indexed like `context.trials`.
        scores: final values to choose by, likewise.
    """
    order_by = [*context.strategies, *context.tuned, "seed"]
    # Of a hundred columns these are needed, and selecting rows copies all of them.
    trials = context.trials[order_by][context.pretrained == pretrained].sort_values(order_by)
    settings = context.settings.loc[trials.index]
    order = list(dict.fromkeys(settings))
    twice = pd.DataFrame({"seed": trials["seed"], "setting": settings}).duplicated()
    if twice.any():
        seed, setting = trials["seed"][twice].iloc[0], settings[twice].iloc[0]
        raise UserError(
            f"two trials have seed {seed} and the setting {setting!r}: the roles in manifest.json lack an "
            "axis, or the study mixes two configurations"
        )
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


def compare_pairs(arms: Sequence[tuple[Arm, Arm]], confidence: float = CONFIDENCE) -> Contrasts:
    """The contrasts of raw and pre-trained arms, averaged over pairs that were scored on different images."""
    raw, pretrained = _average([pair[0] for pair in arms]), _average([pair[1] for pair in arms])
    reference = _merge([choose_reference(arm) for arm, _ in arms])
    others = [label for label in raw.settings if label not in raw.references]
    best_raw = _merge([choose(arm, others) for arm, _ in arms])
    best_pretrained = _merge([choose(arm, arm.settings) for _, arm in arms])
    return make_contrasts(raw, pretrained, reference, best_raw, best_pretrained, confidence)


def make_contrasts(
    raw: Arm,
    pretrained: Arm,
    reference: Chosen,
    best_raw: Chosen,
    best_pretrained: Chosen,
    confidence: float = CONFIDENCE,
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
        mean_interval(values.to_numpy(), confidence, variance_factor=factors[name])
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
        closure=ratio_interval(pairs[:, 0], pairs[:, 1], confidence, variance_factor=factors["remaining"]),
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


# Variance below which scores are equal up to rounding.
NO_SPREAD = 1e-18


def contrasts_with_images(found: Contrasts, context: Context, split: str) -> dict[str, Interval]:
    """Intervals of gap, improvement and remaining over seeds and images; empty without the scores they need.

    Args:
        split: `val` or `test`, whichever the contrasts are computed on.
    """
    column = f"last_{context.task}_{split}_miou_jackknife"
    if column not in context.trials:
        return {}
    settings = {
        "reference": (False, found.reference),
        "raw": (False, found.best_raw.usual),
        "pretrained": (True, found.best_pretrained.usual),
    }
    without = {name: _means(context, column, *cell) for name, cell in settings.items()}
    pairs = {
        "gap": ("pretrained", "reference"),
        "improvement": ("raw", "reference"),
        "remaining": ("pretrained", "raw"),
    }
    intervals = {}
    for name, (left, right) in pairs.items():
        first, second = without[left], without[right]
        if first is None or second is None or len(first) != len(second):
            continue
        interval: Interval = getattr(found, name)
        differences = found.differences[name].to_numpy(float)
        intervals[name] = add_image_variance(
            interval,
            differences,
            first - second,
            variance_factor=found.variance_factors[name],
            confidence=context.confidence,
        )
    return intervals


def add_image_variance(
    interval: Interval,
    differences: NDArray[np.float64],
    without_group: NDArray[np.float64],
    *,
    variance_factor: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The interval of a mean difference over seeds and images.

    Half-widths of the two parts are added in quadrature (MOVER, Zou & Donner 2008, Statist. Med. 27).
    Degrees of freedom of the sum by Satterthwaite would make many images narrow what few seeds leave open.

    Args:
        interval: the one over seeds; its estimate is kept.
        differences: one per seed (n,).
        without_group: the mean difference over seeds without each group of images (G,).
        variance_factor: as for `mean_interval`.
    """
    seeds, groups = len(differences), len(without_group)
    if interval.estimate is None or seeds < MIN_SEEDS or groups < MIN_SEEDS:
        return Interval(interval.estimate, None, None, seeds, "no interval: too few seeds or images")
    over_seeds = variance_factor * float(np.var(differences, ddof=1)) / seeds
    over_images = (groups - 1) / groups * float(((without_group - without_group.mean()) ** 2).sum())
    if over_seeds + over_images <= NO_SPREAD:
        return Interval(interval.estimate, None, None, seeds, "no interval: no spread")
    tail = 0.5 + confidence / 2
    of_seeds, of_images = (float(stats.t.ppf(tail, count - 1)) for count in (seeds, groups))
    half = math.sqrt(of_seeds**2 * over_seeds + of_images**2 * over_images)
    method = f"Student's t over {seeds} seeds and {groups} groups of images"
    low, high = interval.estimate - half, interval.estimate + half
    return Interval(interval.estimate, low, high, seeds, method, interval.confidence)


def _means(
    context: Context, column: str, pretrained: bool, setting: str | None
) -> NDArray[np.float64] | None:
    """The scores without each group of images, mean over the seeds of a setting (G,)."""
    rows = context.completed & (context.pretrained == pretrained) & (context.settings == setting)
    scores = [scores for scores in context.trials.loc[rows, column] if isinstance(scores, np.ndarray)]
    if not scores or len({len(score) for score in scores}) > 1:
        return None
    return pd.DataFrame(scores).mean().to_numpy(float)
