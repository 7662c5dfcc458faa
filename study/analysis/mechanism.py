"""H2 of W. Dai's thesis (UCL 2018): is the effect of pre-training initialization or regularization?"""

from dataclasses import dataclass

from study.analysis.claim_effects import paired_difference
from study.analysis.contrasts import final_values
from study.analysis.intervals import Interval, mean_interval
from study.analysis.phrases import start_sentence, with_interval
from study.analysis.study import Study
from study.analysis.verdict import MARGIN, Verdict


@dataclass(frozen=True)
class Mechanism:
    """H2: what pre-training does.

    Args:
        label: `initialization`, `regularization`, `both` or `undetermined`.
        training, validation: what pre-trained gains over raw, both at the reference's setting.
    """

    label: str
    reason: str
    training: Interval
    validation: Interval


def mechanism(study: Study, verdict: Verdict, margin: float = MARGIN) -> Mechanism:
    """H2 by the logic of thesis §5.2, both arms at the reference's setting.

    Pre-trained ahead on training and validation data: initialization. Ahead on validation only, behind on
    training: (also) regularization; alone if other regularization closes the gap, both if a gap remains.
    """
    context = verdict.context
    plain = context.at_reference()
    gains = {}
    for split in ("train", "val"):
        values = final_values(study, context, study.column(context.task, split, "miou"))
        pre = context.pretrained
        gains[split] = mean_interval(
            paired_difference(context, values, pre & plain, ~pre & plain, []).to_numpy()
        )
    training, validation = gains["train"], gains["val"]
    seen = (
        f"at the weakest regularization pre-trained gains {with_interval(validation)} on validation and "
        f"{with_interval(training)} on training data"
    )
    label, why = "undetermined", "the intervals do not tell both signs"
    if validation.estimate is None or training.estimate is None:
        label, seen, why = "undetermined", "no seed completed both unregularized cells", "nothing to compare"
    elif not validation.known:
        why = "too few seeds for an interval"
    elif not validation.above(0):
        why = "no advantage on validation data is shown, so there is no effect to explain"
    elif training.above(0):
        label, why = "initialization", "ahead on both"
    elif training.below(0) and verdict.contrasts.remaining.below(margin):
        label, why = "regularization", "behind in training, and other regularization closes the gap"
    elif training.below(0) and verdict.contrasts.remaining.above(margin):
        label, why = "both", "behind in training, but a gap remains that other regularization does not close"
    elif training.below(0):
        why = (
            "behind in training, so regularization is part of it; whether initialization is too is open, "
            "as the remaining gap is"
        )
    return Mechanism(label, f"{start_sentence(why)}: {seen}.", training, validation)
