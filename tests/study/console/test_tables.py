"""The console's tables at 80 columns: the status is always there."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from segstrat.config import TrialConfig
from segstrat.records import TrialRecord, TrialStatus
from study.console.tables import cells_table, problem_lines, trials_table
from study.state.trial_states import Phase, TrialState
from tests.study.fakes import METRIC, planned, report

ARMS = ("raw, multi-task", "pre-trained, multi-task")


def state(order: int, arm: str = "raw", *, axes: dict | None = None, **record) -> TrialState:
    config = TrialConfig(
        epochs=300,
        weight_decay=order / 1000,
        pretrained=arm.startswith("pre"),
        weights="w.pth" if arm.startswith("pre") else None,
    )
    trial = replace(planned(order, arm, epochs=300), config=config)
    if axes is not None:
        trial = replace(trial, axes=axes)
    return TrialState(trial=trial, record=replace(TrialRecord(), **record), phase=Phase.RUNNING)


def rendered(table, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


@pytest.fixture
def crowded() -> list[TrialState]:
    """Trials with long arms and every kind of axis: the widest table of the spaces of this project."""
    kinds = [
        {},
        {"status": TrialStatus.COMPLETED},
        {"status": TrialStatus.FAILED, "error": "the disk is full " * 9},
    ]
    return [
        state(
            3 * index + n,
            arm,
            axes={"weight_decay": 1e-4 * n, "dropout": 0.25, "width": 0.5 + index, "seed": n},
            all_reports=(report(300, 0.25, epochs=300),),
            **kind,
        )
        for index, arm in enumerate(ARMS)
        for n, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_status_is_visible_at_every_width(crowded, width):
    lines = rendered(trials_table(crowded, METRIC, width=width), width)
    assert max(map(len, lines)) <= width
    rows = lines[-6:]
    for word in ("running", "completed", "failed"):
        assert sum(word in row for row in rows) == 2, "\n".join(lines)


def test_what_is_least_needed_is_left_out_first(crowded):
    narrow, wide = ("\n".join(rendered(trials_table(crowded, METRIC, width=w), w)) for w in (80, 160))
    assert "wait" in wide
    assert "train" in wide
    assert "wait" not in narrow
    assert all(word in narrow for word in ("epoch", "val", "decay", "300/300", "0.250"))


def test_a_limit_counts_the_rows_that_are_left_out(crowded):
    lines = rendered(trials_table(crowded, METRIC, width=80, limit=4), 80)
    assert "2 more" in lines[-1]
    assert len(lines) == 2 + 1 + 4 + 1


def test_errors_are_shown_in_full_once_per_message(crowded):
    (line,) = problem_lines(crowded)
    assert "the disk is full the disk is full" in line
    assert "and 1 more: failed" in line


def test_raw_comes_first_and_only_completed_trials_have_a_value(crowded):
    lines = rendered(cells_table(crowded, METRIC, width=80), 80)
    arms = [line.split(",")[0] for line in lines[3:]]
    assert arms == ["raw"] * 3 + ["pre-trained"] * 3
    by_count = {row.split("1 ")[-1].strip(): row for row in lines[3:6]}
    assert "0.250" in by_count["completed"]
    assert "–" in by_count["running"]
    assert "–" in by_count["failed"]
