"""Frames -> effects, intervals, claims and one verdict. Imports neither torch nor Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from study.analysis.cells import cell_table
from study.analysis.claims import Claim, Mechanism, judge_claims, mechanism
from study.analysis.intervals import CONFIDENCE, Interval
from study.analysis.names import axis_name
from study.analysis.sensitivity import View, views
from study.analysis.study import Study
from study.analysis.verdict import MARGIN, Label, Verdict, ahead, decide_all, with_interval
from study.frame import STATUSES

SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """All that a study says.

    Args:
        label, sentence: the verdict on the primary task, over all contexts.
        verdicts: by task, one a context; the primary task first.
        mechanisms, views: beside the primary task's verdicts.
        cells: by task, see `study.analysis.cells.cell_table`.
        counts: trials by status.
        caveats: what cannot be concluded, and why; empty for a sound study.
    """

    study: Study
    margin: float
    label: Label
    sentence: str
    verdicts: Mapping[str, Sequence[Verdict]]
    mechanisms: Sequence[Mechanism]
    views: Sequence[Sequence[View]]
    claims: Sequence[Claim]
    cells: Mapping[str, pd.DataFrame]
    counts: Mapping[str, int]
    caveats: Sequence[str]

    @property
    def primary(self) -> Sequence[Verdict]:
        """The verdicts on the primary task."""
        return next(iter(self.verdicts.values()), [])


def analyse(study: Study, margin: float = MARGIN) -> Answer:
    """Everything that a study's frames allow one to say; never a number that is not there."""
    counts = {status: int((study.trials["status"] == status).sum()) for status in STATUSES}
    blocking = _what_blocks(study)
    verdicts: dict[str, list[Verdict]] = {}
    if not blocking:
        verdicts = {task: decide_all(study, task, margin) for task in study.tasks}
    primary = next(iter(verdicts.values()), [])
    label, sentence = ("undetermined", f"Undetermined: {blocking}") if blocking else summarize(study, primary)
    return Answer(
        study=study,
        margin=margin,
        label=label,  # type: ignore[arg-type]
        sentence=sentence,
        verdicts=verdicts,
        mechanisms=[mechanism(study, verdict, margin) for verdict in primary],
        views=[views(study, verdict.context, margin) for verdict in primary],
        claims=judge_claims(study, primary, margin) if primary else [],
        cells={task: cell_table(study, task) for task in verdicts},
        counts=counts,
        caveats=_caveats(study, counts, blocking),
    )


def summarize(study: Study, verdicts: Sequence[Verdict]) -> tuple[Label, str]:
    """One label and one paragraph for all contexts of a task."""
    if not verdicts:
        return "undetermined", f"Undetermined: no trial of {study.name} learnt the task of its metric."
    where, means = f"On {study.data_name}", _enumerate(_means(study))
    if not means:
        gaps = "; ".join(_gap_only(verdict) for verdict in verdicts)
        return "undetermined", (
            f"{where}, this study varies no stand-in for pre-training (no treatment, no joint training), so "
            f"it shows the gap and not whether it can be closed. {gaps[0].upper()}{gaps[1:]}."
        )
    if len(verdicts) == 1:
        return verdicts[0].label, f"{_opening(verdicts[0].label, where, means)} {_details(verdicts[0])}"
    each = "; ".join(f"{verdict.context.label}: {_brief(verdict)}" for verdict in verdicts)
    labels = {verdict.label for verdict in verdicts}
    if len(labels) == 1:
        return verdicts[0].label, f"{_opening(verdicts[0].label, where, means)} {each}."
    return "undetermined", f"{where}, the answer depends on the context. {each}."


def _means(study: Study) -> list[str]:
    """What stands in for pre-training in this study, in words."""
    names = [axis_name(axis) for axis in study.axes("treatment") if study.trials[axis].nunique() > 1]
    if study.varies_joint_training:
        names.append("joint training")
    return names


