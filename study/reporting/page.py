"""What the report's template shows of one study: words and rows, no layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from segstrat.formatting import format_duration
from study.analysis import Answer
from study.analysis.answering.stages import planned_looks
from study.analysis.caveats_and_notes import outcome_sentences, reading_notes
from study.analysis.cells import cell_table
from study.analysis.sections.thesis_numbers import comparison, reasons_to_differ
from study.analysis.verdict_sentences import count_words, verdict_headline
from study.reporting.effects_section import EffectsSection, effects_sections
from study.reporting.figures import Pictures
from study.reporting.gallery import Gallery
from study.reporting.plot_cost import cost_table
from study.reporting.provenance import provenance
from study.reporting.trials_table import trial_cell, trial_columns, trial_rows


@dataclass(frozen=True)
class Page:
    """One study on the page; field names are those of the template."""

    answer: Answer
    pictures: Pictures
    galleries: list[Gallery]

    @property
    def name(self) -> str:
        """The study's name."""
        return self.answer.study.name

    @property
    def slug(self) -> str:
        """Anchor of the study."""
        return "".join(c if c.isalnum() else "-" for c in self.name)

    @property
    def data(self) -> str:
        """Name of the data."""
        return self.answer.study.data_name

    @property
    def question(self) -> str:
        """The space's question."""
        return str(self.answer.study.manifest.get("question", ""))

    @property
    def label(self) -> str:
        """The verdict."""
        return self.answer.label

    @property
    def headline(self) -> str:
        """The verdict in large letters."""
        causes = {verdict.cause for verdict in self.answer.primary}
        return verdict_headline(self.answer.label, causes.pop() if len(causes) == 1 else None)

    @property
    def sentence(self) -> str:
        """The verdict in a paragraph."""
        return self.answer.sentence

    @property
    def several(self) -> bool:
        """Whether the study has several contexts."""
        return any(len(verdicts) > 1 for verdicts in self.answer.verdicts.values())

    @property
    def trial_words(self) -> str:
        """`36 trials: 34 completed, 2 stopped`."""
        total = sum(self.answer.counts.values())
        return f"{total} trials: {count_words(self.answer.counts)}" if total else "no trials"

    @property
    def claims_shown(self) -> bool:
        """Whether the thesis's claims are judged; not on data of the user's own."""
        return bool(self.answer.sections["claims"])

    @property
    def claims_note(self) -> str:
        """How p-values of hypothesis and claims are adjusted."""
        looks = planned_looks(self.answer.study)
        several = f"over the {looks} planned looks (Bonferroni) and " if looks > 1 else ""
        return (
            f"By p-values that are adjusted {several}over all effects and contexts (Holm). The intervals are "
            "not adjusted."
        )

    @property
    def contrast_rows(self) -> list[dict[str, Any]]:
        """Each contrast with its interval over seeds, and over seeds and images."""
        words = {
            "gap": "gap: best pre-trained − reference",
            "improvement": "gained: best regularized raw − reference",
            "remaining": "remaining: best pre-trained − best regularized raw",
        }
        return [
            {
                "context": verdict.context.label,
                "words": text,
                "seeds": getattr(verdict.contrasts, name),
                "images": verdict.with_images.get(name),
            }
            for verdict in self.answer.primary
            for name, text in words.items()
        ]

    @property
    def looks(self) -> list[dict[str, Any]]:
        """The looks of the answering stage: what each found, what it spent, and what the next one costs."""
        return [
            {
                "context": verdict.context.label,
                "number": look.number,
                "looks": look.looks,
                "seeds": look.seeds,
                "gap": look.gap,
                "improvement": look.improvement,
                "remaining": look.remaining,
                "spent": look.spent,
                "reason": look.reason,
                "next": f"{look.next_seeds} seeds, {look.next_trials} more trials" if look.next_seeds else "",
            }
            for verdict in self.answer.primary
            for look in (verdict.stage.looks if verdict.stage else ())
        ]

    @property
    def notes(self) -> list[str]:
        """How the numbers were made, one sentence each."""
        return reading_notes(self.answer.study, self.answer.primary)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles, in the order of the page."""
        wanted = [
            ("answer", "In detail", bool(self.answer.primary)),
            ("change", "What would change it", bool(self.answer.primary)),
            ("claims", "Claims", self.claims_shown),
            ("effects", "Main effects", bool(self.effects)),
            ("cells", "Arms and treatments", bool(self.pictures.treatments or self.cells)),
            ("training", "Training", bool(self.pictures.training)),
            ("classes", "Classes", bool(self.pictures.classes)),
            ("gallery", "Predictions", True),
            ("thesis", "Comparison with the thesis", bool(self.comparison)),
            ("cost", "Cost", True),
            ("trials", "Trials", True),
            ("provenance", "Provenance", True),
        ]
        return [(anchor, title) for anchor, title, shown in wanted if shown]

    @cached_property
    def cells(self) -> dict[str, list[dict[Any, Any]]]:
        """Rows of the cell table, by task."""
        tables = {task: cell_table(self.answer.study, task) for task in self.answer.verdicts}
        return {
            task: [row | {"others": _others(row)} for row in table.to_dict("records")]
            for task, table in tables.items()
            if not table.empty
        }

    @property
    def effects(self) -> list[EffectsSection]:
        """Factorial effects and response surfaces, one per context."""
        return effects_sections(self.answer)

    @property
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
        table = cost_table(self.answer.study)
        epochs, budget, saved = (int(table[name].sum()) for name in ("epochs", "budget", "saved"))
        if epochs == 0:
            return "Nothing has run yet."
        text = f"{epochs:,} of {budget:,} planned epochs ran".replace(",", " ")
        if saved:
            text += f"; stopping trials early saved {saved:,} ({saved / budget:.0%})".replace(",", " ")
        if "hours" in table and table["hours"].sum() > 0:
            text += f". Trials took {format_duration(3600 * float(table['hours'].sum()))} in all"
            devices = [
                str(device)
                for device in self.answer.study.trials.get("device", pd.Series()).dropna().unique()
            ]
            if devices:
                text += f" on {', '.join(devices)}"
        return " ".join([f"{text}.", *outcome_sentences(self.answer.primary)])

    @property
    def trial_columns(self) -> list[dict[str, Any]]:
        """Heads of the table of trials."""
        return [
            {"title": title, "numeric": numeric} for title, _, numeric in trial_columns(self.answer.study)
        ]

    @property
    def trial_rows(self) -> list[list[dict[str, Any]]]:
        """Cells of the table of trials."""
        study = self.answer.study
        columns = trial_columns(study)
        return [
            [trial_cell(trial.get(key), numeric=numeric, chip=key == "status") for _, key, numeric in columns]
            for trial in trial_rows(study)
        ]

    @property
    def source(self) -> str:
        """The space's file."""
        return str(self.answer.study.manifest.get("space_source", ""))

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Where the numbers come from: name and value, unknown ones left out."""
        return provenance(self.answer.study.manifest, self.answer.study.trials)


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
