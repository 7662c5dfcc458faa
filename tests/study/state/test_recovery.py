"""Every file of a trial × every damage: the trial is recovered exactly, or it is run again; never lost."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segstrat.checkpoint import save_checkpoint
from segstrat.config import TrialConfig
from segstrat.image_counts import ImageCounts, write_counts
from segstrat.records import EpochReport, SplitScore, TrialFacts, read_record, write_outcome, write_records
from segstrat.scores import Metric
from segstrat.store import Store
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule
from study.state.recovery import recover_record
from study.state.trial_states import TrialStates

EPOCHS = 4
FACTS = TrialFacts(
    num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="", weights_digest="",
    data_digest="", train_images=1, val_images=1, device="cpu", precision="float32",
)  # fmt: skip


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "list": lambda path: path.write_text("[1, 2]"),
    "number": lambda path: path.write_text("7"),
    "object of another kind": lambda path: path.write_text('{"reports": [1], "facts": 2, "status": []}'),
    "not text": lambda path: path.write_bytes(bytes(range(128, 256))),
    "missing": lambda path: path.unlink(),
}


def reports(count: int = EPOCHS, end: str = "completed") -> list[EpochReport]:
    score = SplitScore(
        split="val", task="semseg", loss=1.0, miou=0.5, miou_thesis=0.5, pixel_accuracy=0.5,
        class_accuracy=0.5, iou=(0.5, None),
    )  # fmt: skip
    return [
        EpochReport(
            epoch=epoch, epochs=EPOCHS, status="running" if epoch < count else end,  # type: ignore[arg-type]
            scores=(dataclasses.replace(score, miou=epoch / 10),), learning_rate=0.1, seconds=2.0,
            images_per_second=1.0, data_wait=0.0,
        )
        for epoch in range(1, count + 1)
    ]  # fmt: skip


def checkpoint(folder: Store, epoch: int) -> None:
    some = [report.to_dict() for report in reports(EPOCHS)[:epoch]]
    state = {"facts": dataclasses.asdict(FACTS), "reports": some, "model": {"w": torch.zeros(3)}}
    save_checkpoint(folder, epoch, state, best_epoch=None)


@pytest.fixture
def finished(tmp_path: Path) -> Store:
    """A completed trial with its two checkpoints."""
    folder = Store(tmp_path / "trial")
    write_records(folder, FACTS, reports())
    for epoch in (3, 4):
        checkpoint(folder, epoch)
    record = read_record(folder)
    write_outcome(folder, dataclasses.replace(record, status="completed", attempts=1))
    assert read_record(folder).status == "completed"
    return folder


def content(folder: Store) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.names()}


@pytest.mark.parametrize("damage", DAMAGE)
def test_records_are_restored_from_the_newest_good_checkpoint(finished, damage):
    before = content(finished)
    DAMAGE[damage](finished.local_path / "records.json")
    record = read_record(finished)
    assert record.status == "unfinished"
    assert record.problem.startswith("records.json")
    record, note = recover_record(finished)
    assert "restored from checkpoint-000004.pt" in note
    assert record.status == "completed"
    assert list(record.reports) == reports()
    assert content(finished) == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_outcome_is_decided_again_from_the_records(finished, damage):
    records = finished.read("records.json")
    DAMAGE[damage](finished.local_path / "outcome.json")
    record, note = recover_record(finished)
    assert not record.problem
    assert record.training_ended
    assert not finished.exists("outcome.json")
    assert ("decided again" in note) == (damage != "missing"), "an outcome may not be there yet"
    assert finished.read("records.json") == records


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["checkpoint-000004.pt", "checkpoint-000004.pt.sha256"])
def test_a_damaged_newest_checkpoint_costs_an_epoch(finished, name, damage):
    DAMAGE[damage](finished.local_path / name)
    assert recover_record(finished)[1] == "", "a finished trial does not need it"
    (finished.local_path / "records.json").write_text("")
    record, note = recover_record(finished)
    assert "continues after its newest good checkpoint" in note
    assert not record.final
    assert [report.epoch for report in record.all_reports] == [1, 2, 3]


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_any_checkpoint_the_trial_is_trained_again(finished, damage):
    for name in finished.names():
        if "checkpoint" in name:
            finished.delete(name)
    DAMAGE[damage](finished.local_path / "records.json")
    record, note = recover_record(finished)
    assert "trained again" in note
    assert not record.final
    assert record.all_reports == ()
    assert finished.names() == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_lost_pixel_counts_are_made_again_by_a_worker(finished, damage):
    write_records(finished, dataclasses.replace(FACTS, constant_miou={"semseg": {"val": 0.1}}), reports())
    counts = np.ones((2, 3), np.int64)
    write_counts(finished, {("semseg", "val"): ImageCounts(("a", "b"), counts, counts, counts)})
    assert recover_record(finished)[1] == ""
    DAMAGE[damage](finished.local_path / "counts.npz")
    record, note = recover_record(finished)
    assert "counted again" in note
    assert not record.final
    assert not record.training_ended, "a worker takes it"
    assert [name for name in finished.names() if name.endswith(".pt")], "and continues after a checkpoint"


def test_lost_pixel_counts_without_a_checkpoint_cost_the_trial(finished):
    (finished.local_path / "counts.npz").write_bytes(b"")
    for name in finished.names():
        if "checkpoint" in name:
            finished.delete(name)
    record, note = recover_record(finished)
    assert "the trial is trained again" in note
    assert not record.final
    assert record.all_reports == ()
    assert finished.names() == []


def test_records_that_stop_short_of_the_outcome_are_not_completed(finished):
    write_records(finished, FACTS, reports()[:2])
    record = read_record(finished)
    assert record.status == "unfinished"
    assert record.problem == "records.json ends at epoch 2 of 4, but outcome.json says completed"
    assert recover_record(finished)[0].status == "completed"


def test_a_stopped_trial_keeps_its_rung(finished):
    outcome = {
        "status": "stopped", "stop_rung": 0, "stop_epoch": 2, "error": "", "seconds": 4.0, "attempts": 1,
    }  # fmt: skip
    finished.write("outcome.json", json.dumps(outcome).encode())
    assert read_record(finished).status == "stopped"
    finished.write("records.json", b"{")
    record, _ = recover_record(finished)
    assert (record.status, record.stop_epoch, len(record.reports)) == ("stopped", 2, 2)


def test_a_failed_trial_needs_no_records(tmp_path):
    folder = Store(tmp_path)
    record = dataclasses.replace(read_record(folder), status="failed", error="disk full")
    write_outcome(folder, record)
    assert read_record(folder).status == "failed"
    assert recover_record(folder)[1] == ""


def test_a_resumed_study_names_the_trial_and_leaves_the_others_alone(tmp_path, finished):
    study = Store(tmp_path / "study")
    for name in ("a", "b"):
        for file, data in content(finished).items():
            (study / "trials" / name).write(file, data)
    (study / "trials" / "a").write("records.json", b'{"facts": {')
    untouched = content(study / "trials" / "b")

    def states() -> TrialStates:
        made = TrialStates(study, HalvingRule(fractions=()), Metric("semseg"))
        for order, name in enumerate(("a", "b")):
            config = TrialConfig(epochs=EPOCHS, weight_decay=order / 10)
            made.add(PlannedTrial(trial_id=name, order=order, arm="raw", axes={}, config=config))
        return made

    looking = states()
    looking.read()
    assert [state.shown for state in looking.in_order()] == ["waiting", "completed"]
    assert "records.json cannot be read" in looking.by_id["a"].record.problem
    resumed = states()
    (note,) = resumed.resume()
    assert note.startswith("raw (a): records.json cannot be read")
    assert [state.shown for state in resumed.in_order()] == ["completed", "completed"]
    assert resumed.waiting() == []
    assert content(study / "trials" / "b") == untouched
