"""results/<study>/ -> report.html, verdict.json and figures/, rebuilt from the frames alone.

    uv run python study/report.py results/<study> [more studies …] [--margin 0.01] [--out FILE]

Needs neither torch nor Ray. Several studies get, besides their own reports, one page together.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

from segstrat.errors import UserError
from study.analysis.verdict import MARGIN
from study.reporting.render import render, write_study_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuilds the reports of the given studies; returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        if not 0 <= options.margin < 1:
            raise UserError(f"--margin {options.margin}: expected a share of mIoU in [0, 1), such as 0.01")
        pages = []
        for folder in options.studies:
            sentence, page = write_study_report(folder, margin=options.margin)
            print(f"{folder}: {sentence}")
            pages += [page] if page else []
        if pages and len(options.studies) > 1:
            out = options.out or Path(options.studies[0]).parent / "report.html"
            out.write_text(render(pages), encoding="utf-8")
            print(f"all together: {out}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
