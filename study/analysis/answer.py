"""Frames -> contrasts, intervals, claims and one verdict: everything that a study says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from study.analysis.answering.stages import planned_looks
from study.analysis.as_json.effects import effects_values, surfaces_values
from study.analysis.as_json.tuning import tuning_values
from study.analysis.as_json.verdict import claim_values, mechanism_values, plain, verdict_values
from study.analysis.cells import Tuning, at_tuned_values, cell_table, tunings
from study.analysis.factors.effects import FactorialEffects, factorial_effects
from study.analysis.factors.surface import ResponseSurfaces, response_surfaces
from study.analysis.intervals import CONFIDENCE
from study.analysis.sensitivity import View, sensitivity_views
from study.analysis.study import Study
from study.analysis.thesis.claim_differences import thesis_claims
from study.analysis.thesis.claims import Claim, judge_claims
from study.analysis.thesis.hypothesis_h2 import Mechanism, mechanisms
from study.analysis.verdict import MARGIN, Label, Verdict, decide_all
from study.analysis.words.caveats import blocking_problem, caveats
from study.analysis.words.checkpoint import checkpoint_note
from study.analysis.words.tuning import edge_warning
from study.analysis.words.verdict import summarize
from study.frame import STATUSES, epoch_table

SCHEMA = 1
# The protocol of a user's own images: the thesis's claims are not about them.
OWN_DATA = "folder"


@dataclass(frozen=True)
class Answer:
    """All that a study says.

    Args:
        label, sentence: the verdict on the primary task, over all contexts.
        verdicts: by task, one per context; the primary task first.
        mechanisms, sensitivity: one entry per verdict of the primary task.
        claims: C1–C5 of the thesis; empty where nothing can be compared, and for a user's own images.
        cells: by task, see `study.analysis.cells.cell_table`.
        factorial: main effects and interactions, one per context and task of a grid.
        surfaces: response surfaces, one per context and task of a sampled space.
        tunings: how tuned axes were chosen for the primary task, one per context and axis.
        counts: trials by status.
        caveats: what cannot be concluded, and why; empty for a sound study.
    """

    study: Study
    margin: float
    label: Label
    sentence: str
    verdicts: Mapping[str, Sequence[Verdict]]
    mechanisms: Sequence[Mechanism]
    sensitivity: Sequence[Sequence[View]]
    claims: Sequence[Claim]
    cells: Mapping[str, pd.DataFrame]
    factorial: Sequence[FactorialEffects]
    surfaces: Sequence[ResponseSurfaces]
    tunings: Sequence[Tuning]
    counts: Mapping[str, int]
    caveats: Sequence[str]

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
            "verdict": self.label,
            "sentence": self.sentence,
            "margin": self.margin,
            "confidence": CONFIDENCE,
            "data": self.study.data_name,
            "value": "last epoch" if self.study.value else "best epoch",
            "trials": dict(self.counts),
            "effects": [verdict_values(verdict) for verdict in self.contexts],
            "h2": [
                mechanism_values(verdict, found)
                for verdict, found in zip(self.primary, self.mechanisms, strict=True)
            ],
            "claims": [claim_values(claim) for claim in self.claims],
            "factorial_effects": [effects_values(effects) for effects in self.factorial],
            "response_surfaces": [surfaces_values(surfaces) for surfaces in self.surfaces],
            "tuning": [tuning_values(tuning) for tuning in self.tunings],
            "caveats": list(self.caveats),
        }
        return plain(content)


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
    # Claims and H2 compare settings, each at its tuned value.
    settled = {task: [_at_tuned_values(study, verdict) for verdict in verdicts[task]] for task in verdicts}
    tuned = tunings(study, primary)
    own_data = OWN_DATA in study.protocols
    label, sentence = Label.UNDETERMINED, f"Undetermined: {problem}"
    if not problem:
        label, sentence = summarize(study, primary)
        sentence = " ".join(filter(None, [sentence, checkpoint_note(study)]))
    return Answer(
        study=study,
        margin=margin,
        label=label,
        sentence=sentence,
        verdicts=verdicts,
        mechanisms=mechanisms(study, next(iter(settled.values()), []), margin),
        sensitivity=[sensitivity_views(study, verdict, margin) for verdict in primary],
        claims=judge_claims(thesis_claims(study, settled, margin), planned_looks(study))
        if primary and not own_data
        else [],
        cells={task: cell_table(study, task) for task in verdicts},
        factorial=[effects for task in verdicts for effects in factorial_effects(study, task)],
        surfaces=[surfaces for task in verdicts for surfaces in response_surfaces(study, task)],
        tunings=tuned,
        counts=counts,
        caveats=[*caveats(study, counts, problem), *filter(None, map(edge_warning, tuned))],
    )


def _at_tuned_values(study: Study, verdict: Verdict) -> Verdict:
    return replace(verdict, context=at_tuned_values(study, verdict.context))
