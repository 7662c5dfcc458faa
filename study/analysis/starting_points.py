"""What a study with three starting points says: raw, self-supervised on one's own images, and given weights.

Each two of them are compared as raw and pre-trained are in any other study (`Study.pairings`), with the error
shared among the comparisons (Bonferroni), so that what is concluded from several of them holds with 95 % too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segstrat.config import GIVEN, RAW, SELF
from segstrat.formatting import format_duration, join_words
from study.analysis.answering.decision import Label
from study.analysis.phrases import count_seeds, points, start_sentence, with_interval
from study.analysis.study import Study
from study.analysis.verdict import Verdict
from study.analysis.verdict_sentences import reason, setting_words, stand_ins
from study.frame.build import START_WORDS

# With these labels the first of two starting points is as good as the second one, or better.
ENOUGH = (Label.CLOSES, Label.NOT_NEEDED, Label.HURTS)
NOT_ENOUGH = (Label.NARROWS, Label.DOES_NOT_CLOSE)


@dataclass(frozen=True)
class Comparisons:
    """The three verdicts of one context: what self-supervision gives, and what given weights do."""

    given_to_raw: Verdict
    self_to_raw: Verdict
    given_to_self: Verdict

    @property
    def label(self) -> Label:
        """Whether regularization or one's own images stand in for the given weights."""
        regularized, own = self.given_to_raw.label, self.given_to_self.label
        if regularized in ENOUGH:
            return regularized
        if own in ENOUGH:
            return Label.CLOSES
        if Label.NARROWS in (regularized, own) or (own in NOT_ENOUGH and self._self_helps):
            return Label.NARROWS
        return Label.DOES_NOT_CLOSE if regularized == own == Label.DOES_NOT_CLOSE else Label.UNDETERMINED

    @property
    def _self_helps(self) -> bool:
        verdict = self.self_to_raw
        return verdict.label in NOT_ENOUGH and verdict.contrasts.gap.above(verdict.margin)

    def opening(self, means: str) -> str:
        """The answer for somebody who must choose a starting point."""
        regularized, own, gain = self.given_to_raw, self.given_to_self, self.self_to_raw
        if regularized.label in (Label.NOT_NEEDED, Label.HURTS):
            if gain.label in (Label.NOT_NEEDED, Label.HURTS):
                return (
                    "Nothing helps here: neither given weights nor your own images add more than the margin"
                )
            return "Given weights are not needed here: they help raw by less than the margin"
        if regularized.label is Label.CLOSES:
            return f"Yes: {means} alone is enough here; raw ends as high as with given weights"
        if own.label in ENOUGH:
            return "Yes: your own images are enough here; given weights add less than the margin to them"
        left = own.contrasts.gap if own.contrasts.gap_alone else own.contrasts.remaining
        added = points(left.estimate)
        if own.label in NOT_ENOUGH and self._self_helps:
            gained = points(gain.contrasts.gap.estimate)
            return f"In part: your own images add {gained} to raw here, and given weights add {added} to that"
        if self.label is Label.NARROWS:
            return f"In part: given weights still add {added} to your own images here"
        if self.label is Label.DOES_NOT_CLOSE:
            return f"No: given weights add {added} to your own images here"
        stand_ins = f"{means} or your own images" if means else "your own images"
        return f"Undetermined: whether {stand_ins} can stand in for given weights here"

    @property
    def numbers(self) -> str:
        """Mean scores of the best setting of each starting point, of the comparison that has it."""
        first, second = self.given_to_raw, self.given_to_self
        scores = {
            GIVEN: first.contrasts.best_pretrained,
            SELF: second.contrasts.best_raw,
            RAW: first.contrasts.best_raw,
        }
        references = {SELF: second.contrasts.chosen_reference, RAW: first.contrasts.chosen_reference}
        words = []
        for start, best in scores.items():
            able = [each for each in (best, references.get(start)) if each and each.value.notna().any()]
            if able:
                chosen = max(able, key=lambda each: each.value.mean())
                setting = f" ({chosen.usual})" if first.context.strategies else ""
                words.append(f"{START_WORDS[start]} {chosen.value.mean():.3f}{setting}")
        found = [each.contrasts for each in (first, second)]
        seeds = count_seeds(min((each.gap if each.gap_alone else each.remaining).n for each in found))
        best_settings = "of the best settings, " if first.context.strategies else ""
        return f"Mean {first.score_name} {best_settings}of {seeds} or more: {', '.join(words)}."

    @property
    def differences(self) -> str:
        """Each comparison in a sentence, with the reason where it is open."""
        compared = (self.self_to_raw, self.given_to_self, self.given_to_raw)
        words = " ".join(map(_difference, compared))
        if not any(verdict.contrasts.gap.known for verdict in compared):
            return words
        error = sum(1 - verdict.contrasts.gap.confidence for verdict in compared)
        return f"{words} All intervals together hold with {100 * (1 - error):.3g} %."

    def cost(self, study: Study) -> str:
        """What self-supervision takes, in all and for each point that it gains; '' where that is unknown."""
        verdict = self.self_to_raw
        trials = verdict.context.trials
        own = trials[trials["initialization"] == SELF]
        seconds = study.self_seconds(own).dropna()
        training = trials.loc[trials["initialization"] == RAW, "seconds"].mean()
        if seconds.empty or not training > 0:
            return ""
        each = float(seconds.mean())
        words = (
            f"Self-supervision takes {format_duration(each)} per seed, {each / training:.1f} times a raw "
            "training"
        )
        gain = verdict.contrasts.gap
        if not gain.above(0) or gain.estimate is None:
            return f"{words}."
        return (
            f"{words}: {format_duration(each / (100 * gain.estimate))} for each point that it gains on raw."
        )


