"""The table of a study's trials and the one of its cells, for the console and for `--status`."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from study.planning.trials import ARM_FIELDS, PlannedTrial
from study.state.trial_states import TrialRow

STYLES = {
    "running": "bold cyan",
    "retrying": "yellow",
    "completed": "green",
    "stopped": "dim",
    "diverged": "magenta",
    "failed": "bold red",
}
ORDER = ("running", "retrying", "ended", "failed", "diverged", "completed", "stopped", "waiting")


def varied_axes(trials: Sequence[PlannedTrial]) -> list[str]:
    """Axes, seed included, that take several values and are not told by the arm."""
    axes = dict.fromkeys(name for trial in trials for name in trial.axes if name not in ARM_FIELDS)
    return [name for name in axes if len({str(trial.axes.get(name)) for trial in trials}) > 1]


def new_table() -> Table:
    """An empty table in the console's one style, narrow enough for 80 columns."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))


def trials_table(rows: Sequence[TrialRow], metric: str, *, limit: int | None = None) -> Table:
    """A row a trial, those at work first; at most `limit` rows, and a last one that counts the rest.

    `wait` is the share of the last epoch's training time that was spent waiting for input.
    """
    task = metric.partition("_")[0]
    axes = varied_axes([row.trial for row in rows])
    table = new_table()
    table.add_column("arm", no_wrap=True)
    for axis in axes:
        table.add_column(axis.replace("_", " "), justify="right", no_wrap=True)
    for title in ("epoch", "train mIoU", "val mIoU", "wait"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status")
    shown = sorted(rows, key=lambda row: (ORDER.index(row.state), row.trial.order))
    hidden = len(shown) - limit if limit is not None and len(shown) > limit else 0
    for row in shown[: len(shown) - hidden]:
        last = row.last_report
        scores = [_last_score(row, task, split) for split in ("train", "val")]
        table.add_row(
            row.trial.arm,
            *(value_text(row.trial.axes.get(axis)) for axis in axes),
            f"{last.epoch if last else 0}/{row.trial.config.epochs}",
            *(f"{score:.3f}" if score is not None else "–" for score in scores),
            f"{last.data_wait:.0%}" if last else "–",
            status_text(row),
        )
    if hidden:
        table.add_row(Text(f"… and {hidden} more", style="dim"))
    return table


def status_text(row: TrialRow) -> Text:
    """A trial's state in words, with what made it so."""
    words: str = {"ended": "waits for its rung"}.get(row.state, row.state)
    if row.error and row.state in ("failed", "diverged", "retrying", "waiting"):
        words = f"{row.state}: {row.error}"
    return Text(words, style=STYLES.get(row.state, ""))


def cells_table(rows: Sequence[TrialRow], metric: str) -> Table:
    """A row a cell (arm × every axis but the seed): the metric after the last epoch, mean over seeds.

    Only completed trials have a final value; the others are counted beside it.
    """
    axes = [axis for axis in varied_axes([row.trial for row in rows]) if axis != "seed"]
    cells: dict[tuple, list[TrialRow]] = {}
    for row in rows:
        key = (row.trial.arm, *(row.trial.axes.get(axis) for axis in axes))
        cells.setdefault(key, []).append(row)
    table = new_table()
    table.add_column("arm", no_wrap=True)
    for axis in axes:
        table.add_column(axis.replace("_", " "), justify="right", no_wrap=True)
    table.add_column(metric.replace("_", " ").replace("miou", "mIoU"), justify="right", no_wrap=True)
    table.add_column("trials", no_wrap=True)
    for key, members in sorted(cells.items(), key=lambda cell: _sortable(cell[0])):
        values = [
            report.metrics()[metric]
            for member in members
            if member.state == "completed" and (report := member.last_report) and metric in report.metrics()
        ]
        states = [member.state for member in members]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        mean = f"{sum(values) / len(values):.3f}" if values else "–"
        table.add_row(key[0], *(value_text(value) for value in key[1:]), mean, counts)
    return table


def value_text(value: Any) -> str:
    """A value of an axis: short numbers, tasks joined by +."""
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(value) if isinstance(value, tuple | list) else str(value)


def _last_score(row: TrialRow, task: str, split: str) -> float | None:
    """The newest mIoU; the validation may be older than the last epoch."""
    tasks = row.trial.config.tasks
    for report in reversed(row.counted_reports):
        score = report.value(task if task in tasks else tasks[0], split, "miou")
        if score is not None:
            return score
    return None


def _sortable(key: tuple) -> tuple:
    return tuple(
        (isinstance(part, str), part) if isinstance(part, str | int | float) else (True, str(part))
        for part in key
    )
