"""What the console says about a running study."""

import io
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from segstrat.records import TrialRecord, TrialStatus
from segstrat.store import Store
from study.console.live import StudyConsole
from study.console.progress import outlook_words, progress_words
from study.search.base import FixedPlan
from study.state.halving import HalvingRule
from study.state.trial_states import Phase, TrialState, TrialStates
from tests.study.fakes import METRIC, planned, report


@pytest.fixture
def states(tmp_path) -> TrialStates:
    states = TrialStates(Store(tmp_path), HalvingRule.of("none"), METRIC)
    for order in range(3):
        states.add(planned(order))
    return states


def screen_of(states: TrialStates) -> StudyConsole:
    return StudyConsole(Console(file=io.StringIO(), width=100), states, FixedPlan(), concurrent=2)


def test_workers_start_until_one_runs_and_then_an_epoch_is_awaited(states):
    screen = screen_of(states)
    assert "0 running" in screen.summary()
    assert "workers are starting" in screen.summary()
    states.started("raw0")
    states.started("raw1")
    assert "2 running" in screen.summary()
    assert "workers are starting" not in screen.summary()
    assert "known after the first epoch" in screen.summary()
    states.reported("raw0", [report(1, 0.1, seconds=3)])
    assert "at most about" in screen.summary()


def test_a_look_may_ask_for_more_trials_so_no_end_is_promised():
    assert outlook_words(60, two_stages=True) == "at most about 60 s until the next look"
    assert outlook_words(60, two_stages=False) == "at most about 60 s left"


def test_a_failed_trial_has_ended_and_is_not_done():
    def ended(order: int, status: TrialStatus) -> TrialState:
        return TrialState(trial=planned(order), record=replace(TrialRecord(), status=status))

    good = [ended(0, TrialStatus.COMPLETED), ended(1, TrialStatus.STOPPED), ended(2, TrialStatus.DIVERGED)]
    waiting = TrialState(trial=planned(3), phase=Phase.WAITING)
    assert progress_words([*good, waiting]) == "3/4 trials done"
    failed = ended(4, TrialStatus.FAILED)
    assert progress_words([*good, failed, waiting], unproposed=2) == "3/7 trials done, 1 failed"


@pytest.mark.parametrize(
    ("signum", "word"), [(signal.SIGINT, "Ctrl-C: stopping"), (signal.SIGTERM, "SIGTERM: stopping")]
)
def test_a_signal_is_acknowledged(states, signum, word):
    screen = screen_of(states)
    screen.stopping(signum)
    assert word in screen._console.file.getvalue()
