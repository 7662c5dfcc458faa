"""How the numbers of a study were made and what they generalize to, in sentences."""

from collections.abc import Sequence

from segstrat.formatting import format_value
from study.analysis.contrasts import Contrasts
from study.analysis.names import axis_name, join_words
from study.analysis.scores import Images
from study.analysis.study import LONGER, Study
from study.analysis.verdict import Verdict


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
    notes += [_images_note(images) for images in dict.fromkeys(verdict.images for verdict in verdicts)]
    if any(verdict.look is None and _winners_own(verdict.contrasts) for verdict in verdicts):
        notes.append(
            "All seeds chose the same setting, so its values are the winner's own: where several settings "
            "are close, they are optimistically biased. The answering stage has seeds that chose nothing."
        )
    if any(not _same_choice(verdict.contrasts) for verdict in verdicts):
        notes.append("The seeds disagree on the best setting, so its variance is counted twice.")
    checkpoint = _checkpoint_note(study)
    return [*notes, checkpoint] if checkpoint else notes


def _images_note(images: Images) -> str:
    if images == "test images":
        return (
            "Settings are chosen on validation images and reported on test images. Intervals over seeds say "
            "what another seed would show on these images."
        )
    if images == "halves of the validation images":
        return (
            "Each half of the validation images chooses the settings that the other half reports. Intervals "
            "over seeds say what another seed would show on these images."
        )
    return (
        "The same images choose and report, which is optimistically biased for every best setting. Intervals "
        "over seeds say what another seed would show on these images, not what other images would."
    )


def _winners_own(found: Contrasts) -> bool:
    """Whether several candidates were there and all seeds chose the same one."""
    return any(
        choice.unanimous and choice.candidates > 1 for choice in (found.best_raw, found.best_pretrained)
    )


def _same_choice(found: Contrasts) -> bool:
    return found.best_raw.unanimous and found.best_pretrained.unanimous


def _checkpoint_note(study: Study) -> str:
    """Which pre-training the statements are about."""
    if "weights_digest" not in study.trials:
        return ""
    pretrained = study.trials[study.trials["pretrained"].astype(bool)]
    digests = pretrained["weights_digest"].dropna()
    digests = digests[digests != ""]
    if digests.empty or digests.nunique() > 1:
        return ""
    return (
        "All pre-trained trials start from one checkpoint: every statement is given this checkpoint. Another "
        "run of the same pre-training may differ by more than the seeds do."
    )
