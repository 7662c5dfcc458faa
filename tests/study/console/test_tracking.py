"""`--track`: what MLflow and Weights & Biases hold of a study, and what their failures do to it."""

import dataclasses
import io
import json
import threading

import pytest
from rich.console import Console

from segstrat.errors import UserError
from segstrat.records import TrialStatus
from segstrat.store import Store
from study.console import tracking
from study.console.tracking import Tracker, check_library
from study.state.trial_states import TrialState
from tests.study.fakes import curve, planned

VERDICT = {"verdict": "narrows", "sentence": "In part."}


@pytest.fixture
def study(tmp_path):
    folder = Store(tmp_path / "results" / "mine")
    folder.write("verdict.json", json.dumps(VERDICT).encode())
    return folder


def track(name, study) -> str:
    """Two trials, one of which fails after its last epoch; returns what the console shows."""
    output = io.StringIO()
    with Tracker.of(name, study, "mine", Console(file=output)) as tracker:
        for number, status in enumerate((TrialStatus.COMPLETED, TrialStatus.FAILED)):
            state = TrialState(trial=planned(number))
            for report in curve((0.1, 0.2 + number)):
                tracker.reported(state, report)
            record = dataclasses.replace(state.record, status=status)
            tracker.finished(dataclasses.replace(state, record=record))
        tracker.answered(study)
    return output.getvalue()


@pytest.mark.timeout(120)
def test_mlflow_has_a_run_per_trial_and_the_verdict(study, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (uv sync --extra mlflow)")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track("mlflow", study) == ""
    # A resumed study goes on in the same runs.
    assert track("mlflow", study) == ""
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    assert experiment.tags == {"verdict": "narrows", "mlflow.note.content": "In part."}
    runs = client.search_runs([experiment.experiment_id], order_by=["tags.trial_id"])
    by_id = {run.data.tags["trial_id"]: run for run in runs}
    assert set(by_id) == {planned(0).trial_id, planned(1).trial_id}
    first, second = (by_id[planned(number).trial_id] for number in (0, 1))
    assert (first.info.status, second.info.status) == ("FINISHED", "FAILED")
    assert first.info.run_name == planned(0).label
    assert first.data.params["weight_decay"] == str(planned(0).config.weight_decay)
    history = client.get_metric_history(first.info.run_id, "semseg/val_miou")
    assert sorted({(point.step, point.value) for point in history}) == [(1, 0.1), (2, 0.2)]


@pytest.mark.timeout(120)
def test_weights_and_biases_has_a_run_per_trial_offline(study, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed (uv sync --extra wandb)")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert track("wandb", study) == ""
    folders = sorted((tmp_path / "results" / "mine" / "wandb").glob("offline-run-*"))
    content = {
        folder.name.split("-mine-")[1]: next(folder.glob("*.wandb")).read_bytes() for folder in folders
    }
    assert set(content) == {planned(0).trial_id, planned(1).trial_id, "verdict"}
    assert b"semseg/val_miou" in content[planned(0).trial_id]
    assert b"weight_decay" in content[planned(0).trial_id]
    assert b"In part." in content["verdict"]


class Broken:
    def __init__(self, *_):
        self.calls = 0

    def start(self, _):
        raise SystemExit("the server is gone")


class Slow(Broken):
    answers = threading.Event()

    def start(self, _):
        self.answers.wait(30)


def test_a_failing_library_is_told_once_and_left_alone(study, monkeypatch):
    monkeypatch.setitem(tracking.LIBRARIES, "mlflow", Broken)
    output = track("mlflow", study)
    assert output.count("the server is gone") == 1
    assert "the study goes on without it" in " ".join(output.split())


def test_a_slow_library_holds_up_the_end_only_so_long(study, monkeypatch):
    monkeypatch.setitem(tracking.LIBRARIES, "mlflow", Slow)
    monkeypatch.setattr(tracking, "PATIENCE", 0.05)
    assert "did not answer" in track("mlflow", study)
    assert not Slow.answers.is_set()
    Slow.answers.set()


def test_without_track_nothing_is_recorded(study):
    assert track(None, study) == ""
    assert study.names() == ["verdict.json"]


def test_a_library_that_is_missing_is_named_before_anything_starts(study, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="uv sync --extra wandb"):
        check_library("wandb", study)


def test_storage_that_is_no_folder_needs_a_server(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    class Bucket:
        is_local = False

    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        check_library("mlflow", Bucket())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    check_library("mlflow", Bucket())
