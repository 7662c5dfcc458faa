"""The table of a study's trials and the one of its cells, for the console and for `--status`."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from segstrat.formatting import format_value
from segstrat.records import TrialStatus
from study.planning.trials import ARM_FIELDS, PlannedTrial
from study.state.trial_states import TrialState

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
    """Axes, seed included, that take several values and are not part of the arm's name."""
    axes = dict.fromkeys(name for trial in trials for name in trial.axes if name not in ARM_FIELDS)
    return [name for name in axes if len({str(trial.axes.get(name)) for trial in trials}) > 1]


def new_table() -> Table:
    """An empty table in the console's style, narrow enough for 80 columns."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))


def trials_table(states: Sequence[TrialState], metric: str, *, limit: int | None = None) -> Table:
    """One row per trial, running ones first; at most `limit` rows and a last one that counts the others.

    `wait` is the share of the last epoch's training time that was spent waiting for input.
    """
    task = metric.partition("_")[0]
    axes = varied_axes([state.trial for state in states])
    table = new_table()
    table.add_column("arm", no_wrap=True)
    for axis in axes:
        table.add_column(axis.replace("_", " "), justify="right", no_wrap=True)
    for title in ("epoch", "train mIoU", "val mIoU", "wait"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status")
    shown = sorted(states, key=lambda state: (ORDER.index(state.shown), state.trial.order))
    hidden = len(shown) - limit if limit is not None and len(shown) > limit else 0
    for state in shown[: len(shown) - hidden]:
        last = state.record.last_report
        scores = [_last_score(state, task, split) for split in ("train", "val")]
        table.add_row(
            state.trial.arm,
            *(format_value(state.trial.axes.get(axis)) for axis in axes),
            f"{last.epoch if last else 0}/{state.trial.config.epochs}",
            *(f"{score:.3f}" if score is not None else "–" for score in scores),
            f"{last.data_wait:.0%}" if last else "–",
            status_text(state),
        )
    if hidden:
        table.add_row(Text(f"… and {hidden} more", style="dim"))
    return table


def status_text(state: TrialState) -> Text:
    """A trial's status in words, with its cause where there is one."""
    words = {"ended": "waits for a decision at its rung"}.get(state.shown, state.shown)
    reason = state.record.error or state.record.problem
    if reason and state.shown not in ("running", "completed", "stopped"):
        words = f"{words}: {reason}"
    return Text(words, style=STYLES.get(state.shown, ""))


def cells_table(states: Sequence[TrialState], metric: str) -> Table:
    """One row per cell (arm × every axis but the seed): the metric after the last epoch, mean over seeds.

    Only completed trials have a final value; the others are counted only.
    """
    axes = [axis for axis in varied_axes([state.trial for state in states]) if axis != "seed"]
    cells: dict[tuple, list[TrialState]] = {}
    for state in states:
        key = (state.trial.arm, *(state.trial.axes.get(axis) for axis in axes))
        cells.setdefault(key, []).append(state)
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
            if member.record.status is TrialStatus.COMPLETED
            and (report := member.record.last_report)
            and metric in report.metrics()
        ]
        shown = [member.shown for member in members]
        counts = ", ".join(f"{shown.count(status)} {status}" for status in dict.fromkeys(shown))
        mean = f"{sum(values) / len(values):.3f}" if values else "–"
        table.add_row(key[0], *(format_value(value) for value in key[1:]), mean, counts)
    return table


def _last_score(state: TrialState, task: str, split: str) -> float | None:
    """The newest mIoU; the validation may be older than the last epoch."""
    tasks = state.trial.config.tasks
    for report in reversed(state.record.reports):
        score = report.value(task if task in tasks else tasks[0], split, "miou")
        if score is not None:
            return score
    return None


def _sortable(key: tuple) -> tuple:
    return tuple(
        (isinstance(part, str), part) if isinstance(part, str | int | float) else (True, str(part))
        for part in key
    )
