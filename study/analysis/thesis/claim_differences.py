"""The differences that the thesis's claims C1–C5 are about, on the user's own trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from segstrat.config import REGULARIZERS
from segstrat.formatting import format_value
from study.analysis.contrasts import contrasts
from study.analysis.scores import final_values
from study.analysis.study import Context, Study
from study.analysis.thesis.claim_effects import Effect, make_effect, paired_difference
from study.analysis.thesis.claims import Claim
from study.analysis.verdict import Cause, Label, Verdict, incomplete
from study.analysis.words.phrases import points

THESIS_DECAYS = (0.0, 1e-4, 5e-4, 1e-3)
THESIS_BEST_DECAY = 5e-4
# The thesis found 9 and 7.5 points and called that a large gap.
LARGE = 0.05


def thesis_claims(study: Study, verdicts: Mapping[str, Sequence[Verdict]], margin: float) -> list[Claim]:
    """C1–C5 with their effects; see `study.analysis.thesis.claims.judge_claims` for their status.

    Args:
        verdicts: by task, of every context; the primary task first.
    """
    primary = next(iter(verdicts.values()), [])
    every = [verdict for of_task in verdicts.values() for verdict in of_task]
    return [
        _raw_trains_better(study, primary),
        _pretrained_validates_better(study, primary),
        _weight_decay_helps(study, primary, margin),
        _multi_task_helps_raw(study, every, margin),
        _multi_task_does_not_help_pretrained(study, every, margin),
    ]


def blocking_reason(context: Context, cause: Cause | None = None) -> str:
    """Why nothing is concluded in a context; empty where something may be.

    Args:
        cause: of the context's verdict.
    """
    if cause in (Cause.RAW_NOT_LEARNED, Cause.PRETRAINED_NOT_LEARNED):
        return f"Nothing is concluded: {cause} here."
    if cause in (Cause.SCREENING, Cause.MORE_SEEDS):
        return f"Nothing is concluded yet: {cause}."
    if incomplete(context) is Cause.STOPPED:
        return "Nothing is concluded: trials were stopped early."
    if incomplete(context) is Cause.UNFINISHED:
        return "Nothing is concluded yet: trials have not finished."
    return ""


def training_score_problem(trials: pd.DataFrame) -> str:
    """Why training scores of these trials are not comparable; empty if they are.

    Training scores are taken while training: dropped units and branches lower them.
    """
    for axis in ("dropout", "stochastic_depth"):
        if axis in trials and (trials[axis].astype(float) > 0).any():
            return f"Nothing is concluded: training scores were taken with {axis.replace('_', ' ')} on."
    return ""


def _raw_trains_better(study: Study, verdicts: Sequence[Verdict]) -> Claim:
    effects = [_arm_effect(study, verdict, "train", sign=-1) for verdict in verdicts]
    return Claim(
        "C1",
        "Raw trains better than pre-trained: higher training mIoU.",
        "ResNet-18 +3.7 to +7.5 points (Table 1.2), VGG-16 +3.7, AlexNet −2.6 (Table 1.1)",
        [effect for effect in effects if effect is not None],
        "" if any(effects) else _no_thesis_cell(),
        "Training scores are those of augmented crops while training.",
    )


def _pretrained_validates_better(study: Study, verdicts: Sequence[Verdict]) -> Claim:
    effects = [_arm_effect(study, verdict, "val", sign=1) for verdict in verdicts]
    return Claim(
        "C2",
        "Pre-trained validates better than raw: higher validation mIoU.",
        "ResNet-18 +6.0 to +9.2 points (Table 1.2), VGG-16 +12.5, AlexNet +7.3 (Table 1.1)",
        [effect for effect in effects if effect is not None],
        "" if any(effects) else _no_thesis_cell(),
    )


def _no_thesis_cell() -> str:
    decays = ", ".join(format_value(decay) for decay in THESIS_DECAYS)
    return f"This study has no trial with a weight decay of the thesis ({decays}) and no other regularizer."


def _weight_decay_helps(study: Study, verdicts: Sequence[Verdict], margin: float) -> Claim:
    claim = "Weight decay helps raw, is best at 5e-4, and does not close the gap to pre-trained."
    thesis = "38.0 → 41.1 at 5e-4, pre-trained 47.4 at its best (Table 1.2)"
    if "weight_decay" not in study.axes("treatment"):
        return Claim("C3", claim, thesis, lacking="This study does not vary weight decay.")
    effects, notes = [], []
    for verdict in verdicts:
        effects += _weight_decay_effects(study, verdict, margin)
        notes.append(_best_decay_note(verdict))
    return Claim("C3", claim, thesis, effects, note=" ".join(note for note in notes if note))


def _weight_decay_effects(study: Study, verdict: Verdict, margin: float) -> list[Effect]:
    context = _only_axis(verdict.context, "weight_decay")
    prefix = _prefix(context)
    names = (f"{prefix}best weight decay − none, raw", f"{prefix}best pre-trained − best weight decay, raw")
    blocked = blocking_reason(context, verdict.cause)
    if verdict.label is Label.CLOSES:
        blocked = "The verdict is that the gap closes."
    if verdict.look is not None:
        # Intervals that are valid over all looks.
        look = verdict.look
        return [
            Effect(names[0], look.improvement, p=None, blocked=blocked),
            Effect(names[1], look.remaining, margin, p=None, blocked=blocked),
        ]
    found = contrasts(study, context)
    return [
        make_effect(
            name,
            found.differences[contrast],
            threshold=threshold,
            variance_factor=found.variance_factors[contrast],
            blocked=blocked,
        )
        for name, contrast, threshold in zip(names, ("improvement", "remaining"), (0.0, margin), strict=True)
    ]


def _best_decay_note(verdict: Verdict) -> str:
    """At which weight decay raw is best on average, none included."""
    context = _only_axis(verdict.context, "weight_decay")
    settings = context.settings[~context.pretrained]
    means = verdict.contrasts.raw.values.mean().dropna()
    decays = context.trials.loc[settings.index].drop_duplicates("weight_decay")
    labels = verdict.context.settings.loc[decays.index]
    known = {
        float(decay): float(means[label])
        for decay, label in zip(decays["weight_decay"], labels, strict=True)
        if label in means.index
    }
    if len(known) < 2:
        return ""
    best = max(known, key=lambda decay: known[decay])
    grid = ", ".join(format_value(decay) for decay in sorted(known))
    where = _prefix(context) or "Here "
    at = "without weight decay" if best == 0 else f"at weight decay {format_value(best)}"
    agrees = "as" if best == THESIS_BEST_DECAY else "not as"
    return (
        f"{where}raw's highest mean over the seeds is {at} of {{{grid}}}, {agrees} in the thesis. The "
        "optimum moves with the sum of learning rate × weight decay, so it does not count."
    )


def _multi_task_helps_raw(study: Study, verdicts: Sequence[Verdict], margin: float) -> Claim:
    effects = _multi_task_effects(study, verdicts, LARGE, pretrained=False)
    helped = [effect.what for effect in effects if effect.interval.above(margin)]
    note = f"“Large” means more than {points(LARGE)}; the thesis found 9 and 7.5."
    if helped:
        note += f" It helps by more than the margin of {points(margin)} in {len(helped)} of {len(effects)}."
    return Claim(
        "C4",
        "Multi-task training helps raw on both tasks, by a large gap.",
        "SUNet-64: semseg +9 points, parts +7.5 (read off Figures 6.2, 6.3); parts were misaligned",
        effects,
        "" if effects else "This study has no raw arm trained both ways.",
        note,
    )


def _multi_task_does_not_help_pretrained(study: Study, verdicts: Sequence[Verdict], margin: float) -> Claim:
    effects = _multi_task_effects(study, verdicts, margin, pretrained=True)
    return Claim(
        "C5",
        "Multi-task training does not help pre-trained.",
        "SUNet-64: semseg −1 point, parts +1.5 (read off Figure 6.3); parts were misaligned",
        effects,
        "" if effects else "This study has no pre-trained arm trained both ways.",
        f"“Helps” means by more than the margin of {points(margin)}.",
    )


def _multi_task_effects(
    study: Study, verdicts: Sequence[Verdict], threshold: float, *, pretrained: bool
) -> list[Effect]:
    effects = []
    for verdict in verdicts:
        context = verdict.context
        of_arm = context.pretrained == pretrained
        multi = context.trials["tasks"].str.contains("+", regex=False)
        if "tasks" not in context.strategies or not ((of_arm & multi).any() and (of_arm & ~multi).any()):
            continue
        keys = [axis for axis in context.strategies if axis != "tasks"]
        values = final_values(study, context)
        arm = "pre-trained" if pretrained else "raw"
        effects.append(
            make_effect(
                f"{_prefix(context)}{context.task}: multi-task − single-task, {arm}",
                paired_difference(context, values, of_arm & multi, of_arm & ~multi, keys),
                threshold=threshold,
                claimed_above=not pretrained,
                blocked=blocking_reason(context, verdict.cause),
            )
        )
    return effects


def _arm_effect(study: Study, verdict: Verdict, split: str, *, sign: int) -> Effect | None:
    """Raw against pre-trained on the thesis's grid; None where the context has no cell of it."""
    context = thesis_grid(verdict.context)
    if context.trials.empty:
        return None
    values = sign * final_values(study, context, study.column(context.task, split, "miou"))
    found = paired_difference(context, values, context.pretrained, ~context.pretrained, context.strategies)
    what = "pre-trained − raw, validation" if sign > 0 else "raw − pre-trained, training"
    arms = [context.trials[context.pretrained == arm] for arm in (False, True)]
    decays = sorted(set(arms[0]["weight_decay"].astype(float)) & set(arms[1]["weight_decay"].astype(float)))
    grid = f", weight decay {', '.join(format_value(decay) for decay in decays)}" if len(decays) > 1 else ""
    blocked = blocking_reason(context, verdict.cause)
    if split == "train":
        blocked = blocked or training_score_problem(context.trials)
    return make_effect(f"{_prefix(context)}{what}{grid}", found, blocked=blocked)


def thesis_grid(context: Context) -> Context:
    """The cells of the thesis's Table 1.2: its weight decays, single-task, no other varied regularizer."""
    keep = context.at_reference(but=("weight_decay",))
    if "weight_decay" in context.strategies:
        keep &= context.trials["weight_decay"].astype(float).isin(THESIS_DECAYS)
    for axis in REGULARIZERS:
        if axis not in (*context.strategies, "weight_decay") and axis in context.trials:
            keep &= context.trials[axis].astype(float) == 0
    return replace(context, trials=context.trials[keep])


def _only_axis(context: Context, axis: str) -> Context:
    """The context with every other strategy at the reference's value."""
    kept = context.trials[context.at_reference(but=(axis,))]
    return replace(context, reference={axis: context.reference[axis]}, trials=kept)


def _prefix(context: Context) -> str:
    return f"{context.label}: " if context.label else ""
