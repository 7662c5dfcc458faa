"""What was planned before the first trial, and what it turned out to be, in sentences."""

from collections.abc import Sequence

from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.differences import ASSUMED_SEED_SD, detectable_difference, observed_seed_sd
from study.analysis.verdict import Verdict
from study.analysis.words.phrases import count_seeds, points, start_sentence


def planned_sentence(design: AnsweringDesign) -> str:
    """What a design can detect at the assumed seed standard deviation, before the first trial."""
    found = detectable_difference(design, ASSUMED_SEED_SD)
    if found is None:
        return f"no difference: {count_seeds(design.max_seeds)} per setting allow no interval, three do"
    return (
        f"a difference {points(found)} from its threshold by {count_seeds(design.max_seeds)} in 80 % of "
        f"studies, if scores vary over seeds by {points(ASSUMED_SEED_SD)} (standard deviation)"
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
        most = len(stage.roles.active) * stage.design.max_seeds
        context = f"{verdict.context.label}: " if verdict.context.label else ""
        text = (
            f"{context}planned for scores that vary over seeds by {points(ASSUMED_SEED_SD)}, where "
            f"{count_seeds(stage.design.max_seeds)} detect a difference {points(assumed)} from its threshold "
            f"in 80 % of studies; they vary by {points(sd)}, hence {points(found)}. The answering stage "
            f"trained {len(stage.context.trials)} of at most {most} trials, up to look {look.number} of "
            f"{look.looks}."
        )
        sentences.append(start_sentence(text))
    return sentences
