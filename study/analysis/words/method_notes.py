"""How the numbers of a study were made and what they generalize to, in sentences."""

from collections import Counter
from collections.abc import Sequence

from segstrat.formatting import format_value
from study.analysis.contrasts import Contrasts
from study.analysis.study import LONGER, Study
from study.analysis.tuned import tunings
from study.analysis.verdict import Verdict
from study.analysis.words.names import axis_name, join_words
from study.analysis.words.tuning import tuning_note


def reading_notes(study: Study, verdicts: Sequence[Verdict]) -> list[str]:
    """How the numbers of a task were made and what they generalize to, one sentence each."""
    notes = [
        "Raw: trained from scratch. Reference: raw, single-task, every varied regularizer at 0. Gap: best "
        "pre-trained − reference. Remaining: best pre-trained − best regularized raw.",
    ]
    fixed = study.fixed_regularizers
    if fixed:
        words = join_words([f"{axis_name(axis)} {format_value(level)}" for axis, level in fixed.items()])
        notes.append(f"Every trial has {words}, the reference included: it is not without regularization.")
    if study.varies_multi_task:
        notes.append("Multi-task training counts as regularization here.")
    longer = next((axis for axis in LONGER if axis in study.axes("treatment")), None)
    if longer:
        notes.append(
            "A longer schedule is among the treatments although it is no regularizer; the sensitivity "
            "analysis has a row without it."
        )
    notes += [tuning_note(tuning) for tuning in tunings(study, verdicts)]
    kinds = dict.fromkeys((verdict.images, verdict.stage is not None) for verdict in verdicts)
    notes += [_images_note(images, two_stages=two_stages) for images, two_stages in kinds]
    if any(verdict.look is None and _winners_own(verdict.contrasts) for verdict in verdicts):
        notes.append(
            "All seeds chose the same setting, so its values are the winner's own: where several settings "
            "are close, they are optimistically biased. The answering stage has seeds that chose nothing."
        )
    notes += [note for verdict in verdicts if (note := disagreement_note(verdict))]
    return notes


def _images_note(images: str, *, two_stages: bool) -> str:
    """On which images settings are chosen and reported, and what the intervals say."""
    fixed = "Intervals over seeds say what another seed would show on these images."
    if images == "test images":
        return f"Settings are chosen on validation images and reported on test images. {fixed}"
    if images == "halves of the validation images" and two_stages:
        return (
            f"One half of the validation images nominated the candidates, the other half is reported. {fixed}"
        )
    if images == "halves of the validation images":
        return f"Each half of the validation images chooses the settings that the other half reports. {fixed}"
    return (
        "The same images choose and report, which is optimistically biased for every best setting. Intervals "
        "over seeds say what another seed would show on these images, not what other images would."
    )


def _winners_own(found: Contrasts) -> bool:
    """Whether several candidates were there and all seeds chose the same one."""
    return any(
        choice.unanimous and choice.candidates > 1 for choice in (found.best_raw, found.best_pretrained)
    )


def disagreement_note(verdict: Verdict) -> str:
    """On which best setting the seeds disagree; empty if they agree."""
    found = verdict.contrasts
    words = [
        f"{name} is best at {_votes(choice.counts)}"
        for name, choice in (("raw", found.best_raw), ("pre-trained", found.best_pretrained))
        if not choice.unanimous
    ]
    return f"The seeds disagree: {join_words(words)}. The variance is counted twice." if words else ""


def _votes(counts: Counter[str]) -> str:
    """`weight decay 5e-4 (2 of 3), weight decay 0 (1 of 3)`."""
    total = counts.total()
    return ", ".join(f"{setting} ({count} of {total})" for setting, count in counts.most_common())
