"""What a reader must know beside the verdict: caveats, how the numbers were made, what was planned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segstrat.formatting import axis_name, format_duration, format_value, join_words
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.differences import ASSUMED_SEED_SD, detectable_difference, observed_seed_sd
from study.analysis.cells import Tuning
from study.analysis.contrasts import Contrasts
from study.analysis.intervals import MIN_SEEDS
from study.analysis.phrases import count_seeds, count_words, points, start_sentence
from study.analysis.study import LONGER, Study, contexts
from study.analysis.verdict import Verdict
from study.frame.build import START_WORDS

GIVEN = (
    "All statements hold for this checkpoint only: every pre-trained trial starts from the same weights, and "
    "another run of the same pre-training may differ by more than the seeds do."
)
# Below so many scored images the interval over seeds and images is wide, and far below it covers less than it
# says: simulated in tests/study/analysis/test_image_intervals.py for differences that vary by 6 points from
# image to image.
FEW_IMAGES = 30
PER_SEED = "Each seed has its own pre-training, so the intervals include the variation of pre-training."


def blocking_problem(study: Study) -> str:
    """Why nothing at all can be compared; empty where something can."""
    roles = study.manifest.get("roles")
    if not roles:
        return (
            "the study states no roles, so it is unknown which axis is the strategy and which the treatment. "
            'Add `roles` to manifest.json, such as {"pretrained": "arm", "weight_decay": "treatment"}.'
        )
    if study.trials.empty:
        return "the study has no trials."
    if "arm" not in (roles.get("pretrained"), roles.get("initialization")):
        return "the space varies neither `pretrained` nor `initialization`, so there is no gap to measure."
    if not (study.trials["status"] == "completed").any():
        counts = count_words({str(k): int(n) for k, n in study.trials["status"].value_counts().items()})
        return f"no trial was completed ({counts}), and only completed trials have a final value."
    return ""


def caveats(study: Study, counts: Mapping[str, int], problem: str) -> list[str]:
    """What a reader must know before the numbers; empty for a sound study.

    Args:
        counts: trials by status.
        problem: what `blocking_problem` found.
    """
    found = [start_sentence(problem)] if problem else []
    if is_rehearsal(study):
        found.append(
            "This is a rehearsal (--quick): few settings, short training and pre-training. It shows how a "
            "study runs and what an answer looks like; its numbers are no finding. The study itself: "
            f"uv run python study/run.py --space {study.manifest.get('space')}"
        )
    total = sum(counts.values())
    if counts["unfinished"] and not problem:
        found.append(
            f"{counts['unfinished']} of {total} trials have not finished: this is an interim answer."
        )
    stopped = int(((study.trials["status"] == "stopped") & (study.trials.get("stage") != "screening")).sum())
    if stopped:
        found.append(f"{stopped} of {total} trials were stopped by the scheduler and have no final value.")
    if counts["diverged"]:
        known = problem or contexts(study, study.tasks[0])[0].floor
        score = f" of {known:.3f}" if isinstance(known, float) else " (unknown here, so 0)"
        found.append(
            f"{counts['diverged']} of {total} trials diverged. They count with the score{score} of a "
            "constant prediction; the sensitivity analysis has a row without them."
        )
    if counts["failed"]:
        found.append(f"{counts['failed']} of {total} trials failed; they are left out.")
    if few := few_images(*scored_images(study.manifest.get("data") or {})):
        found.append(few)
    seeds = study.trials["seed"].nunique()
    if seeds < MIN_SEEDS and not problem:
        found.append(
            f"The study has {count_seeds(seeds)}, too few for an interval and a verdict; use at least three."
        )
    if study.plans and not problem:
        *ended, now = study.plans
        level = contexts(study, study.tasks[0])[0].joint_confidence
        found.append(
            f"The study was answered with {join_words([str(count) for count in ended])} seeds and then got "
            f"more, {now} in all. Whoever adds seeds because of an answer errs more often: the intervals of "
            f"gap, gain and remaining gap hold with {100 * level:.3g} % together with those of the answers "
            "before, and other intervals and p-values do not take this into account."
        )
    if not study.value:
        found.append(
            "Only the best epoch is known. It was chosen on the data that is reported, so every arm's score "
            "is optimistically biased."
        )
    return found


def scored_images(data: Mapping[str, Any]) -> tuple[int, str]:
    """How many images scores are of, and of which split; 0 where a manifest's `data` does not say it."""
    return (
        (data["test_images"], "test")
        if data.get("test_images")
        else (data.get("val_images") or 0, "validation")
    )


