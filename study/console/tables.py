"""The table of a study's trials and the one of its cells, for the console and for `--status`."""

from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from segstrat.formatting import format_value
from segstrat.records import TrialStatus
from study.console.fitted_table import Column, fitted_table, two_lines
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
PROBLEMS = ("failed", "diverged", "retrying")
ORDER = ("running", "retrying", "ended", "failed", "diverged", "completed", "stopped", "waiting")


def varied_axes(trials: Sequence[PlannedTrial]) -> list[str]:
    """Axes, seed included, that take several values and are not part of the arm's name."""
    axes = dict.fromkeys(name for trial in trials for name in trial.axes if name not in ARM_FIELDS)
    return [name for name in axes if len({str(trial.axes.get(name)) for trial in trials}) > 1]


def trials_table(states: Sequence[TrialState], metric: str, *, width: int, limit: int | None = None) -> Table:
    """One row per trial, running ones first; at most `limit` rows and a last one that counts the others.

    `wait` is the share of the last epoch's training time that was spent waiting for input.

    Args:
        width: of the console, in characters.
    """
    shown = sorted(states, key=lambda state: (ORDER.index(state.shown), state.trial.order))
    hidden = len(shown) - limit if limit is not None and len(shown) > limit else 0
    shown = shown[: len(shown) - hidden]
    axes = varied_axes([state.trial for state in states])
    last = [state.record.last_report for state in shown]
    columns = [
        Column(title="arm", cells=[state.trial.arm for state in shown]),
        *(_axis_column(axis, [state.trial for state in shown]) for axis in axes),
        Column(
            title="epoch",
            cells=[
                f"{report.epoch if report else 0}/{state.trial.config.epochs}"
                for state, report in zip(shown, last, strict=True)
            ],
        ),
        _score_column("val", shown, metric),
        replace(_score_column("train", shown, metric), optional=True),
        Column(
            title="wait",
            cells=[f"{report.data_wait:.0%}" if report else "–" for report in last],
            optional=True,
        ),
        Column(title="status", cells=[status_text(state) for state in shown]),
    ]
    table = fitted_table(columns, width)
    if hidden:
        table.add_row(Text(f"… {hidden} more", style="dim"))
    return table


def status_text(state: TrialState) -> Text:
    """A trial's status in words, with its cause where there is one."""
    words = {"ended": "waits for a decision at its rung"}.get(state.shown, state.shown)
    reason = state.record.error or state.record.problem
    if reason and state.shown not in ("running", "completed", "stopped"):
        words = f"{words}: {reason}"
    return Text(words, style=STYLES.get(state.shown, ""))


def problem_lines(states: Sequence[TrialState]) -> list[str]:
    """One line for each message of trials that failed or diverged, in full length.

    Trials with the same message share a line that names the first of them.
    """
    by_words: dict[str, list[TrialState]] = {}
    for state in states:
        words = str(status_text(state))
        if words != state.shown and state.shown in PROBLEMS:
            by_words.setdefault(words, []).append(state)
    return [
        f"{members[0].trial.label}{f' and {len(members) - 1} more' if len(members) > 1 else ''}: {words}"
        for words, members in by_words.items()
    ]


def cells_table(states: Sequence[TrialState], metric: str, *, width: int) -> Table:
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
        *(_axis_column(axis, firsts) for axis in axes),
        Column(
            title=two_lines(metric.replace("_", " ").replace("miou", "mIoU")),
            cells=[_mean_of_completed(members, metric) for members in rows],
        ),
        Column(title="trials", cells=[_status_counts(members) for members in rows]),
    ]
    return fitted_table(columns, width)


def _axis_column(axis: str, trials: Sequence[PlannedTrial]) -> Column:
    return Column(
        title=two_lines(axis.replace("_", " ")),
        cells=[format_value(trial.axes.get(axis)) for trial in trials],
    )


def _score_column(split: str, states: Sequence[TrialState], metric: str) -> Column:
    scores = [_last_score(state, metric.partition("_")[0], split) for state in states]
    return Column(
        title=f"{split}\nmIoU", cells=[f"{score:.3f}" if score is not None else "–" for score in scores]
    )


def _mean_of_completed(states: Sequence[TrialState], metric: str) -> str:
    values = [
        report.metrics()[metric]
        for state in states
        if state.record.status is TrialStatus.COMPLETED
        and (report := state.record.last_report)
        and metric in report.metrics()
    ]
    return f"{sum(values) / len(values):.3f}" if values else "–"


def _status_counts(states: Sequence[TrialState]) -> str:
    shown = [state.shown for state in states]
    return ", ".join(f"{shown.count(status)} {status}" for status in dict.fromkeys(shown))


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
