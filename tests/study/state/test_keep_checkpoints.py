"""`--keep-checkpoints`: ended trials lose checkpoints, others keep theirs, and a resume repeats nothing."""

from dataclasses import replace

import pytest

from segstrat.records import TrialStatus, write_outcome, write_records
from segstrat.store import Store
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates, drop_checkpoints
from tests.study.fakes import FACTS, METRIC, planned, report


@pytest.fixture
def states(tmp_path):
    """A completed, a failed and an unfinished trial, with checkpoints of epochs 3, 7 and 8."""
    states = TrialStates(Store(tmp_path), HalvingRule.of("none"), METRIC)
    for order in range(3):
        trial = planned(order)
        states.add(trial)
        folder = states.folder(trial)
        last = 8 if order == 0 else 7
        write_records(folder, FACTS, [report(epoch, 0.5) for epoch in range(1, last + 1)])
        for epoch in (3, 7, 8):
            folder.write(f"checkpoint-{epoch:06d}.pt", b"state")
            folder.write(f"checkpoint-{epoch:06d}.pt.sha256", b"digest")
    states.read()
    for order, status in ((0, TrialStatus.COMPLETED), (1, TrialStatus.FAILED)):
        state = states.by_id[f"raw{order}"]
        write_outcome(states.folder(state.trial), replace(state.record, status=status))
    states.read()
    return states


def kept(states, order):
    return [name for name in sorted(states.folder(planned(order)).names()) if name.startswith("checkpoint")]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("all", 6),
        ("last", ["checkpoint-000008.pt", "checkpoint-000008.pt.sha256"]),
        ("none", []),
    ],
)
def test_only_completed_trials_lose_checkpoints(states, keep, left):
    drop_checkpoints(states, states.in_order(), keep)
    assert kept(states, 0) == left if keep != "all" else len(kept(states, 0)) == left
    assert len(kept(states, 1)) == len(kept(states, 2)) == 6


def test_a_study_without_checkpoints_is_resumed_without_training_again(states):
    drop_checkpoints(states, states.in_order(), "none")
    assert states.resume() == []
    assert states.by_id["raw0"].record.status is TrialStatus.COMPLETED
    assert [trial.trial_id for trial in states.waiting()] == ["raw1", "raw2"]
