"""What the report shows of factorial effects and response surfaces: sentences, figures and a table."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from study.analysis import Answer
from study.analysis.sections.factorial_effects import (
    SIGNIFICANT,
    FactorialEffects,
    effect_label,
    effect_sentences,
)
from study.analysis.sections.response_surfaces import surface_sentences


@dataclass(frozen=True)
class EffectsSection:
    """One context.

    Args:
        title: heading, with the task and context.
        sentences: what is shown.
        responses: heads of the table's columns.
        tables: title and rows: an effect's name and one cell per response, with `estimate low high shown`.
    """

    title: str
    sentences: list[str]
    responses: list[str]
    tables: list[tuple[str, list[dict[str, Any]]]]


def effects_sections(answer: Answer) -> list[EffectsSection]:
    """A section per context with effects, then one per context with surfaces."""
    sections = []
    for effects in answer.sections["factorial_effects"]:
        tables = [("Main effects", _rows(effects, effects.table, "main"))]
        if effects.survivors is not None:
            tables.append(("Without diverged trials", _rows(effects, effects.survivors, "main")))
        tables.append(("Two-way interactions", _rows(effects, effects.table, "interaction")))
        title = _title("Effects", effects.task, effects.context)
        shown = [(name, rows) for name, rows in tables if rows]
        sections.append(EffectsSection(title, effect_sentences(effects), effects.responses, shown))
    for surfaces in answer.sections["response_surfaces"]:
        title = _title("Response surface", surfaces.task, surfaces.context)
        sections.append(EffectsSection(title, surface_sentences(surfaces), [], []))
    return sections


def _title(kind: str, task: str, context: str) -> str:
    return f"{kind}: {task}{f', {context}' if context else ''}"


def _rows(effects: FactorialEffects, table: pd.DataFrame, kind: str) -> list[dict[str, Any]]:
    """A row per effect, with a cell per response."""
    rows: dict[str, dict[str, Any]] = {}
    for row in table[table["kind"] == kind].to_dict("records"):
        label = effect_label(row)
        numbers = {key: _known(row[key]) for key in ("estimate", "low", "high")}
        shown = bool(row["adjusted_p"] < SIGNIFICANT)
        rows.setdefault(label, {"label": label, "cells": {}})["cells"][row["response"]] = numbers | {
            "shown": shown,
            "n": len(effects.seeds),
        }
    return list(rows.values())


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
