"""What the report's template shows of one study: words, rows and figures, no layout."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from segstrat.store import Store
from study.analysis import Answer
from study.analysis.answering.decision import Look
from study.analysis.answering.stages import planned_looks
from study.analysis.caveats_and_notes import reading_notes
from study.analysis.cells import cell_table
from study.analysis.phrases import count_words
from study.analysis.sections.factorial_effects import FactorialEffects, effect_sentences
from study.analysis.sections.response_surfaces import ResponseSurfaces, surface_sentences
from study.analysis.sections.thesis_numbers import comparison, reasons_to_differ
from study.reporting.figure_files import Picture
from study.reporting.gallery import Gallery
from study.reporting.plot_classes import class_picture, confusion_picture
from study.reporting.plot_contrasts import answer_picture, contexts_picture
from study.reporting.plot_cost import cost_picture, cost_sentence
from study.reporting.plot_factorial_effects import effect_rows, effects_picture
from study.reporting.plot_gap_closure import closure_picture
from study.reporting.plot_response_surfaces import surface_picture
from study.reporting.plot_self_supervision import (
    SelfSupervision,
    self_supervision_of,
    self_supervision_picture,
)
from study.reporting.plot_training import curves_picture, plane_picture
from study.reporting.plot_treatments import map_pictures, sampled_picture, treatment_picture
from study.reporting.provenance import provenance
from study.reporting.trials_table import MOST_ROWS, trial_columns, trial_rows

# Bytes of matrices of confusions on the page, of which a context with a dozen classes has up to 150 kB.
MOST_CONFUSIONS = 250_000
# Figures by section of the page; a section without anything to show is empty.
Pictures = Mapping[str, Sequence[Picture]]


def draw_pictures(answer: Answer, store: Store | None = None) -> Pictures:
    """Draws every figure that the study's frames allow, and what needs the files of trials in its store."""
    study = answer.study
    verdicts = answer.contexts
    treatments = study.axes("treatment")
    tasks = list(answer.verdicts)
    drawn: dict[str, list[Picture | None]] = {
        "answer": [
            *(answer_picture(answer, verdict) for verdict in answer.primary[:1]),
            contexts_picture(answer),
            *(closure_picture(answer, verdict) for verdict in verdicts),
        ],
        "effects": [
            *(effects_picture(each, study.data_name) for each in answer.sections["factorial_effects"]),
            *(surface_picture(each, study.data_name) for each in answer.sections["response_surfaces"]),
        ],
        "treatments": [
            *(treatment_picture(study, axis, task) for task in tasks for axis in treatments),
            *(picture for task in tasks for picture in map_pictures(study, task)),
            *(sampled_picture(study, task) for task in tasks),
        ],
        "training": [
            *(curves_picture(study, verdict) for verdict in verdicts),
            *(plane_picture(study, task) for task in tasks),
        ],
        "self-supervision": [self_supervision_picture(self_supervision_of(store)) if store else None],
        "classes": [class_picture(study, verdict) for verdict in verdicts],
        "confusions": [confusion_picture(study, verdict, store) for verdict in verdicts] if store else [],
        "cost": [cost_picture(answer)],
    }
    return {
        section: [picture for picture in pictures if picture is not None]
        for section, pictures in drawn.items()
    }


