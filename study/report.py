"""results/<study>/ -> report.html, verdict.json and figures/, rebuilt from the frames alone.

    python study/report.py results/<study> [more studies …] [--margin 0.01] [--out FILE]

Needs neither torch nor Ray. Several studies get, besides their own reports, one page together.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

import jinja2
import numpy as np

from segstrat.errors import UserError
from segstrat.formatting import format_value
from segstrat.store import Store
from study.analysis.answer import Answer, analyse, to_json
from study.analysis.study import Study
from study.analysis.verdict import MARGIN, points
from study.frame import OldFrameError
from study.reporting.figures import draw_pictures
from study.reporting.gallery import read_gallery
from study.reporting.page import Page

TEMPLATES = Path(__file__).parent / "reporting" / "templates"


def write_report(folder: str | Path | Store, *, files: bool = True, margin: float = MARGIN) -> str:
    """Writes report.html and verdict.json of a study and returns the report's one sentence.

    Args:
        files: also write each figure as SVG and PNG below figures/. Without them the study is taken to be
            running, and the page reloads itself.
        margin: the largest difference of mIoU that counts as none.

    Raises:
        UserError: if the folder holds no frames.
    """
    store = folder if isinstance(folder, Store) else Store(folder)
    sentence, _ = _report(store, files=files, margin=margin)
    return sentence


def _report(store: Store, *, files: bool, margin: float) -> tuple[str, Page | None]:
    """Writes a study's report; returns its sentence, and its page unless the frames are too old for one."""
    try:
        page = read_page(store, margin)
    except OldFrameError as problem:
        return _refuse(store, str(problem)), None
    store.write("verdict.json", json.dumps(to_json(page.answer), indent=1, ensure_ascii=False).encode())
    store.write("report.html", render([page], live=not files).encode())
    if files:
        for picture in page.pictures.all():
            for name, data in picture.files().items():
                store.write(f"figures/{name}", data)
    return page.sentence, page


def read_page(store: Store, margin: float = MARGIN) -> Page:
    """Analyses a study and draws its figures."""
    return make_page(analyse(Study.open(store), margin), store)


def make_page(answer: Answer, store: Store | None = None) -> Page:
    """A page of an answer; the gallery is looked for in the study's store."""
    galleries = [read_gallery(store, task) for task in answer.verdicts] if store is not None else []
    return Page(answer, draw_pictures(answer), [each for each in galleries if each is not None])


def render(pages: Sequence[Page], *, live: bool = False) -> str:
    """The text of a page of one or more studies."""
    template = _environment().get_template("report.html")
    return template.render(pages=pages, live=live, **_assets())


def _refuse(store: Store, problem: str) -> str:
    """A report that says why there is none."""
    content = {"schema": 1, "verdict": "undetermined", "sentence": f"Undetermined: {problem}."}
    store.write("verdict.json", json.dumps(content, indent=1, ensure_ascii=False).encode())
    page = _environment().get_template("refusal.html").render(problem=problem, **_assets())
    store.write("report.html", page.encode())
    return str(content["sentence"])


def _assets() -> dict[str, str]:
    return {
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "script": (TEMPLATES / "sort.js").read_text(encoding="utf-8"),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "slug": lambda text: str(text).replace(" ", "_"),
        "known": _known,
        "miou": lambda value: f"{value:.3f}" if _known(value) else "",
        "signed": lambda value: f"{100 * value:+.1f}".replace("-", "−") if _known(value) else "",
        "percent": lambda value: f"{100 * value:.0f} %".replace("-", "−"),
        "points": points,
        "plain": lambda value: f"{value:g}",
        "level": format_value,
    }
    return environment


def _known(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds the reports of the given studies; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="study/report.py", description="Rebuilds report.html of studies from their frames."
    )
    parser.add_argument(
        "studies", nargs="+", metavar="DIR", help="folder of a study, such as results/wd_grid"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        help="mIoU that counts as no difference (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, help="page of several studies together (default: report.html above the first)"
    )
    options = parser.parse_args(arguments)
    try:
        if not 0 <= options.margin < 1:
            raise UserError(f"--margin {options.margin}: expected a share of mIoU in [0, 1), such as 0.01")
        pages = []
        for folder in options.studies:
            sentence, page = _report(Store(folder), files=True, margin=options.margin)
            print(f"{folder}: {sentence}")
            pages += [page] if page else []
        if pages and len(options.studies) > 1:
            out = options.out or Path(options.studies[0]).parent / "report.html"
            out.write_text(render(pages), encoding="utf-8")
            print(f"all together: {out}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
