import json

import pandas as pd
import pytest

from segstrat.errors import UserError
from study.frame import build_frames, load, write_frames


@pytest.fixture
def mixed(study_writer, make_trial):
    """One trial of every status."""
    return study_writer(
        [
            make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, [0.1, 0.4, 0.3, 0.35]),
            make_trial(
                {"weight_decay": 1e-3, "pretrained": False, "seed": 0}, [0.1, 0.2, 0.6],
                status="stopped", stop_epoch=2, stop_rung=0, epochs=4,
            ),
            make_trial(
                {"weight_decay": 0.0, "pretrained": True, "seed": 0}, [0.5, None], train=None,
                status="diverged", epochs=4,
            ),
            make_trial(
                {"weight_decay": 1e-3, "pretrained": True, "seed": 0}, [0.5],
                status="failed", error="disk is full", epochs=4,
            ),
            make_trial(
                {"weight_decay": 5e-4, "pretrained": True, "seed": 0}, [0.5], status="unfinished", epochs=4
            ),
            make_trial(
                {"weight_decay": 5e-4, "pretrained": False, "seed": 0}, [], status="not started", epochs=4
            ),
        ]
    )  # fmt: skip


def test_each_status_is_told_apart(mixed):
    trials, _ = build_frames(mixed)
    assert list(trials["status"]) == [
        *("completed", "stopped", "diverged", "failed", "unfinished", "unfinished")
    ]
    assert trials.loc[3, "error"] == "disk is full"
    assert list(trials["epochs_run"]) == [4, 2, 2, 1, 1, 0]
    assert list(trials["epochs_budget"]) == [4] * 6


def test_without_an_outcome_a_scheduler_may_still_decide(study_writer, make_trial):
    trials = [make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, 0.4)]
    statuses = []
    for name in ("none", "asha"):
        folder = study_writer(trials, name=name, scheduler={"name": name})
        next(folder.glob("trials/*/outcome.json")).unlink()
        statuses.append(build_frames(folder)[0]["status"].item())
    assert statuses == ["completed", "unfinished"]


def test_best_epoch_is_the_one_with_the_best_validation_miou(mixed):
    trials, _ = build_frames(mixed)
    first = trials.iloc[0]
    assert first["best_epoch"] == 2
    assert first["semseg_val_miou"] == 0.4
    assert first["last_semseg_val_miou"] == 0.35
    assert first["semseg_train_miou"] == 0.5
    assert first["val_miou_thesis"] == pytest.approx(0.36)
    assert first["semseg_val_loss"] == pytest.approx(0.6)


def test_a_stopped_trial_ends_at_its_rung(mixed):
    trials, epochs = build_frames(mixed)
    stopped = trials.iloc[1]
    assert stopped["stop_epoch"] == 2
    assert stopped["last_semseg_val_miou"] == 0.2
    assert epochs.loc[epochs["trial_id"] == stopped["trial_id"], "epoch"].max() == 2


def test_frames_survive_the_way_through_parquet_and_csv(mixed):
    written = write_frames(mixed)
    for left, right in zip(written, load(mixed), strict=True):
        pd.testing.assert_frame_equal(left, right, check_dtype=False)
    for name in ("trials", "epochs"):
        (mixed / f"{name}.parquet").unlink()
    trials, epochs = load(mixed)
    assert list(trials.columns) == list(written[0].columns)
    assert trials["last_semseg_val_miou"].iloc[0] == pytest.approx(0.35)
    assert epochs["iou"].iloc[0][:2] == pytest.approx(written[1]["iou"].iloc[0][:2])


def test_a_joint_trial_has_columns_for_each_task(study_writer, make_trial):
    axes = {"pretrained": False, "seed": 0}
    folder = study_writer(
        [make_trial(axes, 0.4, tasks=["semseg", "parts"]), make_trial(axes, 0.3, tasks=["parts"])]
    )
    trials, epochs = build_frames(folder)
    assert list(trials["multi_task"]) == [True, False]
    assert list(trials["tasks"]) == ["semseg+parts", "parts"]
    assert trials["last_parts_val_miou"].tolist() == [0.4, 0.3]
    assert pd.isna(trials.loc[1, "last_semseg_val_miou"])
    # The parts-only trial's primary task is the one that it has.
    assert trials.loc[1, "val_miou_thesis"] == pytest.approx(0.27)
    assert set(epochs["task"]) == {"semseg", "parts"}


def test_a_torn_record_costs_its_trial_only(mixed):
    records = next((mixed / "trials").glob("*/records.json"))
    records.write_text('{"facts": {')
    trials, _ = build_frames(mixed)
    assert len(trials) == 6
    assert trials["error"].str.contains("records.json cannot be read").sum() == 1


def test_a_frame_of_another_version_is_named(mixed):
    write_frames(mixed)
    trials, _ = load(mixed)
    trials.drop(columns=["status", "arm"]).to_parquet(mixed / "trials.parquet")
    with pytest.raises(UserError, match="lack arm, status"):
        load(mixed)


def test_a_manifest_of_another_schema_is_refused(mixed):
    manifest = json.loads((mixed / "manifest.json").read_text())
    (mixed / "manifest.json").write_text(json.dumps(manifest | {"schema": 0}))
    with pytest.raises(UserError, match="schema 0"):
        build_frames(mixed)


def test_a_folder_without_frames_is_named(tmp_path):
    with pytest.raises(UserError, match="no frames"):
        load(tmp_path)