@dataclass(frozen=True)
class Page:
    """One study on the page; field names are those of the template."""

    answer: Answer
    pictures: Pictures
    galleries: list[Gallery]
    self_supervision: SelfSupervision | None = None

    @property
    def every_picture(self) -> list[Picture]:
        """The figures of all sections."""
        return [picture for pictures in self.pictures.values() for picture in pictures]

    @property
    def slug(self) -> str:
        """Anchor of the study."""
        return "".join(c if c.isalnum() else "-" for c in self.answer.study.name)

    @cached_property
    def score(self) -> str:
        """By what the trials are judged, such as `mIoU`."""
        study = self.answer.study
        return study.score_words(study.tasks[0]) if study.tasks else "mIoU"

    @cached_property
    def several(self) -> bool:
        """Whether the study has several contexts."""
        return any(len(verdicts) > 1 for verdicts in self.answer.verdicts.values())

    @property
    def trial_words(self) -> str:
        """`36 trials: 34 completed, 2 stopped early; 18 answer, the others chose candidates`."""
        counts = {"stopped early" if name == "stopped" else name: n for name, n in self.answer.counts.items()}
        if not (total := sum(counts.values())):
            return "no trials"
        # Published studies have no stages.
        stages = [str(stage) for stage in self.answer.study.trials.get("stage", ())]
        answering = stages.count("answering") if "screening" in stages else 0
        parts = f"; {answering} answer, the others chose candidates" if answering else ""
        return f"{total} trials: {count_words(counts)}{parts}"

    @property
    def claims_note(self) -> str:
        """How p-values of hypothesis and claims are adjusted."""
        looks = planned_looks(self.answer.study)
        several = f"over the {looks} planned looks (Bonferroni) and " if looks > 1 else ""
        return (
            f"By p-values that are adjusted {several}over all effects and contexts (Holm). The intervals are "
            "not adjusted."
        )

    @cached_property
    def confusions(self) -> list[Picture]:
        """The first one, and as many more as do not make the page large; all of them are files beside it."""
        sizes = itertools.accumulate(picture.size for picture in self.pictures["confusions"])
        return [
            picture
            for index, (picture, size) in enumerate(zip(self.pictures["confusions"], sizes, strict=True))
            if size <= MOST_CONFUSIONS or not index
        ]

    @property
    def hidden_confusions(self) -> list[Picture]:
        """Those that the page does not show."""
        return [picture for picture in self.pictures["confusions"] if picture not in self.confusions]

    @property
    def looks(self) -> list[tuple[str, Look]]:
        """The looks of the answering stage, each with the label of its context."""
        return [
            (verdict.context.label, look)
            for verdict in self.answer.primary
            for look in (verdict.stage.looks if verdict.stage else ())
        ]

    @property
    def notes(self) -> list[str]:
        """How the numbers were made, one sentence each."""
        return reading_notes(self.answer.study, self.answer.primary, self.answer.tunings)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles, in the order of the page."""
        wanted = [
            ("answer", "In detail", bool(self.answer.primary)),
            ("change", "What would change it", bool(self.answer.primary)),
            ("claims", "Claims", bool(self.answer.sections["claims"])),
            ("effects", "Main effects", bool(self.effects)),
            ("cells", "Arms and treatments", bool(self.pictures["treatments"] or self.cells)),
            ("training", "Training", bool(self.pictures["training"])),
            ("self-supervision", "Self-supervision", bool(self.pictures["self-supervision"])),
            ("classes", "Classes", bool(self.pictures["classes"] or self.pictures["confusions"])),
            ("gallery", "Predictions", True),
            ("thesis", "Comparison with the thesis", bool(self.comparison)),
            ("cost", "Cost", True),
            ("trials", "Trials", True),
            ("provenance", "Provenance", True),
        ]
        return [(anchor, title) for anchor, title, shown in wanted if shown]

    @cached_property
    def cell_tables(self) -> dict[str, pd.DataFrame]:
        """All cells, by task."""
        tables = {task: cell_table(self.answer.study, task) for task in self.answer.verdicts}
        return {task: table for task, table in tables.items() if not table.empty}

    @cached_property
    def cells(self) -> dict[str, list[dict[Any, Any]]]:
        """Rows of the cell table, by task; of many cells the best of each arm."""
        return {
            task: [row | {"others": _others(row)} for row in shown_cells(table).to_dict("records")]
            for task, table in self.cell_tables.items()
        }

    @property
    def hides_cells(self) -> bool:
        """Whether a task has more cells than the page shows."""
        return any(len(table) > MOST_ROWS for table in self.cell_tables.values())

    @cached_property
    def effects(self) -> list[dict[str, Any]]:
        """Factorial effects, then response surfaces: one part per context, with sentences and tables."""
        effects = [
            {"title": f"Effects: {_where(each)}", "sentences": effect_sentences(each)}
            | {"responses": each.responses, "tables": effect_rows(each)}
            for each in self.answer.sections["factorial_effects"]
        ]
        surfaces = [
            {"title": f"Response surface: {_where(each)}", "sentences": surface_sentences(each), "tables": []}
            for each in self.answer.sections["response_surfaces"]
        ]
        return effects + surfaces

    @cached_property
    def comparison(self) -> list[dict[str, Any]]:
        """The thesis's published cells and the study's, of every task; none for the thesis's own numbers."""
        if not self.answer.study.value:
            return []
        tables = [comparison(self.answer.study, task) for task in self.answer.verdicts]
        rows = [row for table in tables for row in table.to_dict("records")]
        vary = len({row["tasks"] for row in rows}) > 1
        return [dict(row) | {"tasks_vary": vary} for row in rows]  # type: ignore[misc]

    @property
    def reasons(self) -> list[str]:
        """Why the thesis's numbers may differ."""
        return reasons_to_differ(self.answer.study)

    @property
    def cost_sentence(self) -> str:
        """Epochs, hours and what early stopping saved."""
        return cost_sentence(self.answer)

    @property
    def trial_columns(self) -> list[tuple[str, str, bool]]:
        """Heads of the table of trials, see `trial_columns`."""
        return trial_columns(self.answer.study)

    @property
    def trials_note(self) -> str:
        """Which trials the table shows, where these are not all; '' otherwise."""
        count = len(self.answer.study.trials)
        if count <= MOST_ROWS:
            return ""
        return f"Of {count:,} trials these are {MOST_ROWS}: some that failed or diverged, then the best."

    @property
    def trial_rows(self) -> list[list[dict[str, Any]]]:
        """Cells of the table of trials."""
        return trial_rows(self.answer.study)

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Where the numbers come from: name and value, unknown ones left out."""
        return provenance(self.answer.study.manifest, self.answer.study.trials)


def shown_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a cell table that the page shows: all, or of many the best of each arm."""
    if len(table) <= MOST_ROWS:
        return table
    rank = table.assign(better=~table["reference"], value=-table["val_miou"].astype(float))
    places = rank.sort_values(["better", "value"]).groupby(["context", "arm"], sort=False).cumcount()
    return table.loc[places.sort_values(kind="stable").index[:MOST_ROWS]].sort_index()


def _where(part: FactorialEffects | ResponseSurfaces) -> str:
    return f"{part.task}{f', {part.context}' if part.context else ''}"


def _others(row: Mapping[Any, Any]) -> str:
    """`2 stopped (showed 0.210), 1 diverged` of a cell."""
    words = []
    for status in ("stopped", "diverged", "failed", "unfinished"):
        if row[status]:
            text = f"{row[status]} {status}"
            if status == "stopped" and not pd.isna(row["shown"]):
                text += f" (showed {row['shown']:.3f})"
            words.append(text)
    return ", ".join(words)