def _enumerate(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _opening(label: Label, where: str, means: str) -> str:
    close, narrow, do = ("close", "narrow", "do") if " and " in means else ("closes", "narrows", "does")
    return {
        "closes": f"{where}, {means} {close} the gap to pre-training.",
        "narrows": f"{where}, {means} {narrow} the gap to pre-training without closing it.",
        "does not close": f"{where}, {means} {do} not close the gap to pre-training.",
        "undetermined": f"{where}, it is undetermined whether {means} {close} the gap to pre-training.",
    }[label]


def _details(verdict: Verdict) -> str:
    closure = verdict.contrasts.closure
    if verdict.label == "undetermined" or closure.estimate is None:
        return verdict.reason
    return f"{verdict.reason} That is {percent(closure)} of the gap."


def _brief(verdict: Verdict) -> str:
    remaining, gap = verdict.contrasts.remaining, verdict.contrasts.gap
    return (
        f"{verdict.label}, gap {with_interval(gap)}, of which {with_interval(remaining)} remain"
        if remaining.estimate is not None
        else f"{verdict.label}, gap {with_interval(gap)}"
    )


def _gap_only(verdict: Verdict) -> str:
    prefix = f"{verdict.context.label}: " if verdict.context.label else ""
    return f"{prefix}pre-trained ends {ahead(verdict.contrasts.gap)} raw"


def percent(interval: Interval) -> str:
    """A share as `33 % (95 % interval 20 to 46 %)`."""
    if interval.estimate is None:
        return "an unknown share"
    text = f"{100 * interval.estimate:.0f} %"
    if interval.low is not None and interval.high is not None:
        text += f" (95 % interval {100 * interval.low:.0f} to {100 * interval.high:.0f} %)"
    return text.replace("-", "−")


def _what_blocks(study: Study) -> str:
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
        counts = study.trials["status"].value_counts()
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"no trial was completed ({told}), and only completed trials have a final value."
    return ""


def _caveats(study: Study, counts: Mapping[str, int], blocking: str) -> list[str]:
    found = [blocking[0].upper() + blocking[1:]] if blocking else []
    total = sum(counts.values())
    if counts["unfinished"] and not blocking:
        found.append(
            f"{counts['unfinished']} of {total} trials have not finished: this is an interim answer."
        )
    if counts["stopped"]:
        found.append(
            f"{counts['stopped']} of {total} trials were stopped by the scheduler. They enter as bounds: not "
            "below the best value they showed, not above the best final value of their arm."
        )
    for status in ("diverged", "failed"):
        if counts[status]:
            found.append(f"{counts[status]} of {total} trials {status}; they are counted, not imputed.")
    seeds = study.trials["seed"].nunique()
    if seeds < 3 and not blocking:
        found.append(
            f"The study has {seeds} seed{'' if seeds == 1 else 's'}. Below three there is no interval and "
            "hence no verdict; three to five are worth their cost."
        )
    if not study.value:
        found.append(
            "Only the best epoch is known, chosen on the very data that is reported; it flatters every arm."
        )
    return found


def to_json(answer: Answer) -> dict[str, Any]:
    """The answer as `verdict.json` holds it; unknown numbers are null."""
    content = {
        "schema": SCHEMA,
        "study": answer.study.name,
        "verdict": answer.label,
        "sentence": answer.sentence,
        "margin": answer.margin,
        "confidence": CONFIDENCE,
        "data": answer.study.data_name,
        "value": "last epoch" if answer.study.value else "best epoch",
        "trials": dict(answer.counts),
        "effects": [
            _verdict_json(verdict) | {"task": task}
            for task, verdicts in answer.verdicts.items()
            for verdict in verdicts
        ],
        "h2": [
            {
                "context": verdict.context.label,
                "mechanism": found.label,
                "reason": found.reason,
                "training": _interval_json(found.training),
                "validation": _interval_json(found.validation),
            }
            for verdict, found in zip(answer.primary, answer.mechanisms, strict=True)
        ],
        "claims": [
            {
                "name": claim.name,
                "claim": claim.claim,
                "status": claim.status,
                "reason": claim.reason,
                "effects": [
                    {"what": effect.what} | _interval_json(effect.interval) for effect in claim.effects
                ],
            }
            for claim in answer.claims
        ],
        "caveats": list(answer.caveats),
    }
    return _plain(content)


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    found = verdict.contrasts
    return {
        "context": verdict.context.label,
        "verdict": verdict.label,
        "reason": verdict.reason,
        "gap": _interval_json(found.gap),
        "improvement": _interval_json(found.improvement),
        "remaining": _interval_json(found.remaining),
        "closure": _interval_json(found.closure),
        "reference": found.reference,
        "best_raw": {str(seed): setting for seed, setting in found.raw.setting.items()},
        "best_pretrained": {str(seed): setting for seed, setting in found.pretrained.setting.items()},
        "chosen_on_the_reported_seed": found.same_seed,
        "bounds": dict(verdict.bounds),
        "by_margin": {f"{margin:g}": label for margin, label in verdict.by_margin.items()},
        "seeds_needed": {row["contrast"]: row["seeds"] for row in verdict.decisive if not row["settled"]},
    }


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "method": interval.method,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
