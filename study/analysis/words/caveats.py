"""What stands between a study and a sound answer, in sentences."""

from collections.abc import Mapping

from study.analysis.intervals import MIN_SEEDS
from study.analysis.study import Study, contexts
from study.analysis.words.phrases import count_seeds, start_sentence
from study.analysis.words.verdict import count_words


def blocking_problem(study: Study) -> str:
    """Why nothing at all can be compared; empty where something can."""
    roles = study.manifest.get("roles")
    if not roles:
        return (
            "the space states no roles, so nothing says which axis is the strategy and which the treatment. "
            "Add ROLES to the space file, or `roles` to manifest.json."
        )
    if study.trials.empty:
        return "the study has no trials."
    if roles.get("pretrained") != "arm":
        return "the space does not vary `pretrained`, so there is no gap to look at."
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
    seeds = study.trials["seed"].nunique()
    if seeds < MIN_SEEDS and not problem:
        found.append(
            f"The study has {count_seeds(seeds)}. Below three there is no interval and hence no verdict."
        )
    if not study.value:
        found.append(
            "Only the best epoch is known. It was chosen on the data that is reported, so every arm's score "
            "is optimistically biased."
        )
    return found
