"""The table of a study's trials and the one of its cells, fitted to the width of the console."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from segstrat.formatting import format_value
from segstrat.records import TrialStatus
from segstrat.scores import Metric
from study.planning.trials import ARM_FIELDS, PlannedTrial
from study.state.pretrainings import PretrainState
from study.state.trial_states import TrialState

STYLES = {
    "running": "bold cyan",
    "retrying": "yellow",
    "completed": "green",
    "stopped": "dim",
    "diverged": "magenta",
    "failed": "bold red",
}
PROBLEMS = ("failed", "diverged", "retrying")
ORDER = ("running", "retrying", "ended", "failed", "diverged", "completed", "stopped", "waiting")


def varied_axes(trials: Sequence[PlannedTrial]) -> list[str]:
    """Axes, seed included, that take several values and are not part of the arm's name."""
    axes = dict.fromkeys(name for trial in trials for name in trial.axes if name not in ARM_FIELDS)
    return [name for name in axes if len({str(trial.axes.get(name)) for trial in trials}) > 1]


def trials_table(
    states: Sequence[TrialState],
    metric: Metric,
    pretrainings: Sequence[PretrainState] = (),
    *,
    width: int,
    limit: int | None = None,
) -> Table:
    """One row per pre-training that is not complete and per trial, running ones first.

    At most `limit` rows, and a last one that counts the others.

    `wait` is the share of the last epoch's training time that was spent waiting for input.

    Args:
        width: of the console, in characters.
    """
    rows: list[TrialState | PretrainState] = [*states, *(each for each in pretrainings if not each.made)]
    rows.sort(key=_place)
    hidden = len(rows) - limit if limit is not None and len(rows) > limit else 0
    rows = rows[: len(rows) - hidden]
    axes = varied_axes([state.trial for state in states])

    def scores(split: str) -> list[str]:
        return [_last_score(row, metric, split) for row in rows]

    columns = [
        Column(title="arm", cells=[_name(row) for row in rows]),
        *(Column(title=axis_title(axis), cells=[_axis_value(row, axis) for row in rows]) for axis in axes),
        Column(title="epoch", cells=[_epochs(row) for row in rows]),
        Column(title=f"val\n{metric.words}", cells=scores("val")),
        Column(title=f"train\n{metric.words}", cells=scores("train"), optional=True),
        Column(title="wait", cells=[_data_wait(row) for row in rows], optional=True),
        Column(title="status", cells=[status_text(row) for row in rows]),
    ]
    table = fitted_table(columns, width)
    if hidden:
        table.add_row(Text(f"… {hidden:,} more", style="dim"))
    return table


def status_text(state: TrialState | PretrainState) -> Text:
    """A job's status in words, with its cause where there is one; of a pre-training, also its accuracy."""
    if isinstance(state, PretrainState):
        words = "completed" if state.made else str(state.phase)
        score = f", {state.last}".partition(", top-5")[0] if state.last else ""
        return Text(f"{words}{score}{f': {state.error}' if state.error else ''}", style=STYLES.get(words, ""))
    words = {"ended": "waits for a decision at its rung"}.get(state.shown, state.shown)
    reason = state.record.error or state.record.problem
    if reason and state.shown not in ("running", "completed", "stopped"):
        words = f"{words}: {reason}"
    return Text(words, style=STYLES.get(state.shown, ""))


def problem_lines(states: Sequence[TrialState], most: int | None = None) -> list[str]:
    """One line for each message of trials that failed or diverged, in full length.

    Trials with the same message share a line that names the first of them; at most `most` lines, and a last
    one that counts the others.
    """
    by_words: dict[str, list[TrialState]] = {}
    for state in states:
        words = str(status_text(state))
        if words != state.shown and state.shown in PROBLEMS:
            by_words.setdefault(words, []).append(state)
    lines = [
        f"{members[0].trial.label}{f' and {len(members) - 1} more' if len(members) > 1 else ''}: {words}"
        for words, members in by_words.items()
    ]
    return [*lines[:most], *([f"… {len(lines[most:]):,} more messages"] if lines[:most] != lines else [])]


def first_shown(states: Sequence[TrialState], limit: int) -> list[TrialState]:
    """The trials that a table of at most `limit` rows shows."""
    return sorted(states, key=_place)[:limit]


def status_counts(states: Sequence[TrialState]) -> str:
    """`12 completed, 1 failed`, in the order of the trials."""
    return ", ".join(
        f"{count:,} {status}" for status, count in Counter(state.shown for state in states).items()
    )