def few_images(count: int, split: str) -> str:
    """That scores of so few images say little of others; empty for enough, and for an unknown count."""
    if not 0 < count < FEW_IMAGES:
        return ""
    return (
        f"Scores are of {count} {split} image{'s' * (count > 1)}, and others may rank models differently: "
        f"with fewer than {FEW_IMAGES}, the interval over seeds and images is ±2 points and more, however "
        "many seeds there are. Give it more images, or read the answer as one about these."
    )


def is_rehearsal(study: Study) -> bool:
    """Whether the study was started with `--quick`."""
    return bool((study.manifest.get("options") or {}).get("quick"))


def checkpoint_note(study: Study) -> str:
    """Whether the intervals include the variation of pre-training; '' where the weights are not known."""
    columns = {"weights_digest", "seed", "pretrained"}
    if not columns <= set(study.trials):
        return ""
    trials = study.trials
    if "stage" in trials and (trials["stage"] != "screening").any():
        trials = trials[trials["stage"] != "screening"]
    used = trials[trials["pretrained"].astype(bool) & trials["weights_digest"].fillna("").ne("")]
    if used.empty:
        return ""
    if used["seed"].nunique() == 1:
        return PER_SEED if (study.manifest.get("weights") or {}).get("per_seed") else GIVEN
    shared = used.groupby("weights_digest")["seed"].nunique().max() > 1
    return GIVEN if shared else PER_SEED


def edge_warning(tuning: Tuning) -> str:
    """That a chosen value is the smallest or largest of those tried; empty if none is."""
    if not tuning.edges:
        return ""
    low, high = format_value(tuning.tried[0]), format_value(tuning.tried[-1])
    return (
        f"{_where(tuning)}he best {axis_name(tuning.axis)} is at the edge of those tried ({low} to {high}) "
        f"for {join_words(list(tuning.edges))}. A value beyond may be better and change the contrasts: try a "
        "wider range."
    )


def reading_notes(study: Study, verdicts: Sequence[Verdict], tunings: Sequence[Tuning]) -> list[str]:
    """How the numbers of a task were made and what they generalize to, one sentence each."""
    notes = [
        "Raw: trained from scratch. Reference: raw, single-task, every varied regularizer at 0. Gap: best "
        "pre-trained − reference. Remaining: best pre-trained − best regularized raw.",
    ]
    if len(study.pairings) > 1:
        notes.append(
            "Self-supervised: started from weights that were trained on unlabelled images. Each two of the "
            f"{len(START_WORDS)} starting points are compared in this manner; the reference of the second "
            "comparison with pre-trained is self-supervised. The comparisons share an error of 5 %: all of "
            "their intervals together hold with 95 %."
        )
    fixed = study.fixed_regularizers
    if fixed:
        words = join_words([f"{axis_name(axis)} {format_value(level)}" for axis, level in fixed.items()])
        notes.append(f"Every trial has {words}, the reference included: it is not without regularization.")
    if study.varies_multi_task:
        notes.append("Multi-task training counts as regularization here.")
    longer = next((axis for axis in LONGER if axis in study.axes("treatment")), None)
    if longer:
        notes.append(
            "A longer schedule is among the treatments although it is not a regularizer; the sensitivity "
            "analysis has a row without it."
        )
    notes += [tuning_note(tuning) for tuning in tunings]
    kinds = dict.fromkeys((verdict.images, verdict.stage is not None) for verdict in verdicts)
    notes += [_images_note(images, two_stages=two_stages) for images, two_stages in kinds]
    if any(verdict.look is None and _winners_own(verdict.contrasts) for verdict in verdicts):
        notes.append(
            "All seeds chose the same setting, so its scores are the winner's, biased upwards where several "
            "settings are close. The seeds of an answering stage take no part in the choice."
        )
    notes += [note for verdict in verdicts if (note := disagreement_note(verdict))]
    return notes


