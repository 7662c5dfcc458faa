"""The command `uv run python -m segstrat.data.audit d1 --root DIR`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segstrat.commands import StrictParser
from segstrat.data.audit.checks import AuditReport, audit
from segstrat.data.audit.overlap import Overlap, overlaps, published_lists
from segstrat.data.audit.sheet import SHEETS, write_sheet
from segstrat.data.protocols import DataProtocol, build_protocol
from segstrat.errors import UserError
from segstrat.store import cache_dir

_SHOWN = 20
"""The first messages of a kind; the others are counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if the data is fine, 1 if it has errors, 2 if it cannot be found."""
    parser = StrictParser(
        prog="python -m segstrat.data.audit",
        description="Reads every image and label of a protocol and reports errors and warnings.",
    )
    parser.add_argument("protocol", help="name of the protocol, for example d1")
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("SEGSTRAT_DATA"), help="data root ($SEGSTRAT_DATA)"
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="folder of the audit's stamp (default: the user's cache)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    verbose = False
    try:
        options = parser.parse_strictly(arguments)
        verbose = options.verbose
        return _run(options)
    except (UserError, OSError) as error:
        if verbose:
            raise
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2


def _run(options: argparse.Namespace) -> int:
    cache = options.cache_dir or cache_dir()
    protocol = build_protocol(options.protocol, options.root)
    report = audit(protocol, full=True, cache_dir=cache, progress=True)
    # The published data sets are not part of a user's folder.
    published = options.root and not protocol.own
    rows = overlaps(published_lists(Path(options.root))) if published else []
    console = Console()
    show(report, protocol, rows, console)
    page = write_sheet(protocol, cache / SHEETS, [*report.errors, *report.warnings])
    console.print(f"Look at the labels before you train: {page}", markup=False, soft_wrap=True)
    return 1 if report.errors else 0


def show(report: AuditReport, protocol: DataProtocol, rows: Sequence[Overlap], console: Console) -> None:
    """Prints splits, classes, lists that share images, errors and warnings."""
    console.print(f"Protocol {escape(protocol.name)}, digest {protocol.digest}")
    console.print(_splits_table(report, protocol))
    for task in report.pixels:
        console.print(f"Task {escape(task)}: share of the labelled pixels")
        console.print(_classes_table(report, protocol, task))
    if rows:
        console.print("Images that split lists share")
        console.print(_overlaps_table(rows))
    for kind, messages in (("warning", report.warnings), ("error", report.errors)):
        for message in messages[:_SHOWN]:
            console.print(f"{kind}: {message}", markup=False, highlight=False, soft_wrap=True)
        if len(messages) > _SHOWN:
            console.print(f"{kind}: {len(messages) - _SHOWN} more")
    verdict = f"{len(report.errors)} errors, fix them before training" if report.errors else "no errors"
    console.print(f"{escape(protocol.name)}: {verdict}, {len(report.warnings)} warnings")


def _splits_table(report: AuditReport, protocol: DataProtocol) -> Table:
    tasks = list(report.labelled)
    table = Table("split", "images", "official", *(f"labelled for {escape(task)}" for task in tasks))
    for split, count in report.images.items():
        official = protocol.official.get(split)
        labelled = [f"{report.labelled[task][split]:,}" for task in tasks]
        table.add_row(split, f"{count:,}", "–" if official is None else f"{official:,}", *labelled)
    return table


def _classes_table(report: AuditReport, protocol: DataProtocol, task: str) -> Table:
    splits = report.pixels[task]
    table = Table("class", *splits)
    totals = {split: max(1, sum(counts)) for split, counts in splits.items()}
    for index, name in enumerate(protocol.tasks[task].classes):
        shares = [f"{counts[index] / totals[split]:.3%}" for split, counts in splits.items()]
        table.add_row(escape(name), *shares)
    return table


def _overlaps_table(rows: Sequence[Overlap]) -> Table:
    columns = ("list", "other list", "in both", "in the first alone", "published lists")
    table = Table(*columns)
    for row in rows:
        both, alone = row.published
        same = row.published == (row.common, row.left_only)
        published = "the same" if same else f"{both:,} and {alone:,}"
        table.add_row(row.left, row.right, f"{row.common:,}", f"{row.left_only:,}", published)
    return table


if __name__ == "__main__":
    sys.exit(main())
