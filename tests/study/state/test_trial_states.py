"""What the states make of reports, failures and the files of an earlier run."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, Stage, write_records
from segstrat.store import Store
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates, competitor
from tests.study.fakes import FACTS, METRIC, planned, report


def run(states: TrialStates, trial_id: str, values: list[float]) -> list[str]:
    """Runs a trial as a worker would, until it should end; returns the trials that got an outcome."""
    states.started(trial_id)
    for epoch, value in enumerate(values, start=1):
        states.reported(trial_id, [report(epoch, value)])
        if states.should_end(trial_id):
            break
    return [state.trial.trial_id for state in states.ended(trial_id)]


@pytest.fixture
def make_states(tmp_path: Path) -> Callable[..., TrialStates]:
    def make(*trials: PlannedTrial, count: int = 4) -> TrialStates:
        states = TrialStates(Store(tmp_path / "study"), HalvingRule(), METRIC)
        for trial in trials or [planned(order) for order in range(count)]:
            states.add(trial)
        return states

    return make


def outcome(states: TrialStates, trial_id: str) -> dict:
    return json.loads((states.study / "trials" / trial_id).read("outcome.json"))


def write(states: TrialStates, trial_id: str, reports: list[EpochReport]) -> None:
    write_records(states.study / "trials" / trial_id, FACTS, reports)


def test_outcomes_of_completed_stopped_and_diverged(make_states):
    states = make_states()
    final = run(states, "raw0", [0.5] * 8)
    final += run(states, "raw1", [0.4] * 8)
    final += run(states, "raw2", [0.3] * 8)
    states.started("raw3")
    states.reported("raw3", [report(1, 0.1, status="diverged")])
    assert states.should_end("raw3")
    final += [state.trial.trial_id for state in states.ended("raw3")]
    assert [states.by_id[f"raw{i}"].shown for i in range(4)] == [
        "completed", "completed", "stopped", "diverged",
    ]  # fmt: skip
    assert outcome(states, "raw2") == {
        "status": "stopped", "stop_rung": 0, "stop_epoch": 2, "error": "", "seconds": 4.0, "attempts": 1,
    }  # fmt: skip
    assert outcome(states, "raw3")["error"] == "not finite at step 3"
    assert final == ["raw0", "raw1", "raw2", "raw3"]


@pytest.mark.parametrize("kind", ["screening", "reference", "answering"])
def test_a_trial_that_has_not_left_the_constant_prediction_is_stopped(make_states, kind):
    """No rank may stop either; the constant one even has the higher mIoU, because its one class is large."""
    fields = {"stage": Stage.ANSWERING if kind == "answering" else Stage.SCREENING, "exempt": True}
    second = planned(1, **fields | {"reference": kind == "reference"})
    states = make_states(planned(0, **fields), second)
    for trial_id, iou in (("raw0", (0.3, 0.2, None, 0.4)), ("raw1", (0.95, 0.0, 0.0, None))):
        states.started(trial_id)
        for epoch in range(1, 9):
            states.reported(trial_id, [with_iou(report(epoch, 0.3), iou)])
            if states.should_end(trial_id):
                break
        states.ended(trial_id)
    assert competitor(states.by_id["raw0"], states.rule, METRIC).learned == pytest.approx((0.5 / 3, 0.5 / 3))
    stopped = "stopped" if kind == "screening" else "completed"
    assert [state.shown for state in states.in_order()] == ["completed", stopped]


def with_iou(given: EpochReport, iou: tuple[float | None, ...]) -> EpochReport:
    scores = tuple(dataclasses.replace(score, iou=iou) for score in given.scores)
    return dataclasses.replace(given, scores=scores)


def test_the_facts_that_an_answer_uses_are_known_at_once(make_states, tmp_path):
    """They are the same while a study runs, after a resume and in the report, which read them from disk."""
    states = make_states(count=2)
    named = dataclasses.replace(FACTS, init_digest="abc")
    write_records(states.study / "trials" / "raw0", named, [report(8, 0.35)])
    run(states, "raw0", [0.35] * 8)
    assert states.by_id["raw0"].record.facts["init_digest"] == "abc"

    constant = dataclasses.replace(FACTS, constant_miou={"semseg": {"b": 0.1, "val": 0.2}})
    diverged = report(1, 0.0, status="diverged")
    write_records(states.study / "trials" / "raw1", constant, [diverged])
    states.started("raw1")
    states.reported("raw1", [diverged])
    states.ended("raw1")
    assert states.by_id["raw1"].record.facts["constant_miou"] == {"semseg": {"b": 0.1, "val": 0.2}}

    again = make_states(count=2)
    again.resume()
    for trial_id, state in again.by_id.items():
        assert state.record.facts == states.by_id[trial_id].record.facts


def test_a_late_decision_cuts_the_record_at_its_rung(make_states):
    states = make_states(count=3)
    run(states, "raw0", [0.5] * 8)
    states.started("raw1")
    run(states, "raw2", [0.1] * 8)  # raw1 has not reached the rung: raw2 trains to its end
    assert states.by_id["raw2"].shown == "ended"
    assert not (states.study / "trials" / "raw2").exists("outcome.json")
    states.reported("raw1", [report(1, 0.4), report(2, 0.4)])
    states.ended("raw1", error="node lost")
    assert states.by_id["raw2"].shown == "stopped"
    assert outcome(states, "raw2")["stop_epoch"] == 2
    assert states.by_id["raw2"].record.last_report.epoch == 2
    assert outcome(states, "raw1") | {"seconds": 0} == {
        "status": "failed", "stop_rung": None, "stop_epoch": None, "error": "node lost", "seconds": 0,
        "attempts": 1,
    }  # fmt: skip


def test_a_trial_that_ends_early_without_a_reason_has_failed(make_states):
    states = make_states(count=1)
    states.started("raw0")
    states.reported("raw0", [report(1, 0.5)])
    states.ended("raw0")
    assert outcome(states, "raw0")["status"] == "failed"
    assert outcome(states, "raw0")["error"] == "the trial ended after epoch 1 of 8"


def run_all(states: TrialStates, values: dict[str, float]) -> dict[str, str]:
    for name, value in values.items():
        run(states, name, [value] * 8)
    return {name: states.by_id[name].shown for name in values}


def test_each_context_arm_and_seed_competes_by_itself(make_states):
    """A quarter of the labels, a small batch, an unlucky seed: all at .1, where the others are at .5."""
    weak = {
        "context": {"context": "label_fraction=0.25"},
        "batch": {"context": "batch_size=5"},
        "seed": {"config": TrialConfig(epochs=8, seed=1)},
        "tasks": {"config": TrialConfig(epochs=8, tasks=("parts", "semseg"))},
        "arm": {"arm": "pre-trained"},
    }
    for name, fields in weak.items():
        strong = [planned(order) for order in range(4)]
        others = [
            planned(order, **({"trial_id": f"{name}{order}"} | fields))  # type: ignore[arg-type]
            for order in range(4, 8)
        ]
        states = make_states(*strong, *others)
        shown = run_all(states, {t.trial_id: 0.5 for t in strong} | {t.trial_id: 0.1 for t in others})
        assert set(shown.values()) == {"completed"}, name
    same = [planned(order) for order in range(8)]
    values = {trial.trial_id: 0.5 if trial.order < 4 else 0.1 for trial in same}
    assert set(run_all(make_states(*same), values).values()) == {"completed", "stopped"}


def test_the_reference_is_never_stopped_and_competes(make_states):
    trials = [planned(0), planned(1), planned(2, reference=True), planned(3)]
    shown = run_all(make_states(*trials), {"raw0": 0.5, "raw1": 0.4, "raw2": 0.01, "raw3": 0.3})
    assert shown == {"raw0": "completed", "raw1": "completed", "raw2": "completed", "raw3": "stopped"}
    without = [planned(0), planned(1), planned(2)]
    assert run_all(make_states(*without), {"raw0": 0.5, "raw1": 0.4, "raw2": 0.01})["raw2"] == "stopped"


def test_a_diverged_trial_ranks_last_at_the_rungs_it_missed(make_states):
    states = make_states(count=3)
    run(states, "raw0", [0.5] * 8)
    states.started("raw1")
    states.reported("raw1", [report(1, 0.0, status="diverged")])
    states.ended("raw1")
    assert states.by_id["raw1"].shown == "diverged"
    run(states, "raw2", [0.4] * 8)
    assert states.by_id["raw2"].shown == "completed", "second of three: two may pass"
    # Of four with the diverged one last, two may pass; without it there would be three, and two may pass too.
    more = make_states(count=5)
    for name, value in (("raw0", 0.5), ("raw1", 0.4)):
        run(more, name, [value] * 8)
    for name in ("raw2", "raw3"):
        more.started(name)
        more.reported(name, [report(1, 0.0, status="diverged")])
        more.ended(name)
    run(more, "raw4", [0.3] * 8)
    assert more.by_id["raw4"].shown == "completed", "third of five: three may pass"
    assert json.loads((more.study / "trials" / "raw3").read("outcome.json"))["status"] == "diverged"


def test_a_resumed_study_runs_what_is_open_and_decides_as_before(make_states):
    first = make_states(count=4)
    run(first, "raw0", [0.5] * 8)
    run(first, "raw1", [0.4] * 8)
    for name, value in (("raw0", 0.5), ("raw1", 0.4)):
        write(first, name, [report(epoch, value) for epoch in range(1, 9)])
    write(first, "raw2", [report(epoch, 0.3) for epoch in range(1, 4)])  # killed beyond its rung
    second = make_states(count=4)
    second.resume()
    assert [trial.trial_id for trial in second.waiting()] == ["raw2", "raw3"]
    second.started("raw2")
    second.reported("raw2", [report(4, 0.3)])
    assert second.should_end("raw2"), "its rung decision is made from the records"
    second.ended("raw2")
    assert second.by_id["raw2"].record.stop_epoch == 2


def test_a_trial_that_had_trained_to_its_end_is_settled_without_running(make_states):
    states = make_states(count=1)
    write(states, "raw0", [report(epoch, 0.3) for epoch in range(1, 9)])
    states.resume()
    assert states.waiting() == []
    assert outcome(states, "raw0")["status"] == "completed"


def test_looking_writes_nothing(make_states):
    states = make_states(count=2)
    write(states, "raw0", [report(epoch, 0.3) for epoch in range(1, 9)])
    states.read()
    assert not (states.study / "trials" / "raw0").exists("outcome.json")


def test_failed_trials_are_tried_again_on_resume(make_states):
    states = make_states(count=2)
    states.started("raw0")
    states.ended("raw0", error="disk full")
    assert outcome(states, "raw0")["status"] == "failed"
    again = make_states(count=2)
    again.resume()
    assert [trial.trial_id for trial in again.waiting()] == ["raw0", "raw1"]
    run(again, "raw0", [0.5] * 8)
    assert outcome(again, "raw0")["status"] == "completed"


def test_a_recorded_pass_stands_although_a_failed_trial_comes_back(make_states):
    first = make_states(count=3)
    first.started("raw0")
    first.ended("raw0", error="disk full")
    for name, value in (("raw1", 0.4), ("raw2", 0.1)):
        run(first, name, [value] * 8)
        write(first, name, [report(epoch, value) for epoch in range(1, 9)])
    assert first.by_id["raw2"].shown == "completed", "one competitor only"
    second = make_states(count=3)
    second.resume()
    run(second, "raw0", [0.5] * 8)
    assert second.by_id["raw2"].shown == "completed"


def test_the_newest_attempt_of_an_epoch_counts(make_states):
    states = make_states(count=1)
    states.started("raw0")
    states.reported("raw0", [report(1, 0.1), report(2, 0.2)])
    states.retried("raw0", "killed")
    assert states.by_id["raw0"].shown == "retrying"
    states.started("raw0")
    assert states.reported("raw0", [report(2, 0.25)]) == [], "no new epoch"
    assert [r.metrics()[METRIC.name] for r in states.by_id["raw0"].record.reports] == [0.1, 0.25]
    assert states.by_id["raw0"].record.attempts == 2


def test_first_trials_that_fail_alike_end_the_study(make_states):
    states = make_states(count=10)
    for order in range(3):
        states.started(f"raw{order}")
        assert states.common_failure() == ""
        states.ended(f"raw{order}", error=f"OSError: cannot open image 00{order}.png at 0x7f{order}")
    assert states.common_failure() == "OSError: cannot open image 000.png at 0x7f0"


@pytest.mark.parametrize("errors", [["disk full", "disk full", "no weights"], ["disk full", "disk full"]])
def test_different_or_few_failures_do_not(make_states, errors):
    states = make_states(count=10)
    for order, error in enumerate(errors):
        states.started(f"raw{order}")
        states.ended(f"raw{order}", error=error)
    assert states.common_failure() == ""


def test_failures_after_a_success_do_not_end_the_study(make_states):
    states = make_states(count=10)
    states.started("raw9")
    states.reported("raw9", [report(1, 0.5)])
    for order in range(5):
        states.started(f"raw{order}")
        states.ended(f"raw{order}", error="disk full")
    assert states.common_failure() == ""


def test_a_metric_that_was_not_validated_is_not_taken_for_a_value(make_states):
    states = make_states(count=1)
    states.started("raw0")
    bare = dataclasses.replace(report(2, 0.5), scores=())
    states.reported("raw0", [report(1, 0.5), bare])
    assert not states.should_end("raw0")
