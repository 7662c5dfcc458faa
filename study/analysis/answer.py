"""Frames -> everything that a study says: its answer, and the sections that a report shows beside it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from study.analysis.answering.decision import Label
from study.analysis.caveats_and_notes import (
    blocking_problem,
    caveats,
    checkpoint_note,
    edge_warning,
    is_rehearsal,
)
from study.analysis.cells import Tuning, tunings
from study.analysis.intervals import CONFIDENCE
from study.analysis.sections.factorial_effects import factorial_effects
from study.analysis.sections.labels_needed import labels_needed
from study.analysis.sections.response_surfaces import response_surfaces
from study.analysis.sections.thesis_claims import mechanisms, thesis_claims
from study.analysis.sensitivity import View, sensitivity_views
from study.analysis.starting_points import summarize_starts
from study.analysis.study import PAIRINGS, Study
from study.analysis.verdict import MARGIN, Verdict, decide_all
from study.analysis.verdict_sentences import reason, summarize
from study.frame import STATUSES, epoch_table

SCHEMA = 1

# Of a study, its verdicts by task and the margin: parts with a `to_dict`.
Section = Callable[[Study, Mapping[str, Sequence[Verdict]], float], Sequence[Any]]


def _of_every_task(parts: Callable[[Study, str], Sequence[Any]]) -> Section:
    """A section whose parts depend on the trials alone."""
    return lambda study, verdicts, _: [part for task in verdicts for part in parts(study, task)]


def _of_thesis(parts: Section) -> Section:
    """A section about raw and pre-trained alone, whatever else a network may start from."""

    def of_main(study: Study, verdicts: Mapping[str, Sequence[Verdict]], margin: float) -> Sequence[Any]:
        main = {
            task: [verdict for verdict in found if verdict.context.starts == PAIRINGS[0]]
            for task, found in verdicts.items()
        }
        return parts(study, main, margin)

    return of_main


# What a report shows beside the answer, by its key in verdict.json; a section that a study does not have is
# empty. No label depends on them.
SECTIONS: Mapping[str, Section] = {
    "h2": _of_thesis(mechanisms),
    "claims": _of_thesis(thesis_claims),
    "labels_needed": _of_thesis(labels_needed),
    "factorial_effects": _of_every_task(factorial_effects),
    "response_surfaces": _of_every_task(response_surfaces),
}


@dataclass(frozen=True)
class Answer:
    """What a study says.

    Args:
        label, lines: the verdict on the primary task, over all contexts, and the answer in a few lines: the
            answer itself, the numbers behind it, and what is open or was not tested.
        verdicts: by task, one per context; the primary task first.
        sensitivity: one entry per verdict of the primary task.
        tunings: how tuned axes were chosen for the primary task, one per context and axis.
        counts: trials by status.
        caveats: what cannot be concluded, and why; empty for a sound study.
        sections: the parts of each of `SECTIONS`.
    """

    study: Study
    margin: float
    label: Label
    lines: Sequence[str]
    verdicts: Mapping[str, Sequence[Verdict]]
    sensitivity: Sequence[Sequence[View]]
    tunings: Sequence[Tuning]
    counts: Mapping[str, int]
    caveats: Sequence[str]
    sections: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The answer as one paragraph."""
        return " ".join(self.lines)

    @property
    def primary(self) -> Sequence[Verdict]:
        """The verdicts on the primary task."""
        return next(iter(self.verdicts.values()), [])

    @property
    def contexts(self) -> Sequence[Verdict]:
        """The verdicts of all contexts and tasks, those of the primary task first."""
        return [verdict for verdicts in self.verdicts.values() for verdict in verdicts]

    def to_dict(self) -> dict[str, Any]:
        """The answer as `verdict.json` holds it: plain values, null for unknown numbers."""
        content = {
            "schema": SCHEMA,
            "study": self.study.name,
            "rehearsal": is_rehearsal(self.study),
            "verdict": self.label,
            "sentence": self.sentence,
            "lines": list(self.lines),
            "margin": self.margin,
            "confidence": CONFIDENCE,
            "data": self.study.data_name,
            "value": "last epoch" if self.study.value else "best epoch",
            "trials": dict(self.counts),
            "effects": [_verdict_values(verdict) for verdict in self.contexts],
            **{key: [part.to_dict() for part in parts] for key, parts in self.sections.items()},
            "tuning": [_tuning_values(tuning) for tuning in self.tunings],
            "caveats": list(self.caveats),
        }
        return _plain(content)


