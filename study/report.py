"""results/<study>/ -> report.html, verdict.json and figures/, rebuilt from the frames alone.

    uv run python study/report.py results/<study> [more studies …] [--margin 0.01] [--no-images] [--out FILE]

Needs neither torch nor Ray. Several studies get, besides their own reports, one page together;
`--out` also writes the page of one study to another place.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

from segstrat.commands import StrictParser
from segstrat.errors import UserError
from segstrat.store import Store
from study.analysis.phrases import points
from study.analysis.verdict import MARGIN
from study.reporting.page import Page
from study.reporting.render import render, write_study_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds the reports of the given studies; returns the exit code."""
    try:
        options = make_parser().parse_strictly(arguments)
        check_options(options)
        pages = []
        for folder in options.studies:
            sentence, page = write_study_report(folder, margin=options.margin, images=options.images)
            print(f"{folder}: {sentence}")
            print(f"written with a margin of {points(options.margin)}: {where(folder, page)}")
            pages += [page] if page else []
        several = len(options.studies) > 1
        if pages and (several or options.out):
            out = options.out or Path(options.studies[0]).parent / "report.html"
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(render(pages), encoding="utf-8")
            print(f"{'all together' if several else 'the same page'}: {out}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check_options(options: argparse.Namespace) -> None:
    """Raises a UserError for values that an option cannot have."""
    if not 0 <= options.margin < 1:
        raise UserError(f"--margin {options.margin}: expected a share of mIoU in [0, 1), such as 0.01")
    if options.out is not None and options.out.is_dir():
        raise UserError(
            f"--out {options.out}: that is a folder; give a file, such as {options.out}/report.html"
        )
    parents = options.out.parents if options.out is not None else ()
    if blocking := next((path for path in parents if path.exists() and not path.is_dir()), None):
        raise UserError(f"--out {options.out}: {blocking} is a file, not a folder; choose another place")


def where(folder: str, page: Page | None) -> str:
    """The files that were written."""
    store = Store(folder)
    figures = [f"{len(page.every_picture)} figures in {(store / 'figures').uri}"] if page else []
    return ", ".join([(store / "report.html").uri, "verdict.json", *figures])


def make_parser() -> StrictParser:
    """The command line."""
    parser = StrictParser(
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
        "--no-images",
        dest="images",
        action="store_false",
        help="leave the images themselves out, for a page that is shared where they may not be; labels and "
        "predictions stay",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the page, of all studies together, to FILE (several: report.html above the first)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
