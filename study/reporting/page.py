"""What the report's template shows of one study: words and rows, no layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from segstrat.formatting import format_duration, format_value
from study.analysis import Answer
from study.analysis.names import axis_name
from study.analysis.study import Study
from study.analysis.thesis import comparison, reasons_to_differ
from study.analysis.verdict import Verdict
from study.analysis.wording import count_words
from study.reporting.figures import Pictures
from study.reporting.gallery import Gallery
from study.reporting.plot_cost import cost_table

HEADLINES = {
    "closes": "Closes the gap",
    "narrows": "Narrows the gap",
    "does not close": "Does not close the gap",
    "undetermined": "Undetermined",
}


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
        return HEADLINES[self.answer.label]

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
    def bounded(self) -> list[Verdict]:
        """Verdicts that stopped trials could change, with the label that ignores them."""
        return [verdict for verdict in self.answer.primary if verdict.bounds]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles, in the order of the page."""
        wanted = [
            ("answer", "In detail", bool(self.answer.primary)),
            ("change", "What would change it", bool(self.answer.primary)),
            ("claims", "Claims", bool(self.answer.primary)),
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

    @property
    def cells(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the cell table, by task."""
        found = {}
        for task, table in self.answer.cells.items():
            if not table.empty:
                found[task] = [dict(row) | {"others": _others(row)} for row in table.to_dict("records")]
        return found  # type: ignore[return-value]

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
        return f"{text}."

    @property
    def trial_columns(self) -> list[dict[str, Any]]:
        """Heads of the table of trials."""
        return [{"title": title, "numeric": numeric} for title, _, numeric in _columns(self.answer.study)]

    @property
    def trial_rows(self) -> list[list[dict[str, Any]]]:
        """Cells of the table of trials."""
        study = self.answer.study
        columns = _columns(study)
        return [
            [_cell(trial.get(key), numeric=numeric, chip=key == "status") for _, key, numeric in columns]
            for trial in _rows(study)
        ]

    @property
    def source(self) -> str:
        """The space's file."""
        return str(self.answer.study.manifest.get("space_source", ""))

    @property
    def provenance(self) -> list[tuple[str, str]]:
        """Where the numbers come from: name and value, unknown ones left out."""
        manifest = self.answer.study.manifest
        data, weights = manifest.get("data") or {}, manifest.get("weights") or {}
        commit = str(manifest.get("commit") or "")
        if commit and manifest.get("dirty"):
            commit += " and changes that were not committed"
        images = ""
        if "train_images" in data:
            images = f", {data['train_images']} training and {data.get('val_images')} validation images"
        scheduler = manifest.get("scheduler") or {}
        rungs = ", ".join(f"{share:g}" for share in scheduler.get("rung_fractions", []))
        halving = (
            f"successive halving within each arm: factor {scheduler.get('reduction_factor')}, rungs at "
            f"{rungs} of each trial's budget"
        )
        known = {
            "command": manifest.get("command"),
            "created": manifest.get("created"),
            "commit": commit,
            "data": f"{data['name']}{images}" if "name" in data else "",
            "data digest": data.get("digest"),
            "weights": str(weights.get("source") or "").rpartition("/")[2],
            "weights digest": weights.get("digest"),
            "seeds": ", ".join(str(seed) for seed in manifest.get("seeds") or []),
            "scheduler": halving if scheduler.get("name") == "asha" else scheduler.get("name"),
            "budget": f"{manifest['budget']:g} of the space's epochs" if "budget" in manifest else "",
            "hardware": _words(manifest.get("hardware")),
            "versions": _words(manifest.get("versions")),
            "confirms": _parent(manifest.get("parent")),
        }
        return [(name, str(value)) for name, value in known.items() if value]


def _others(row: Mapping[Any, Any]) -> str:
    """`2 stopped (mean would lie in 0.41–0.47), 1 diverged` of a cell."""
    words = []
    for status in ("stopped", "diverged", "failed", "unfinished"):
        if row[status]:
            text = f"{row[status]} {status}"
            if status == "stopped" and not pd.isna(row["bound_high"]):
                text += f" (cell mean within {row['bound_low']:.3f}–{row['bound_high']:.3f})"
            words.append(text)
    return ", ".join(words)


def _columns(study: Study) -> list[tuple[str, str, bool]]:
    """Title, key and whether it is a number, of each column of the table of trials."""
    varied = [axis for role in ("nuisance", "treatment") for axis in study.axes(role)]
    columns = [("trial", "trial_id", False), ("arm", "arm", False)]
    columns += [(axis_name(axis), axis, True) for axis in varied]
    columns += [("seed", "seed", True), ("status", "status", False), ("epochs", "epochs", True)]
    for task in study.tasks:
        word = f"{task} " if len(study.tasks) > 1 else ""
        columns += [
            (f"{word}val mIoU", f"final {task}", True),
            (f"{word}last shown", f"shown {task}", True),
            (f"{word}best epoch", f"{task}_val_miou", True),
            (f"{word}train mIoU", study.column(task, "train", "miou"), True),
        ]
    columns += [("minutes", "minutes", True)]
    if study.trials["error"].map(lambda text: isinstance(text, str) and text != "").any():
        columns.append(("message", "error", False))
    return columns


def _rows(study: Study) -> list[dict[str, Any]]:
    trials = study.trials.sort_values(["arm", *study.axes("treatment"), "seed"])
    rows = []
    for trial in trials.to_dict("records"):
        row: dict[str, Any] = {str(key): value for key, value in trial.items()}
        done = row["status"] == "completed"
        for task in study.tasks:
            value = row[study.column(task, "val", "miou")]
            row[f"final {task}"], row[f"shown {task}"] = (value, None) if done else (None, value)
        row["epochs"] = f"{row['epochs_run']}/{row['epochs_budget']}"
        seconds = row.get("seconds")
        row["minutes"] = None if seconds is None or pd.isna(seconds) else seconds / 60
        rows.append(row)
    return rows


def _cell(value: Any, *, numeric: bool, chip: bool) -> dict[str, Any]:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return {"text": "", "value": "", "numeric": numeric, "chip": False}
    if isinstance(value, float) and numeric:
        text = format_value(value) if abs(value) < 0.1 or value >= 10 else f"{value:.3f}"
        return {"text": text, "value": f"{value:.9g}", "numeric": True, "chip": False}
    if isinstance(value, str) and "/" in value and numeric:
        return {"text": value, "value": value.partition("/")[0], "numeric": True, "chip": False}
    return {"text": str(value), "value": None, "numeric": numeric, "chip": chip}


def _parent(parent: Mapping[str, Any] | None) -> str:
    if not parent:
        return ""
    return f"the best {parent['top']} cells of each arm of {parent['study']} ({parent['folder']})"


def _words(value: Any) -> str:
    """Nested plain values in a line of words."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} {_words(item)}".strip() for key, item in value.items() if item not in (None, "", [])
        )
    if isinstance(value, list):
        return "; ".join(_words(item) for item in value)
    return "" if value is None else str(value)
