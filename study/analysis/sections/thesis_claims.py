"""Claims C1–C5 and hypothesis H2 of W. Dai's thesis (UCL 2018), each judged on the user's own trials.

A claim is `supported` or `contradicted` only by p-values, adjusted by Holm's method (1979) over the effects
of all claims and contexts; the intervals next to them are not adjusted. Nothing is judged on trials that were
stopped or have not finished, nor where the verdict says that an arm did not learn.

H2 asks whether the effect of pre-training is initialization or regularization. By the logic of thesis §5.2,
both arms at the reference's setting: pre-trained ahead on training and validation data means initialization.
Ahead on validation but behind on training data means (also) regularization, provided that nothing else lowers
its training score: the pre-trained part must learn at the full rate, and both arms must train equally long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from segstrat.config import OWN_DATA, REGULARIZERS
from segstrat.formatting import format_value
from segstrat.scores import MIOU
from study.analysis.answering.decision import Cause, Label
from study.analysis.answering.stages import planned_looks
from study.analysis.cells import at_tuned_values
from study.analysis.contrasts import contrasts
from study.analysis.intervals import MIN_SEEDS, Interval, mean_interval
from study.analysis.phrases import points, start_sentence, with_interval
from study.analysis.scores import final_values
from study.analysis.sections.factorial_fit import holm
from study.analysis.study import Context, Study
from study.analysis.verdict import Verdict, incomplete

SIGNIFICANT = 0.05
THESIS_DECAYS = (0.0, 1e-4, 5e-4, 1e-3)
THESIS_BEST_DECAY = 5e-4
# Σ learning rate × weight decay over all updates at that weight decay: 300 epochs of the 5,291 images of half
# of D1 by tens, at a mean rate of 2.5e-3.
THESIS_BEST_SUM = 0.2
# The thesis found 9 and 7.5 points and called that a large gap.
LARGE = 0.05


@dataclass(frozen=True)
class Effect:
    """A difference in shares of mIoU that a claim is about.

    Args:
        threshold: the claim says on which side of it the difference is.
        claimed_above: whether the claim puts the difference above the threshold, or below.
        p: two-sided, that the difference is the threshold; NaN where there are too few seeds. None where
            `interval` is valid over all looks of a sequential study and decides by itself.
        adjusted_p: the same, adjusted for the number of effects.
        blocked: why nothing is concluded whatever the numbers are; empty if nothing stands in the way.
    """

    what: str
    interval: Interval
    threshold: float = 0.0
    claimed_above: bool = True
    p: float | None = math.nan
    adjusted_p: float = math.nan
    blocked: str = ""

    @property
    def estimated_as_claimed(self) -> bool:
        """Whether the estimate is on the claimed side."""
        estimate = self.interval.estimate
        return estimate is not None and (estimate > self.threshold) is self.claimed_above

    @property
    def side(self) -> Literal["claimed", "reversed", ""]:
        """On which side of the threshold the difference is shown to be; empty if on neither."""
        if self.blocked:
            return ""
        if self.p is None:
            shown = self.interval.above(self.threshold) or self.interval.below(self.threshold)
        else:
            shown = self.adjusted_p < SIGNIFICANT
        if not shown:
            return ""
        return "claimed" if self.estimated_as_claimed else "reversed"


class Status(StrEnum):
    """What the trials say to a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Claim:
    """A claim with what the user's trials say to it.

    Args:
        claim: the claim, as the thesis means it.
        thesis: what the thesis found, with its numbers.
        effects: the differences that the claim is about; each must be on its claimed side.
        lacking: why the study does not address the claim; empty if it does.
        note: what else a reader should know, in a sentence or two.
    """

    name: str
    claim: str
    thesis: str
    effects: Sequence[Effect] = ()
    lacking: str = ""
    note: str = ""
    status: Status = Status.UNDETERMINED

    @property
    def reason(self) -> str:
        """Why this status, in a sentence or two."""
        if self.lacking:
            return self.lacking
        why = _why_undetermined(self.effects) if self.status is Status.UNDETERMINED else ""
        sides = {effect.side for effect in self.effects if effect.side}
        if len(sides) > 1 and self.status is Status.CONTRADICTED:
            held = sum(effect.side == "claimed" for effect in self.effects)
            why = f"{held} of {len(self.effects)} effects are as claimed, others are reversed."
        return " ".join(part for part in (why, self.note) if part)

    def to_dict(self) -> dict[str, Any]:
        """As `verdict.json` holds it."""
        return {
            "name": self.name,
            "claim": self.claim,
            "status": self.status,
            "reason": self.reason,
            "effects": [
                {"what": effect.what, "threshold": effect.threshold, "adjusted_p": effect.adjusted_p}
                | asdict(effect.interval)
                for effect in self.effects
            ],
        }


