"""Claims C1–C5 of W. Dai's thesis (UCL 2018), each judged on the user's own trials.

A claim is `supported` or `contradicted` only by an interval; its part effects and their intervals are given
with it. Differences below the margin count as none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segstrat.formatting import format_value
from study.analysis.claim_effects import Effect, paired_difference
from study.analysis.contrasts import contrasts, final_values
from study.analysis.intervals import Interval, mean_interval
from study.analysis.phrases import count_seeds, points
from study.analysis.study import Context, Study, contexts
from study.analysis.verdict import MARGIN, Verdict

Status = Literal["supported", "contradicted", "undetermined"]
THESIS_BEST_DECAY = 5e-4


@dataclass(frozen=True)
class Claim:
    """A claim with what the user's trials say to it.

    Args:
        thesis: what the thesis found, with its numbers.
        reason: why this status, in a sentence or two.
    """

    name: str
    claim: str
    thesis: str
    status: Status
    reason: str
    effects: Sequence[Effect] = ()


def judge_claims(study: Study, verdicts: Sequence[Verdict], margin: float = MARGIN) -> list[Claim]:
    """C1–C5 on a study; a claim that the study does not address is `undetermined` and says what it lacks.

    Args:
        verdicts: of the contexts of the study's primary task.
    """
    return [
        claim_c1(study, verdicts),
        claim_c2(study, verdicts),
        claim_c3(study, verdicts, margin),
        claim_multi_task(study, margin, pretrained=False),
        claim_multi_task(study, margin, pretrained=True),
    ]


def claim_c1(study: Study, verdicts: Sequence[Verdict]) -> Claim:
    """C1: raw trains better than pre-trained."""
    effects = [_arm_effect(study, verdict.context, "train", sign=-1) for verdict in verdicts]
    status, reason = _all_positive(effects)
    return Claim(
        "C1",
        "Raw trains better than pre-trained: higher training mIoU.",
        "ResNet-18 +3.7 to +7.5 points (Table 1.2), VGG-16 +3.7, AlexNet −2.6 (Table 1.1)",
        status,
        reason,
        effects,
    )


def claim_c2(study: Study, verdicts: Sequence[Verdict]) -> Claim:
    """C2: pre-trained validates better."""
    effects = [_arm_effect(study, verdict.context, "val", sign=1) for verdict in verdicts]
    status, reason = _all_positive(effects)
    return Claim(
        "C2",
        "Pre-trained validates better than raw: higher validation mIoU.",
        "ResNet-18 +6.0 to +9.2 points (Table 1.2), VGG-16 +12.5, AlexNet +7.3 (Table 1.1)",
        status,
        reason,
        effects,
    )


def claim_c3(study: Study, verdicts: Sequence[Verdict], margin: float) -> Claim:
    """C3: weight decay helps raw, best at 5e-4, and does not close the gap."""
    text = "Weight decay helps raw, is best at 5e-4, and does not close the gap to pre-trained."
    thesis = "38.0 → 41.1 at 5e-4, pre-trained 47.4 at its best (Table 1.2)"
    if "weight_decay" not in study.axes("treatment"):
        return Claim("C3", text, thesis, "undetermined", "This study does not vary weight decay.")
    effects, statuses, notes = [], [], []
    for verdict in verdicts:
        context = _only_axis(verdict.context, "weight_decay")
        found = contrasts(study, context)
        prefix = f"{context.label}: " if context.label else ""
        effects.append(Effect(f"{prefix}best weight decay − none, raw", found.improvement))
        effects.append(Effect(f"{prefix}best pre-trained − best weight decay, raw", found.remaining))
        statuses.append(_conjunction([_above(found.improvement, 0.0), _above(found.remaining, margin)]))
        best = found.best_raw.usual
        if best is None:
            continue
        agrees = best.endswith(f"weight decay {format_value(THESIS_BEST_DECAY)}")
        grid = ", ".join(format_value(level) for level in sorted(context.trials["weight_decay"].unique()))
        notes.append(
            f"{prefix or 'Here '}raw is best at {best} of {{{grid}}}, {'as' if agrees else 'not as'} in the "
            "thesis. The optimum moves with the sum of learning rate × weight decay, so it does not count."
        )
    status = _conjunction(statuses)
    lack = "" if status != "undetermined" else _undetermined(effects, [0.0, margin] * len(verdicts))
    return Claim("C3", text, thesis, status, " ".join([lack, *notes]).strip(), effects)


def claim_multi_task(study: Study, margin: float, *, pretrained: bool) -> Claim:
    """C4 (raw): multi-task training helps both tasks by a large gap. C5 (pre-trained): it does not help."""
    name = "C5" if pretrained else "C4"
    text, thesis = (
        (
            "Multi-task training does not help pre-trained.",
            "SUNet-64: semseg −1 point, parts +1.5 (read off Figure 6.3); parts were misaligned",
        )
        if pretrained
        else (
            "Multi-task training helps raw on both tasks, by a large gap.",
            "SUNet-64: semseg +9 points, parts +7.5 (read off Figures 6.2, 6.3); parts were misaligned",
        )
    )
    effects = []
    for task in study.tasks:
        for context in contexts(study, task):
            effect = _multi_task_effect(study, context, pretrained=pretrained)
            if effect is not None:
                effects.append(effect)
    if not effects:
        arm = "pre-trained" if pretrained else "raw"
        return Claim(name, text, thesis, "undetermined", f"This study has no {arm} arm trained both ways.")
    helps = [_above(effect.interval, margin) for effect in effects]
    if not pretrained:
        status = _conjunction(helps)
    elif "supported" in helps:
        status = "contradicted"
    else:
        status = "supported" if all(status == "contradicted" for status in helps) else "undetermined"
    threshold = f"“Helps” means by more than the margin of {points(margin)}."
    thresholds = [margin] * len(effects)
    lack = (
        " " + _undetermined(effects, thresholds, claimed_above=not pretrained)
        if status == "undetermined"
        else ""
    )
    return Claim(name, text, thesis, status, threshold + lack, effects)


def _arm_effect(study: Study, context: Context, split: str, *, sign: int) -> Effect:
    values = sign * final_values(study, context, study.column(context.task, split, "miou"))
    pre = context.pretrained
    found = paired_difference(context, values, pre, ~pre, context.strategies)
    what = "pre-trained − raw, validation" if sign > 0 else "raw − pre-trained, training"
    prefix = f"{context.label}: " if context.label else ""
    return Effect(f"{prefix}{what}, mean over shared settings", mean_interval(found.to_numpy()))


def _multi_task_effect(study: Study, context: Context, *, pretrained: bool) -> Effect | None:
    if "tasks" not in context.strategies:
        return None
    of_arm = context.pretrained == pretrained
    multi = context.trials["tasks"].str.contains("+", regex=False)
    if not ((of_arm & multi).any() and (of_arm & ~multi).any()):
        return None
    values = final_values(study, context)
    keys = [axis for axis in context.strategies if axis != "tasks"]
    found = paired_difference(context, values, of_arm & multi, of_arm & ~multi, keys)
    prefix = f"{context.label}: " if context.label else ""
    arm = "pre-trained" if pretrained else "raw"
    return Effect(f"{prefix}{context.task}: multi-task − single-task, {arm}", mean_interval(found.to_numpy()))


def _only_axis(context: Context, axis: str) -> Context:
    """The context with every other strategy at the reference's value."""
    reference = {axis: context.reference[axis]}
    return Context(context.task, context.fixed, reference, context.trials[context.at_reference(but=(axis,))])


