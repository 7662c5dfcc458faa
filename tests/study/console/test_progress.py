"""The time that is left: mean epoch time × remaining epochs / concurrency."""

import dataclasses

from segstrat.records import TrialRecord
from study.console.progress import seconds_left
from study.state.trial_states import Phase, TrialState
from tests.study.fakes import planned, report


def state(order: int, *, arm: str = "raw", done: int = 0, phase: Phase = Phase.WAITING, seconds: float = 2):
    reports = [report(epoch, 0.1, epochs=8, seconds=seconds) for epoch in range(1, done + 1)]
    return TrialState(trial=planned(order, arm), record=TrialRecord().with_reports(reports), phase=phase)


def test_remaining_epochs_are_shared_by_the_workers():
    states = [state(0, done=4, phase=Phase.RUNNING), state(1, done=2, phase=Phase.RUNNING), state(2)]
    assert seconds_left(states, concurrent=1) == (4 + 6 + 8) * 2
    assert seconds_left(states, concurrent=3) == 12


def test_each_arm_has_its_own_pace_and_an_arm_without_reports_the_mean():
    states = [
        state(0, done=4, phase=Phase.RUNNING, seconds=1),
        state(1, arm="pre", done=4, phase=Phase.RUNNING, seconds=3),
        state(2, arm="other"),
    ]
    assert seconds_left(states, concurrent=1) == 4 * 1 + 4 * 3 + 8 * 2


def test_ended_trials_take_no_more_time_and_proposals_take_the_mean():
    ended = state(0, done=8, phase=Phase.ENDED)
    stopped = state(1, done=2)
    stopped = dataclasses.replace(stopped, record=dataclasses.replace(stopped.record, status="stopped"))
    assert seconds_left([ended, stopped], concurrent=2) == 0
    assert seconds_left([ended, stopped], concurrent=2, unproposed=3) == 3 * 16 / 2


def test_nothing_is_said_before_an_epoch_was_timed():
    assert seconds_left([state(0), state(1)], concurrent=2) is None