def tuning_note(tuning: Tuning) -> str:
    """How the value was chosen, and what the values that were not chosen cost in each arm."""
    values = join_words([format_value(value) for value in tuning.tried])
    cost = join_words(
        [
            f"{count} {arm} trials ({format_duration(3600 * tuning.hours[arm])})"
            for arm, count in tuning.trials.items()
        ]
    )
    return (
        f"{_where(tuning)}he {axis_name(tuning.axis)} ({values}) is tuned: its best value is chosen for each "
        "setting by the mean validation score over seeds, by the same rule for both arms and the reference. "
        f"The values that were not chosen cost {cost}."
    )


def _where(tuning: Tuning) -> str:
    return f"{tuning.context}: t" if tuning.context else "T"


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
        for name, choice in (
            (verdict.context.raw_name, found.best_raw),
            (verdict.context.pretrained_name, found.best_pretrained),
        )
        if not choice.unanimous
    ]
    return f"The seeds disagree: {join_words(words)}. The variance is counted twice." if words else ""


def _votes(counts: Counter[str]) -> str:
    """`weight decay 5e-4 (2 of 3), weight decay 0 (1 of 3)`."""
    total = counts.total()
    return ", ".join(f"{setting} ({count} of {total})" for setting, count in counts.most_common())


def planned_sentence(design: AnsweringDesign) -> str:
    """What a design can detect at the assumed seed standard deviation, before the first trial."""
    found = detectable_difference(design, ASSUMED_SEED_SD)
    seeds = count_seeds(design.max_seeds)
    if found is None:
        return f"no difference: {seeds} per setting are too few for an interval; use at least three"
    return (
        f"a difference {points(found)} beyond its threshold in 80 % of studies with {seeds}, if scores vary "
        f"over seeds by {points(ASSUMED_SEED_SD)} (standard deviation)"
    )


def outcome_sentences(verdicts: Sequence[Verdict]) -> list[str]:
    """The assumption against what was observed, one sentence per context with an answering stage."""
    sentences = []
    for verdict in verdicts:
        stage = verdict.stage
        look = stage.last_look if stage else None
        if stage is None or look is None:
            continue
        values = stage.values[[cell for cell in look.roles.active if cell in stage.values]].dropna()
        sd = observed_seed_sd(values)
        assumed, found = (
            detectable_difference(stage.design, spread) if spread is not None else None
            for spread in (ASSUMED_SEED_SD, sd)
        )
        if sd is None or assumed is None or found is None:
            continue
        roles = stage.roles
        nominated = (*roles.references, *roles.raw, *roles.pretrained)
        most = len(nominated) * stage.design.max_seeds
        context = f"{verdict.context.label}: " if verdict.context.label else ""
        text = (
            f"{context}planned for scores that vary over seeds by {points(ASSUMED_SEED_SD)}, where "
            f"{count_seeds(stage.design.max_seeds)} detect a difference {points(assumed)} beyond its "
            f"threshold in 80 % of studies; they vary by {points(sd)}, which makes it {points(found)}. The "
            f"answering stage trained {len(stage.context.trials)} of at most {most} trials, up to look "
            f"{look.number} of {look.looks}."
        )
        sentences.append(start_sentence(text))
    return sentences