def _above(interval: Interval, threshold: float) -> Status:
    if interval.above(threshold):
        return "supported"
    return "contradicted" if interval.below(threshold) else "undetermined"


def _conjunction(parts: Sequence[Status]) -> Status:
    if "contradicted" in parts:
        return "contradicted"
    return "supported" if parts and all(part == "supported" for part in parts) else "undetermined"


def _all_positive(effects: Sequence[Effect]) -> tuple[Status, str]:
    parts = [_above(effect.interval, 0.0) for effect in effects]
    status = _conjunction(parts)
    if {"supported", "contradicted"} <= set(parts):
        held = f"{parts.count('supported')} of {len(parts)}"
        return status, f"It holds in {held} contexts and is reversed in others."
    return status, _undetermined(effects, [0.0] * len(effects)) if status == "undetermined" else ""


def _undetermined(
    effects: Sequence[Effect], thresholds: Sequence[float], *, claimed_above: bool = True
) -> str:
    """Why intervals do not decide, and which way the estimates point.

    Args:
        claimed_above: whether the claim puts the effects above their thresholds, or below.
    """
    known = [
        (effect.interval.estimate > threshold) is claimed_above
        for effect, threshold in zip(effects, thresholds, strict=True)
        if effect.interval.estimate is not None
    ]
    if not known:
        return "No pair of completed trials to compare."
    way = "The estimates point both ways"
    if len(set(known)) == 1:
        way = "The estimate points" if len(known) == 1 else "The estimates point"
        way += " the thesis's way" if known[0] else " against the thesis"
    few = [effect.interval.n for effect in effects if not effect.interval.known]
    if few:
        n = int(np.min(few))
        return f"{way}, but {'one seed allows' if n == 1 else f'{count_seeds(n)} allow'} no interval."
    return f"{way}, but an interval contains the threshold."
