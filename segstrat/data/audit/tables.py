"""The findings of an audit as tables on a console."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segstrat.data.audit.overlap import Overlap
from segstrat.data.audit.report import AuditReport
from segstrat.data.protocols import DataProtocol

_SHOWN = 20
"""The first messages of a kind; the others are counted."""


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
