"""H2 of W. Dai's thesis (UCL 2018): is the effect of pre-training initialization or regularization?

By the logic of thesis §5.2, both arms at the reference's setting: pre-trained ahead on training and
validation data means initialization. Ahead on validation but behind on training data means (also)
regularization, provided that nothing else lowers its training score: the pre-trained part must learn at the
full rate, and both arms must train equally long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.answering.stages import planned_looks
from study.analysis.intervals import Interval
from study.analysis.scores import final_values
from study.analysis.study import Context, Study
from study.analysis.thesis.claim_differences import blocking_reason, training_score_problem
from study.analysis.thesis.claim_effects import Effect, make_effect, paired_difference
from study.analysis.thesis.claims import adjust
from study.analysis.verdict import MARGIN, Verdict
from study.analysis.words.phrases import start_sentence, with_interval


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


def mechanisms(study: Study, verdicts: Sequence[Verdict], margin: float = MARGIN) -> list[Mechanism]:
    """H2 in every context; p-values are adjusted over all looks and, by Holm's method, over all contexts."""
    effects = [_gain(study, verdict, split) for verdict in verdicts for split in ("train", "val")]
    effects = adjust(effects, planned_looks(study))
    pairs = zip(effects[::2], effects[1::2], strict=True)
    return [_mechanism(verdict, *pair, margin) for verdict, pair in zip(verdicts, pairs, strict=True)]


def _gain(study: Study, verdict: Verdict, split: str) -> Effect:
    """What pre-trained gains over raw at the reference's setting."""
    context = verdict.context
    plain, pretrained = context.at_reference(), context.pretrained
    values = final_values(study, context, study.column(context.task, split, "miou"))
    found = paired_difference(context, values, pretrained & plain, ~pretrained & plain, [])
    blocked = blocking_reason(context, verdict.cause)
    if split == "train":
        blocked = blocked or training_score_problem(context.trials[plain])
    return make_effect(split, found, blocked=blocked)


def _mechanism(verdict: Verdict, training: Effect, validation: Effect, margin: float) -> Mechanism:
    label, why = _label(verdict, training, validation, margin)
    text = f"{start_sentence(why)}."
    if validation.interval.estimate is not None and training.interval.estimate is not None:
        text = (
            f"{start_sentence(why)}: at the reference's setting pre-trained gains "
            f"{with_interval(validation.interval)} on validation and {with_interval(training.interval)} on "
            "training data."
        )
    return Mechanism(label, text, training.interval, validation.interval)


def _label(verdict: Verdict, training: Effect, validation: Effect, margin: float) -> tuple[str, str]:
    blocked = validation.blocked or training.blocked
    if blocked:
        return "undetermined", blocked.rstrip(".")
    if validation.interval.estimate is None or training.interval.estimate is None:
        return "undetermined", "nothing to compare: no seed completed both arms at the reference's setting"
    if not validation.interval.known:
        return "undetermined", "too few seeds for an interval"
    if validation.side != "claimed":
        return "undetermined", "no advantage on validation data is shown, so there is no effect to explain"
    if training.side == "claimed":
        return "initialization", "ahead on both"
    if training.side != "reversed":
        return "undetermined", "the intervals do not determine both signs"
    confounder = _confounder(verdict.context)
    if confounder:
        return "undetermined", f"behind in training, which may be regularization, but {confounder}"
    remaining = verdict.contrasts.remaining
    if remaining.below(margin):
        return "regularization", "behind in training, and other regularization closes the gap"
    if remaining.above(margin):
        return "both", "behind in training, but a gap remains that other regularization does not close"
    return "undetermined", (
        "behind in training, so regularization is part of it; whether initialization is too is open, as the "
        "remaining gap is"
    )


def _confounder(context: Context) -> str:
    """What else lowers the training score of the pre-trained arm; empty if nothing does."""
    pretrained = context.trials[context.pretrained]
    raw = context.trials[~context.pretrained]
    if "pretrained_lr_factor" in pretrained:
        factors = sorted(set(pretrained["pretrained_lr_factor"].astype(float)) - {1.0})
        if factors:
            return (
                f"its pre-trained part learns at {factors[0]:g} of the rate, which lowers training scores too"
            )
    if pretrained["epochs_budget"].min() < raw["epochs_budget"].max():
        return "it trains for fewer epochs than raw, which lowers training scores too"
    return ""
