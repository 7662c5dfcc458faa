"""A study's frames -> report.html, verdict.json and figures/. Needs neither torch nor Ray."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from segstrat.formatting import format_value
from segstrat.store import Store
from study.analysis.answer import Answer, answer_study
from study.analysis.caveats_and_notes import is_rehearsal
from study.analysis.intervals import Interval
from study.analysis.phrases import points
from study.analysis.study import Context, Study
from study.analysis.verdict import MARGIN
from study.analysis.verdict_sentences import contrast_question
from study.frame import SELF_SUPERVISION, OldFrameError
from study.reporting.figure_files import Picture
from study.reporting.figure_style import theme_css
from study.reporting.gallery import overview, read_gallery
from study.reporting.page import Page, draw_pictures
from study.reporting.plot_self_supervision import self_supervision_of

FIGURES = "figures"
OVERVIEW = "overview.png"
# Names of the files that the last report wrote into the folder of figures.
FIGURE_LIST = "files.txt"
TEMPLATES = Path(__file__).parent / "templates"
# What a reader may open beside the page.
FILES = {
    "trials.csv": "one row per trial",
    "epochs.csv": "one row per trial, epoch, split and task",
    "cells.csv": "one row per cell, where there are more than the page shows",
    "verdict.json": "the answer and the numbers behind it",
    "manifest.json": "command, space, commit, versions, hardware, data digest",
    f"{FIGURES}/": "every figure as SVG and PNG",
    "trials/": "records and checkpoints of every trial",
    SELF_SUPERVISION: "what self-supervision learned: loss, errors, probes, pictures",
    "trials.parquet": "the trials with their types",
    "epochs.parquet": "the epochs with their types",
}


def write_report(folder: str | Path | Store, *, files: bool = True) -> str:
    """Writes report.html and verdict.json of a study and returns the report's one sentence.

    Args:
        files: also write each figure as SVG and PNG to figures/, but for those of a rehearsal. Without them
            the study is taken to be running, and the page reloads itself.

    Raises:
        UserError: if the folder has no frames.
    """
    return write_study_report(folder, files=files)[0]


def write_study_report(
    folder: str | Path | Store, *, files: bool = True, margin: float = MARGIN, images: bool = True
) -> tuple[str, Page | None]:
    """The same; also returns the page, or None if the frames are too old for one.

    Args:
        margin: the largest difference of mIoU that counts as none.
        images: whether the page and the overview may show images, besides labels and predictions.
    """
    store = folder if isinstance(folder, Store) else Store(folder)
    try:
        page = make_page(answer_study(Study.open(store), margin), store, images=images)
    except OldFrameError as problem:
        return _refuse(store, str(problem)), None
    store.write("verdict.json", _json(page.answer.to_dict()))
    if page.hides_cells:
        tables = [table.assign(task=task) for task, table in page.cell_tables.items()]
        store.write("cells.csv", pd.concat(tables).to_csv(index=False).encode())
    else:
        store.delete("cells.csv")
    # Nobody prints the figures of a rehearsal, and they would take longer than its page.
    rehearsal = is_rehearsal(page.answer.study)
    present = {*store.names(), *([FIGURES] if files else [])} - ({FIGURES} if rehearsal else set())
    beside = [name for name in FILES if name.rstrip("/") in present]
    store.write("report.html", render([page], live=not files, beside=beside).encode())
    if files:
        _write_figures(page, store / FIGURES, [] if rehearsal else page.every_picture)
    return page.answer.sentence, page


def _write_figures(page: Page, folder: Store, printed: Sequence[Picture]) -> None:
    """Writes figures and the overview, and deletes those of an earlier report that this one does not have."""
    written = {name: data for picture in printed for name, data in picture.files().items()}
    if page.galleries:
        written[OVERVIEW] = overview(page.galleries[0], page.answer.lines)
    before = (
        folder.read(FIGURE_LIST).decode(errors="replace").split("\n") if folder.exists(FIGURE_LIST) else []
    )
    # Only files that a report wrote: the folder may contain a user's own.
    for name in set(before) & set(folder.names()) - set(written):
        folder.delete(name)
    for name, data in written.items():
        folder.write(name, data)
    folder.write(FIGURE_LIST, "\n".join(sorted(written)).encode())


def make_page(answer: Answer, store: Store | None = None, *, images: bool = True) -> Page:
    """A page of an answer; gallery and confusions are looked for in the study's store."""
    found = [read_gallery(store, task) for task in answer.verdicts] if store is not None else []
    galleries = [gallery for gallery in found if gallery is not None]
    own = self_supervision_of(store) if store is not None else None
    if not images:
        galleries = [gallery.without_images() for gallery in galleries]
        own = replace(own, shows_example=False) if own is not None else None
    return Page(answer, draw_pictures(answer, store), galleries, own)


def render(pages: Sequence[Page], *, live: bool = False, beside: Sequence[str] = ()) -> str:
    """The text of a page of one or more studies.

    Args:
        live: the study runs, and the page reloads itself.
        beside: files in the page's folder, to which it links.
    """
    template = _environment().get_template("report.html")
    return template.render(pages=pages, live=live, beside={name: FILES[name] for name in beside}, **_assets())


def _refuse(store: Store, problem: str) -> str:
    """A report that says why there is none."""
    sentence = f"Undetermined: {problem}."
    store.write("verdict.json", _json({"schema": 1, "verdict": "undetermined", "sentence": sentence}))
    page = _environment().get_template("refusal.html").render(problem=problem, **_assets())
    store.write("report.html", page.encode())
    return sentence


def _json(content: dict) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()


def _assets() -> dict[str, str]:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return {
        "style": f"{style}\n{theme_css()}\n",
        "script": (TEMPLATES / "page.js").read_text(encoding="utf-8"),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "slug": lambda text: str(text).replace(" ", "_"),
        "known": _known,
        "miou": lambda value: f"{value:.3f}" if _known(value) else "",
        "signed": _signed,
        "percent": _percent,
        "ends": _ends,
        "share": lambda value: f"{100 * value:.0f} %",
        "points": points,
        "value": format_value,
        "contrasts": _contrast_words,
        "question": contrast_question,
    }
    return environment


def _contrast_words(context: Context) -> dict[str, str]:
    return {
        "gap": f"gap: best {context.pretrained_name} − reference",
        "improvement": f"gained: best regularized {context.raw_name} − reference",
        "remaining": f"remaining: best {context.pretrained_name} − best regularized {context.raw_name}",
    }


def _known(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _signed(value: float | None) -> str:
    return f"{100 * value:+.1f}".replace("-", "−") if value is not None and _known(value) else ""


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "−")


def _ends(interval: Interval | Mapping[str, Any], percent: bool = False) -> str:
    """`+1.0 to +5.2`, or `at least +1.0` where the other end is open."""
    write = _percent if percent else _signed
    values = interval if isinstance(interval, Mapping) else vars(interval)
    low, high = values["low"], values["high"]
    if math.isinf(high):
        return f"at least {write(low)}"
    return f"at most {write(high)}" if math.isinf(low) else f"{write(low)} to {write(high)}"
