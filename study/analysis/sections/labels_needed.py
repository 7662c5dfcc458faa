"""Up to how many labelled images does pre-training pay? One statement over all label fractions of a study.

Each label fraction is a context with an answer of its own. Said together, they would be wrong more often than
each: so the error of 5 % is shared among them (Bonferroni), at the look of each context. Between the numbers
of images that were trained with, and beyond them, nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from segstrat.formatting import join_words
from study.analysis.answering.decision import Look, look_intervals
from study.analysis.answering.design import AnsweringDesign
from study.analysis.intervals import CONFIDENCE, Interval, mean_interval
from study.analysis.phrases import points
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict

AXIS = "label_fraction"


@dataclass(frozen=True)
class LabelsNeeded:
    """Where pre-training is worth more than the margin over the best regularized raw cell.

    Args:
        images: training images of each context, ascending.
        remaining: the remaining gap of each, with intervals that hold for all of them together.
        left_out: numbers of images at which an arm did not learn, or trials are missing.
        confidence: with which all intervals hold together.
    """

    images: tuple[int, ...]
    remaining: tuple[Interval, ...]
    margin: float
    left_out: tuple[int, ...] = ()
    confidence: float = CONFIDENCE

    @property
    def pays(self) -> list[int]:
        """Numbers of images at which pre-training is shown to be worth more than the margin."""
        pairs = zip(self.images, self.remaining, strict=True)
        return [images for images, interval in pairs if interval.above(self.margin)]

    @property
    def pays_no_more(self) -> list[int]:
        """Numbers of images at which it is shown to be worth less."""
        pairs = zip(self.images, self.remaining, strict=True)
        return [images for images, interval in pairs if interval.below(self.margin)]

    @property
    def sentence(self) -> str:
        """What is shown, in one sentence."""
        open_ = [n for n in self.images if n not in (*self.pays, *self.pays_no_more)]
        parts = [
            f"{what} with {join_words([f'{n:,}' for n in numbers])}"
            for what, numbers in (
                (f"worth more than {points(self.margin)}", self.pays),
                ("worth less", self.pays_no_more),
                ("open", open_),
                ("not said", self.left_out),
            )
            if numbers
        ]
        level = f"{100 * self.confidence:.3g} % for all numbers together"
        return f"Pre-training, by labelled training images ({level}): {'; '.join(parts)}."

    def to_dict(self) -> dict[str, Any]:
        """As `verdict.json` holds it."""
        contexts = [
            {"images": images} | asdict(interval)
            for images, interval in zip(self.images, self.remaining, strict=True)
        ]
        return {"sentence": self.sentence, "contexts": contexts, "left_out": list(self.left_out)}


def labels_needed(
    study: Study, verdicts: Mapping[str, Sequence[Verdict]], margin: float
) -> list[LabelsNeeded]:
    """The statement of a study whose contexts are label fractions; empty for any other."""
    primary = next(iter(verdicts.values()), [])
    if not differ_in_labels([verdict.context for verdict in primary]):
        return []
    counted = sorted(((_images(study, verdict), verdict) for verdict in primary), key=lambda pair: pair[0])
    used = [pair for pair in counted if not pair[1].blocked]
    return [
        LabelsNeeded(
            images=tuple(images for images, _ in used),
            # Contexts that are left out keep their share: which they are is found on the same trials.
            remaining=tuple(_remaining(verdict, len(primary)) for _, verdict in used),
            margin=margin,
            left_out=tuple(images for images, verdict in counted if verdict.blocked),
            confidence=primary[0].context.joint_confidence,
        )
    ]


def differ_in_labels(contexts: Sequence[Context]) -> bool:
    """Whether the contexts of a task differ in the fraction of labelled images alone."""
    return len(contexts) > 1 and all(set(context.fixed) == {AXIS} for context in contexts)


def _images(study: Study, verdict: Verdict) -> int:
    """Training images of a context's trials; by its fraction where no trial has reported."""
    known = verdict.context.trials["train_images"].dropna()
    if len(known):
        return int(known.median())
    whole = (study.manifest.get("data") or {}).get("train_images") or 0
    return round(float(verdict.context.fixed[AXIS]) * whole)


def _remaining(verdict: Verdict, contexts: int) -> Interval:
    """The remaining gap with its share of the error."""
    look, stage, found = verdict.look, verdict.stage, verdict.contrasts
    if look is None or stage is None:
        confidence = 1 - (1 - verdict.context.confidence) / contexts
        values, factor = found.differences["remaining"].to_numpy(float), found.variance_factors["remaining"]
        return mean_interval(values, confidence, variance_factor=factor)
    return joint_interval(stage.values, look, stage.design, contexts)


def joint_interval(values: pd.DataFrame, look: Look, design: AnsweringDesign, contexts: int) -> Interval:
    """The remaining gap of a context at a look; of all contexts together it holds with the design's error.

    Args:
        values: seeds × cells, as from `answering_stage`.
        contexts: of the whole study, those that are left out included.
    """
    # Studies that were planned before the contexts shared the error have all of it for each.
    shared = replace(design, error=min(design.error, (1 - CONFIDENCE) / contexts))
    active = len(look.roles_before.active)
    none = np.zeros((active, active))
    return look_intervals(values.loc[list(look.used)], look.roles_before, shared, look.number, none)[
        "remaining"
    ]
