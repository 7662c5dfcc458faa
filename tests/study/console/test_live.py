"""What the console says about a running study."""

import io
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from segstrat.pretraining.job import Pretraining, PretrainReport
from segstrat.records import TrialRecord, TrialStatus
from segstrat.store import Store
from study.console.live import StudyConsole
from study.console.progress import outlook_words, progress_words
from study.console.tables import trials_table
from study.search.base import FixedPlan
from study.state.halving import HalvingRule
from study.state.pretrainings import PlannedPretraining, PretrainState
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
    assert "known after the first epoch of a trial" in screen.summary()
    states.reported("raw0", [report(1, 0.1, seconds=3)])
    assert "at most about" in screen.summary()


def making(seed: int, **fields: object) -> PretrainState:
    job = PlannedPretraining(
        pretraining=Pretraining(backbone="resnet18", seed=seed), file=f"w{seed}", epochs=10
    )
    return PretrainState(job=job, **fields)  # type: ignore[arg-type]


def epoch(number: int) -> PretrainReport:
    return PretrainReport(epoch=number, epochs=10, train_loss=1.0, top1=0.625, top5=0.9, seconds=7.0)


def test_pre_trainings_are_shown_with_their_progress_and_count_in_the_time_left(states):
    console = Console(file=io.StringIO(), width=100)
    running = making(1, phase=Phase.RUNNING).with_reports((epoch(3),))
    shown = [making(0, made=True).with_reports((epoch(10),)), running, making(2, ahead=True)]
    screen = StudyConsole(console, states, FixedPlan(), concurrent=2, pretrainings=lambda _: shown)
    states.started("raw0")
    states.reported("raw0", [report(1, 0.1, seconds=4)])
    assert "1 running, 1 pre-training at epoch 3/10 ·" in screen.summary()
    shown.append(making(3, phase=Phase.RUNNING).with_reports((epoch(5),)))
    assert "1 running, 2 pre-trainings at epochs 3/10, 5/10 ·" in screen.summary()
    shown.pop()
    # 23 epochs of trials at 4 s, 7 + 10 of pre-trainings at 7 s, two at a time.
    assert "at most about 2 min left" in screen.summary()
    assert "at most about 46 s" in screen_of(states).summary()
    screen.tick()
    screen.tick()
    printed = console.file.getvalue()
    assert printed.count("pre-train resnet18, seed 0 on figures: completed, top-1 62.5%") == 1
    console.print(trials_table(states.in_order(), METRIC, shown, width=100))
    rows = [line for line in console.file.getvalue().splitlines() if line.startswith("pre-train resnet18 ")]
    assert [line.split()[2:] for line in rows] == [
        ["3/10", "–", "–", "–", "running,", "top-1", "62.5%"], ["0/10", "–", "–", "–", "waiting"],
    ]  # fmt: skip


def test_a_pre_training_that_is_still_to_come_has_its_own_pace(states):
    """The one of screening was in the cache, so that trials were timed and no pre-training was."""
    screen = StudyConsole(
        Console(file=io.StringIO()), states, FixedPlan(), concurrent=2, pretrainings=lambda _: [making(2)]
    )
    states.started("raw0")
    states.reported("raw0", [report(1, 0.1, seconds=4)])
    assert "the time left is known after the first epoch of a pre-training" in screen.summary()


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
