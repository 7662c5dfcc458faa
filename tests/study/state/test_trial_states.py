"""What the ledger makes of reports, failures and the files of an earlier run."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, SplitScore, TrialFacts, write_records
from segstrat.store import Store
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule, Rungs
from study.state.trial_states import Ledger

METRIC = "semseg_val_miou"
FACTS = TrialFacts(
    num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="", weights_digest="",
    data_digest="", train_images=1, val_images=1, device="cpu", precision="float32",
)  # fmt: skip


def planned(order: int, arm: str = "raw", epochs: int = 8) -> PlannedTrial:
    config = TrialConfig(epochs=epochs, weight_decay=order / 1000, seed=0)
    return PlannedTrial(
        trial_id=f"{arm}{order}", order=order, arm=arm, axes={"weight_decay": order / 1000}, config=config
    )


def report(epoch: int, value: float, *, epochs: int = 8, status: str = "") -> EpochReport:
    score = SplitScore(
        split="val", task="semseg", loss=1.0, miou=value, miou_thesis=value, pixel_accuracy=value,
        class_accuracy=value, iou=(value,),
    )  # fmt: skip
    return EpochReport(
        epoch=epoch, epochs=epochs, status=status or ("completed" if epoch == epochs else "running"),  # type: ignore[arg-type]
        scores=() if status == "diverged" else (score,), learning_rate=0.1, seconds=2.0,
        images_per_second=1.0, data_wait=0.0, message="not finite at step 3" if status == "diverged" else "",
    )  # fmt: skip


def run(ledger: Ledger, trial_id: str, values: list[float]) -> None:
    """Runs a trial as a worker would, until it is told to end."""
    ledger.started(trial_id)
    for epoch, value in enumerate(values, start=1):
        if ledger.reported(trial_id, [report(epoch, value)]):
            break
    ledger.ended(trial_id)


@pytest.fixture
def make_ledger(tmp_path: Path) -> Callable[..., Ledger]:
    def make(count: int = 4, **listeners: object) -> Ledger:
        ledger = Ledger(Store(tmp_path / "study"), Rungs(HalvingRule()), METRIC, **listeners)  # type: ignore[arg-type]
        for order in range(count):
            ledger.add(planned(order))
        return ledger

    return make


def outcome(ledger: Ledger, trial_id: str) -> dict:
    return json.loads((ledger.store / "trials" / trial_id).read("outcome.json"))


def write(ledger: Ledger, trial_id: str, reports: list[EpochReport]) -> None:
    write_records(ledger.store / "trials" / trial_id, FACTS, reports)


def test_outcomes_of_completed_stopped_and_diverged(make_ledger):
    final = []
    ledger = make_ledger()
    ledger.on_final = lambda row: final.append(row.trial.trial_id)
    run(ledger, "raw0", [0.5] * 8)
    run(ledger, "raw1", [0.4] * 8)
    run(ledger, "raw2", [0.3] * 8)
    ledger.started("raw3")
    assert ledger.reported("raw3", [report(1, 0.1, status="diverged")])
    ledger.ended("raw3")
    assert [ledger.rows[f"raw{i}"].state for i in range(4)] == [
        "completed", "completed", "stopped", "diverged",
    ]  # fmt: skip
    assert outcome(ledger, "raw2") == {
        "status": "stopped", "stop_rung": 0, "stop_epoch": 2, "error": "", "seconds": 4.0, "attempts": 1,
    }  # fmt: skip
    assert outcome(ledger, "raw3")["error"] == "not finite at step 3"
    assert final == ["raw0", "raw1", "raw2", "raw3"]


def test_a_late_decision_cuts_the_record_at_its_rung(make_ledger):
    ledger = make_ledger(3)
    run(ledger, "raw0", [0.5] * 8)
    ledger.started("raw1")
    run(ledger, "raw2", [0.1] * 8)  # raw1 has not reached the rung: raw2 trains to its end
    assert ledger.rows["raw2"].state == "ended"
    assert not (ledger.store / "trials" / "raw2").exists("outcome.json")
    ledger.reported("raw1", [report(1, 0.4), report(2, 0.4)])
    ledger.ended("raw1", error="node lost")
    assert ledger.rows["raw2"].state == "stopped"
    assert outcome(ledger, "raw2")["stop_epoch"] == 2
    assert ledger.rows["raw2"].last_report.epoch == 2
    assert outcome(ledger, "raw1") | {"seconds": 0} == {
        "status": "failed", "stop_rung": None, "stop_epoch": None, "error": "node lost", "seconds": 0,
        "attempts": 1,
    }  # fmt: skip


def test_an_interrupted_trial_has_no_outcome(make_ledger):
    ledger = make_ledger(1)
    ledger.started("raw0")
    ledger.reported("raw0", [report(1, 0.5)])
    ledger.ended("raw0")
    assert ledger.rows["raw0"].state == "waiting"
    assert not (ledger.store / "trials" / "raw0").exists("outcome.json")


def test_a_resumed_study_runs_what_is_open_and_decides_as_before(make_ledger):
    first = make_ledger(4)
    run(first, "raw0", [0.5] * 8)
    run(first, "raw1", [0.4] * 8)
    for name, value in (("raw0", 0.5), ("raw1", 0.4)):
        write(first, name, [report(epoch, value) for epoch in range(1, 9)])
    write(first, "raw2", [report(epoch, 0.3) for epoch in range(1, 4)])  # killed beyond its rung
    second = make_ledger(4)
    second.recall(resume=True)
    assert [trial.trial_id for trial in second.waiting()] == ["raw2", "raw3"]
    second.started("raw2")
    assert second.reported("raw2", [report(4, 0.3)]), "its rung decision is made from the records"
    second.ended("raw2")
    assert second.rows["raw2"].stop_epoch == 2


def test_a_trial_that_had_trained_to_its_end_is_settled_without_running(make_ledger):
    ledger = make_ledger(1)
    write(ledger, "raw0", [report(epoch, 0.3) for epoch in range(1, 9)])
    ledger.recall(resume=True)
    assert ledger.waiting() == []
    assert outcome(ledger, "raw0")["status"] == "completed"


def test_looking_writes_nothing(make_ledger):
    ledger = make_ledger(2)
    write(ledger, "raw0", [report(epoch, 0.3) for epoch in range(1, 9)])
    ledger.recall(resume=False)
    assert not (ledger.store / "trials" / "raw0").exists("outcome.json")


def test_failed_trials_are_tried_again_on_resume(make_ledger):
    ledger = make_ledger(2)
    ledger.started("raw0")
    ledger.ended("raw0", error="disk full")
    assert outcome(ledger, "raw0")["status"] == "failed"
    again = make_ledger(2)
    again.recall(resume=True)
    assert [trial.trial_id for trial in again.waiting()] == ["raw0", "raw1"]
    run(again, "raw0", [0.5] * 8)
    assert outcome(again, "raw0")["status"] == "completed"


def test_a_recorded_pass_stands_although_a_failed_trial_comes_back(make_ledger):
    first = make_ledger(3)
    first.started("raw0")
    first.ended("raw0", error="disk full")
    for name, value in (("raw1", 0.4), ("raw2", 0.1)):
        run(first, name, [value] * 8)
        write(first, name, [report(epoch, value) for epoch in range(1, 9)])
    assert first.rows["raw2"].state == "completed", "one competitor only"
    second = make_ledger(3)
    second.recall(resume=True)
    run(second, "raw0", [0.5] * 8)
    assert second.rows["raw2"].state == "completed"


def test_the_newest_attempt_of_an_epoch_counts(make_ledger):
    ledger = make_ledger(1)
    ledger.started("raw0")
    ledger.reported("raw0", [report(1, 0.1), report(2, 0.2)])
    ledger.retried("raw0", "killed")
    assert ledger.rows["raw0"].state == "retrying"
    ledger.started("raw0")
    ledger.reported("raw0", [report(2, 0.25)])
    assert [r.metrics()[METRIC] for r in ledger.rows["raw0"].counted_reports] == [0.1, 0.25]
    assert ledger.rows["raw0"].attempts == 2


def test_first_trials_that_fail_alike_end_the_study(make_ledger):
    ledger = make_ledger(10)
    for order in range(3):
        ledger.started(f"raw{order}")
        assert ledger.common_failure() == ""
        ledger.ended(f"raw{order}", error=f"OSError: cannot open image 00{order}.png at 0x7f{order}")
    assert ledger.common_failure() == "OSError: cannot open image 000.png at 0x7f0"


@pytest.mark.parametrize("errors", [["disk full", "disk full", "no weights"], ["disk full", "disk full"]])
def test_different_or_few_failures_do_not(make_ledger, errors):
    ledger = make_ledger(10)
    for order, error in enumerate(errors):
        ledger.started(f"raw{order}")
        ledger.ended(f"raw{order}", error=error)
    assert ledger.common_failure() == ""


def test_failures_after_a_success_do_not_end_the_study(make_ledger):
    ledger = make_ledger(10)
    ledger.started("raw9")
    ledger.reported("raw9", [report(1, 0.5)])
    for order in range(5):
        ledger.started(f"raw{order}")
        ledger.ended(f"raw{order}", error="disk full")
    assert ledger.common_failure() == ""


def test_a_metric_that_was_not_validated_is_not_taken_for_a_value(make_ledger):
    ledger = make_ledger(1)
    ledger.started("raw0")
    bare = dataclasses.replace(report(2, 0.5), scores=())
    assert not ledger.reported("raw0", [report(1, 0.5), bare])