@dataclass(frozen=True)
class Mechanism:
    """H2: what pre-training does.

    Args:
        label: `initialization`, `regularization`, `both` or `undetermined`.
        context: label of the context; empty where the study has one.
        training, validation: what pre-trained gains over raw, both at the reference's setting.
    """

    label: str
    reason: str
    context: str
    training: Interval
    validation: Interval

    def to_dict(self) -> dict[str, Any]:
        """As `verdict.json` holds it."""
        return {
            "context": self.context,
            "mechanism": self.label,
            "reason": self.reason,
            "training": asdict(self.training),
            "validation": asdict(self.validation),
        }


def thesis_claims(study: Study, verdicts: Mapping[str, Sequence[Verdict]], margin: float) -> list[Claim]:
    """C1–C5 with their status; empty where nothing can be compared, and where they are not meant.

    Args:
        verdicts: by task, of every context; the primary task first.
    """
    settled = [_at_tuned_values(study, of_task) for of_task in verdicts.values()]
    primary = settled[0] if settled else []
    # The thesis's claims are not about a user's own images, unless the space says so, nor other scores.
    own = OWN_DATA in study.protocols and not study.manifest.get("claims")
    if not primary or own or study.metric.score != MIOU:
        return []
    every = [verdict for of_task in settled for verdict in of_task]
    claims = [
        *_arm_claims(study, primary),
        _weight_decay_helps(study, primary, margin),
        *_multi_task_claims(study, every, margin),
    ]
    return judge_claims(claims, planned_looks(study))