def _difference(verdict: Verdict) -> str:
    context, found = verdict.context, verdict.contrasts
    name = start_sentence(f"{context.pretrained_name} against {context.raw_name}")
    if verdict.label is Label.UNDETERMINED:
        return f"{name}: undetermined. {reason(verdict)}"
    if found.gap_alone:
        return f"{name}: {with_interval(found.gap, verdict.margin)}."
    gap, remaining = (with_interval(each, verdict.margin) for each in (found.gap, found.remaining))
    return f"{name}: {gap}; with {context.raw_name} regularized too, {remaining}."


def comparisons(verdicts: Sequence[Verdict]) -> Mapping[str, Comparisons]:
    """The comparisons of each context, by the context's fixed values in words."""
    grouped: dict[str, dict[tuple[str, str], Verdict]] = {}
    for verdict in verdicts:
        grouped.setdefault(verdict.context.values_label, {})[verdict.context.starts] = verdict
    return {
        label: Comparisons(each[RAW, GIVEN], each[RAW, SELF], each[SELF, GIVEN])
        for label, each in grouped.items()
    }


def summarize_starts(study: Study, verdicts: Sequence[Verdict]) -> tuple[Label, list[str]]:
    """One label and the answer in a few lines, as `summarize` gives them for two starting points."""
    found = comparisons(verdicts)
    means, where = join_words(stand_ins(study)), setting_words(study)
    labels = {each.label for each in found.values()}
    label = labels.pop() if len(labels) == 1 else Label.UNDETERMINED
    if len(found) == 1:
        (only,) = found.values()
        lines = [f"{only.opening(means)} ({where}).", only.numbers, only.differences, only.cost(study)]
        return label, [line for line in lines if line]
    opening = "The answer depends on the context" if len({each.label for each in found.values()}) > 1 else ""
    lines = [f"{start_sentence(context)}: {each.opening(means)}." for context, each in found.items()]
    return label, [f"{opening or next(iter(found.values())).opening(means)} ({where}).", *lines]