def cells_table(states: Sequence[TrialState], metric: Metric, *, width: int) -> Table:
    """One row per cell (arm × every axis but the seed), raw first: the metric after the last epoch, mean
    over seeds.

    Only completed trials have a final value; the others are counted only.

    Args:
        width: of the console, in characters.
    """
    axes = [axis for axis in varied_axes([state.trial for state in states]) if axis != "seed"]
    cells: dict[tuple, list[TrialState]] = {}
    for state in states:
        trial = state.trial
        key = (trial.config.pretrained, trial.arm, *(trial.axes.get(axis) for axis in axes))
        cells.setdefault(key, []).append(state)
    rows = [members for _, members in sorted(cells.items(), key=lambda cell: _sortable(cell[0]))]
    firsts = [members[0].trial for members in rows]
    columns = [
        Column(title="arm", cells=[trial.arm for trial in firsts]),
        *(
            Column(title=axis_title(axis), cells=[format_value(trial.axes.get(axis)) for trial in firsts])
            for axis in axes
        ),
        Column(
            title=two_lines(f"{metric.task} val {metric.words}"),
            cells=[_mean_of_completed(members, metric) for members in rows],
        ),
        Column(title="trials", cells=[status_counts(members) for members in rows]),
    ]
    return fitted_table(columns, width)


def axis_title(axis: str) -> str:
    """The title of an axis's column."""
    return two_lines(axis.replace("_", " "))


def _place(row: TrialState | PretrainState) -> tuple[int, int]:
    """Position in the table: by status, then pre-trainings, which trials wait for, then in order."""
    if isinstance(row, PretrainState):
        return ORDER.index(row.phase), -1
    return ORDER.index(row.shown), row.trial.order


def _name(row: TrialState | PretrainState) -> str:
    return row.trial.arm if isinstance(row, TrialState) else f"pre-train {row.job.pretraining.backbone}"


def _axis_value(row: TrialState | PretrainState, axis: str) -> str:
    if isinstance(row, TrialState):
        return format_value(row.trial.axes.get(axis))
    return str(row.job.pretraining.seed) if axis == "seed" else ""


def _epochs(row: TrialState | PretrainState) -> str:
    if isinstance(row, PretrainState):
        return f"{row.epoch}/{row.job.epochs}"
    report = row.record.last_report
    return f"{report.epoch if report else 0}/{row.trial.config.epochs}"


def _data_wait(row: TrialState | PretrainState) -> str:
    report = row.record.last_report if isinstance(row, TrialState) else None
    return f"{report.data_wait:.0%}" if report else "–"


def _mean_of_completed(states: Sequence[TrialState], metric: Metric) -> str:
    values = [
        value
        for state in states
        if state.record.status is TrialStatus.COMPLETED
        and (report := state.record.last_report)
        and (value := metric.of_report(report)) is not None
    ]
    return f"{sum(values) / len(values):.3f}" if values else "–"


def _last_score(row: TrialState | PretrainState, metric: Metric, split: str) -> str:
    """The newest score; the validation may be older than the last epoch."""
    if isinstance(row, TrialState):
        tasks = row.trial.config.tasks
        for report in reversed(row.record.reports):
            score = metric.of(metric.task if metric.task in tasks else tasks[0]).of_report(report, split)
            if score is not None:
                return f"{score:.3f}"
    return "–"


def _sortable(key: tuple) -> tuple:
    return tuple(
        (isinstance(part, str), part) if isinstance(part, str | int | float) else (True, str(part))
        for part in key
    )


GAP = 2
# Enough for "completed" and for "pre-trained".
LAST_WIDTH, FIRST_WIDTH = 9, 11


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        title: may have several lines.
        optional: left out where the table is too wide.
    """

    title: str
    cells: Sequence[str | Text]
    justify: str = "right"
    optional: bool = False

    @property
    def width(self) -> int:
        """Characters of its longest cell or line of the title."""
        lines = self.title.split("\n")
        return max(len(text) for text in (*lines, *(str(cell) for cell in self.cells)))


def new_table() -> Table:
    """An empty table in the console's style."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def fitted_table(columns: Sequence[Column], width: int) -> Table:
    """A table of at most `width` characters, as far as the columns between first and last allow.

    Optional columns are left out from the right, then the first column is shortened. The last column takes
    the space that remains; what does not fit is cut.
    """
    first, *middle, last = columns
    least = min(last.width, LAST_WIDTH)

    def space() -> int:
        return width - least - GAP - sum(column.width + GAP for column in middle)

    while space() < first.width and any(column.optional for column in middle):
        middle.remove([column for column in middle if column.optional][-1])
    first_width = max(min(first.width, space()), min(first.width, FIRST_WIDTH))
    table = new_table()
    table.add_column(first.title, no_wrap=True, width=first_width)
    for column in middle:
        table.add_column(column.title, justify=column.justify, no_wrap=True, width=column.width)  # type: ignore[arg-type]
    last_width = min(last.width, max(least, space() + least - first_width))
    table.add_column(last.title, no_wrap=True, width=last_width)
    for row in zip(*(column.cells for column in (first, *middle, last)), strict=True):
        table.add_row(*row)
    return table


def two_lines(title: str) -> str:
    """A title of several words on two lines: narrow columns have short numbers."""
    first, _, rest = title.partition(" ")
    return f"{first}\n{rest}" if rest else first