def _at_tuned_values(study: Study, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Claims and H2 compare settings, each at its tuned value."""
    return [replace(verdict, context=at_tuned_values(study, verdict.context)) for verdict in verdicts]


def judge_claims(claims: Sequence[Claim], looks: int = 1) -> list[Claim]:
    """Gives every claim its status, with Holm's adjustment over all effects of all claims.

    Args:
        looks: see `adjust`.
    """
    effects = adjust([effect for claim in claims for effect in claim.effects], looks)
    judged = []
    for claim in claims:
        decided, effects = effects[: len(claim.effects)], effects[len(claim.effects) :]
        judged.append(replace(claim, effects=decided, status=_status(decided)))
    return judged


def adjust(effects: Sequence[Effect], looks: int = 1) -> list[Effect]:
    """The effects with p-values adjusted for their number; blocked effects are not tested.

    Args:
        looks: planned looks, by which p-values are multiplied (Bonferroni). When a sequential study ends
            follows from what its seeds show, so a p-value that takes their number as fixed is too small.
    """
    tested = [
        math.nan if effect.blocked or effect.p is None else min(1.0, effect.p * looks) for effect in effects
    ]
    return [replace(effect, adjusted_p=float(p)) for effect, p in zip(effects, holm(tested), strict=True)]


def _status(effects: Sequence[Effect]) -> Status:
    sides = [effect.side for effect in effects]
    if "reversed" in sides:
        return Status.CONTRADICTED
    if sides and all(side == "claimed" for side in sides):
        return Status.SUPPORTED
    return Status.UNDETERMINED


def _why_undetermined(effects: Sequence[Effect]) -> str:
    blocked = next((effect.blocked for effect in effects if effect.blocked), "")
    if blocked:
        return blocked
    known = [effect.estimated_as_claimed for effect in effects if effect.interval.estimate is not None]
    if not known:
        return "No pair of completed trials to compare."
    way = "The estimates point both ways"
    if len(set(known)) == 1:
        way = "The estimate points" if len(known) == 1 else "The estimates point"
        way += " the thesis's way" if known[0] else " against the thesis"
    few = [effect.interval.n for effect in effects if not effect.interval.known]
    if few:
        n = min(few)
        return f"{way}, but {'one seed is' if n == 1 else f'{n} seeds are'} too few for an interval."
    return f"{way}, but not beyond what chance explains (p-values adjusted over all claims and contexts)."


def _arm_claims(study: Study, verdicts: Sequence[Verdict]) -> list[Claim]:
    """C1 and C2: which arm is ahead on training and which on validation data."""
    facts = (
        (
            "C1",
            "Raw trains better than pre-trained: higher training mIoU.",
            "ResNet-18 +3.7 to +7.5 points (Table 1.2), VGG-16 +3.7, AlexNet −2.6 (Table 1.1)",
            "train",
            " ".join(dict.fromkeys(study.training_words(verdict.context.task) for verdict in verdicts)),
        ),
        (
            "C2",
            "Pre-trained validates better than raw: higher validation mIoU.",
            "ResNet-18 +6.0 to +9.2 points (Table 1.2), VGG-16 +12.5, AlexNet +7.3 (Table 1.1)",
            "val",
            "",
        ),
    )
    decays = ", ".join(format_value(decay) for decay in THESIS_DECAYS)
    none = f"This study has no trial with a weight decay of the thesis ({decays}) and no other regularizer."
    claims = []
    for name, claim, thesis, split, note in facts:
        found = [_arm_effect(study, verdict, split) for verdict in verdicts]
        effects = [effect for effect in found if effect is not None]
        claims.append(Claim(name, claim, thesis, effects, "" if effects else none, note))
    return claims


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
    blocked = _blocking_reason(context, verdict.cause)
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
        _make_effect(
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
    sums = _decay_sums(decays.set_index("weight_decay"))
    here = (
        f"{', '.join(f'{sums[decay]:.2g}' for decay in sorted(known))} here, "
        if len(sums) == len(known)
        else ""
    )
    return (
        f"{where}raw's highest mean over the seeds is {at} of {{{grid}}}; in the thesis at "
        f"{format_value(THESIS_BEST_DECAY)}. The optimum moves with the sum of learning rate × weight decay "
        f"over all updates ({here}{THESIS_BEST_SUM:g} at the thesis's best), so the value does not count."
    )


def _decay_sums(trials: pd.DataFrame) -> dict[float, float]:
    """Σ learning rate × weight decay over all updates, about the logarithm of how far a weight is shrunk.

    Args:
        trials: one per weight decay, which is the index; with the rate at the start of a half cosine.

    Returns:
        by weight decay; without trials of which the frame does not know enough.
    """
    needed = ["learning_rate", "batch_size", "train_images", "epochs_budget"]
    if not set(needed) <= set(trials.columns):
        return {}
    known = trials[needed].astype(float).dropna()
    updates = known["epochs_budget"] * np.ceil(known["train_images"] / known["batch_size"])
    sums = updates * known["learning_rate"] / 2 * known.index.to_numpy(float)
    return {float(decay): float(total) for decay, total in sums.items()}


def _multi_task_claims(study: Study, verdicts: Sequence[Verdict], margin: float) -> list[Claim]:
    """C4 and C5: what multi-task training gives each arm."""
    raw = _multi_task_effects(study, verdicts, LARGE, pretrained=False)
    pretrained = _multi_task_effects(study, verdicts, margin, pretrained=True)
    helped = sum(effect.interval.above(margin) for effect in raw)
    note = f"“Large” means more than {points(LARGE)}; the thesis found 9 and 7.5."
    if helped:
        note += f" It helps by more than the margin of {points(margin)} in {helped} of {len(raw)}."
    return [
        Claim(
            "C4",
            "Multi-task training helps raw on both tasks, by a large gap.",
            "SUNet-64: semseg +9 points, parts +7.5 (read off Figures 6.2, 6.3); parts were misaligned",
            raw,
            "" if raw else "This study has no raw arm trained both ways.",
            note,
        ),
        Claim(
            "C5",
            "Multi-task training does not help pre-trained.",
            "SUNet-64: semseg −1 point, parts +1.5 (read off Figure 6.3); parts were misaligned",
            pretrained,
            "" if pretrained else "This study has no pre-trained arm trained both ways.",
            f"“Helps” means by more than the margin of {points(margin)}.",
        ),
    ]


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
            _make_effect(
                f"{_prefix(context)}{context.task}: multi-task − single-task, {arm}",
                _paired_difference(context, values, of_arm & multi, of_arm & ~multi, keys),
                threshold=threshold,
                claimed_above=not pretrained,
                blocked=_blocking_reason(context, verdict.cause),
            )
        )
    return effects


def _arm_effect(study: Study, verdict: Verdict, split: str) -> Effect | None:
    """Raw against pre-trained on the thesis's grid; None where the context has no cell of it."""
    sign = -1 if split == "train" else 1
    scored = study.training_split(verdict.context.task) if split == "train" else split
    context = _thesis_grid(verdict.context)
    if context.trials.empty:
        return None
    values = sign * final_values(study, context, study.column(context.task, scored, "miou"))
    found = _paired_difference(context, values, context.pretrained, ~context.pretrained, context.strategies)
    what = "pre-trained − raw, validation" if sign > 0 else "raw − pre-trained, training"
    arms = [context.trials[context.pretrained == arm] for arm in (False, True)]
    decays = sorted(set(arms[0]["weight_decay"].astype(float)) & set(arms[1]["weight_decay"].astype(float)))
    grid = f", weight decay {', '.join(format_value(decay) for decay in decays)}" if len(decays) > 1 else ""
    blocked = _blocking_reason(context, verdict.cause)
    if scored == "train":
        blocked = blocked or _training_score_problem(context.trials)
    return _make_effect(f"{_prefix(context)}{what}{grid}", found, blocked=blocked)


def _thesis_grid(context: Context) -> Context:
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


def mechanisms(study: Study, verdicts: Mapping[str, Sequence[Verdict]], margin: float) -> list[Mechanism]:
    """H2 in every context of the primary task.

    p-values are adjusted over all looks and, by Holm's method, over all contexts.

    Args:
        verdicts: by task, of every context; the primary task first.
    """
    primary = _at_tuned_values(study, next(iter(verdicts.values()), []))
    effects = [_gain(study, verdict, split) for verdict in primary for split in ("train", "val")]
    effects = adjust(effects, planned_looks(study))
    pairs = zip(effects[::2], effects[1::2], strict=True)
    return [_mechanism(verdict, *pair, margin) for verdict, pair in zip(primary, pairs, strict=True)]


def _gain(study: Study, verdict: Verdict, split: str) -> Effect:
    """What pre-trained gains over raw at the reference's setting."""
    context = verdict.context
    plain, pretrained = context.at_reference(), context.pretrained
    scored = study.training_split(context.task) if split == "train" else split
    values = final_values(study, context, study.column(context.task, scored, "miou"))
    found = _paired_difference(context, values, pretrained & plain, ~pretrained & plain, [])
    blocked = _blocking_reason(context, verdict.cause)
    if scored == "train":
        blocked = blocked or _training_score_problem(context.trials[plain])
    return _make_effect(split, found, blocked=blocked)


def _mechanism(verdict: Verdict, training: Effect, validation: Effect, margin: float) -> Mechanism:
    label, why = _label(verdict, training, validation, margin)
    text = f"{start_sentence(why)}."
    if validation.interval.estimate is not None and training.interval.estimate is not None:
        text = (
            f"{start_sentence(why)}: at the reference's setting pre-trained gains "
            f"{with_interval(validation.interval)} on validation and {with_interval(training.interval)} on "
            "training data."
        )
    return Mechanism(label, text, verdict.context.label, training.interval, validation.interval)


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


def _blocking_reason(context: Context, cause: Cause) -> str:
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


def _training_score_problem(trials: pd.DataFrame) -> str:
    """Why training scores of these trials are not comparable; empty if they are.

    Training scores are taken while training: dropped units and branches lower them.
    """
    for axis in ("dropout", "stochastic_depth"):
        if axis in trials and (trials[axis].astype(float) > 0).any():
            return f"Nothing is concluded: training scores were taken with {axis.replace('_', ' ')} on."
    return ""


def _make_effect(
    what: str,
    differences: pd.Series,
    *,
    threshold: float = 0.0,
    claimed_above: bool = True,
    variance_factor: float = 1.0,
    blocked: str = "",
) -> Effect:
    """The effect of paired differences, one per seed."""
    values = differences.to_numpy(float)
    return Effect(
        what,
        mean_interval(values, variance_factor=variance_factor),
        threshold,
        claimed_above,
        p_value(values, threshold, variance_factor),
        blocked=blocked,
    )


def p_value(values: np.ndarray, threshold: float, variance_factor: float = 1.0) -> float:
    """Two-sided p-value of Student's t that the mean is the threshold; NaN for too few seeds or no spread."""
    x = values[np.isfinite(values)]
    n = len(x)
    if n < MIN_SEEDS or not x.std() > 1e-12:
        return math.nan
    error = math.sqrt(variance_factor / n) * float(x.std(ddof=1))
    return float(2 * stats.t.sf(abs(float(x.mean()) - threshold) / error, n - 1))


def _paired_difference(
    context: Context, values: pd.Series, left: pd.Series, right: pd.Series, keys: Sequence[str]
) -> pd.Series:
    """Left minus right, averaged within each seed over the cells that both have a value for.

    Args:
        values: one value per trial, NaN where it has no final one.
        left, right: masks of the two groups of trials.
        keys: axes on which the two must agree.

    Returns:
        one difference per seed, indexed by seed; empty where no cell has both.
    """
    frame = context.trials.assign(value=values)
    index = ["seed", *keys]
    sides = [frame[mask & frame["value"].notna()].set_index(index)["value"] for mask in (left, right)]
    if any(side.empty for side in sides):
        return pd.Series(dtype=float)
    difference = (sides[0] - sides[1]).dropna()
    return difference.groupby(level="seed").mean() if keys else difference
