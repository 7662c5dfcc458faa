"""The best setting of an arm for each seed, chosen on all other seeds, and what it is chosen from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd


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