def answer(
    trials: pd.DataFrame,
    manifest: Mapping[str, Any],
    epochs: pd.DataFrame | None = None,
    margin: float = MARGIN,
) -> Answer:
    """Everything that a study's frames allow one to say; never a number that is not there.

    Args:
        trials, epochs: the frames of `study.frame.load`; without `epochs` the sensitivity views that need
            learning curves are left out.
        manifest: the study's `manifest.json` as a dict; `roles` and `metric` are needed for a verdict.
        margin: the largest difference of mIoU that counts as none.
    """
    name = str(manifest.get("study") or "study")
    return answer_study(
        Study(name, manifest, trials, epoch_table("", []) if epochs is None else epochs), margin
    )


def answer_study(study: Study, margin: float = MARGIN) -> Answer:
    """The same for an opened study."""
    counts = {status: int((study.trials["status"] == status).sum()) for status in STATUSES}
    problem = blocking_problem(study)
    verdicts = {} if problem else {task: decide_all(study, task, margin) for task in study.tasks}
    primary = next(iter(verdicts.values()), [])
    tuned = tunings(study, [(verdict.context, verdict.contrasts) for verdict in primary])
    # What short training tests is no claim and no effect.
    tested = not is_rehearsal(study)
    sections = {key: section(study, verdicts, margin) if tested else [] for key, section in SECTIONS.items()}
    label, lines = Label.UNDETERMINED, [f"Undetermined: {problem}"]
    if not problem:
        label, lines = (summarize_starts if len(study.pairings) > 2 else summarize)(study, primary)
        lines = [*lines, *(part.sentence for part in sections.get("labels_needed", ()))]
        lines = [*lines, *filter(None, [checkpoint_note(study)])]
    if is_rehearsal(study):
        lines = [f"Rehearsal, no finding. {lines[0]}", *lines[1:]]
    return Answer(
        study=study,
        margin=margin,
        label=label,
        lines=lines,
        verdicts=verdicts,
        sensitivity=[sensitivity_views(study, verdict, margin) for verdict in primary],
        tunings=tuned,
        counts=counts,
        caveats=[*caveats(study, counts, problem), *filter(None, map(edge_warning, tuned))],
        sections=sections,
    )


def _verdict_values(verdict: Verdict) -> dict[str, Any]:
    """One context's verdict."""
    found, look = verdict.contrasts, verdict.look
    of_look = ("number", "looks", "seeds", "spent", "next_seeds", "next_trials")
    return {
        "task": verdict.context.task,
        "context": verdict.context.label,
        "verdict": verdict.label,
        "reason": reason(verdict),
        "gap": asdict(found.gap),
        "improvement": asdict(found.improvement),
        "remaining": asdict(found.remaining),
        "closure": asdict(found.closure),
        "reference": found.reference,
        "best_raw": {str(seed): found.best_raw.label(seed) for seed in found.best_raw.settings},
        "best_pretrained": {
            str(seed): found.best_pretrained.label(seed) for seed in found.best_pretrained.settings
        },
        "chosen_on_the_reported_seed": found.same_seed,
        "cause": verdict.cause,
        "by_intervals": verdict.by_intervals.label,
        "images": verdict.images,
        "floor": verdict.learning.floor,
        "with_images": {name: asdict(interval) for name, interval in verdict.with_images.items()},
        # A study of one stage has no look.
        "look": None if look is None else {name: getattr(look, name) for name in of_look},
        "by_margin": {f"{margin:g}": label for margin, label in verdict.by_margin.items()},
        "seeds_needed": {row.contrast: row.seeds for row in verdict.decisive if not row.settled},
    }


def _tuning_values(tuning: Tuning) -> dict[str, Any]:
    """One tuned axis in one context."""
    return {
        "context": tuning.context,
        "axis": tuning.axis,
        "tried": list(tuning.tried),
        "chosen": tuning.chosen,
        "at_the_edge": list(tuning.edges),
        "trials_not_chosen": tuning.trials,
        "hours_not_chosen": tuning.hours,
    }


def _plain(value: Any) -> Any:
    """Values that JSON has: plain strings and numbers, None for those that are not finite."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
