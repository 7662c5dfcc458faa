import csv
import json

import numpy as np
import pandas as pd
import pytest

from segstrat.errors import UserError
from segstrat.image_counts import ImageCounts, write_counts
from segstrat.store import Store
from study.frame import build_frames, digests, load, write_frames
from study.frame.__main__ import main


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


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "'=x", "'x", "x=1", 'a, "b"'])
def test_no_text_is_a_formula_to_a_spreadsheet_and_all_survives(study_writer, make_trial, text):
    trial = make_trial({"pretrained": False, "weight_decay": 0.0, "seed": 0}, 0.3)
    folder = study_writer([trial | {"status": "failed", "error": text}])
    written, _ = write_frames(folder)
    assert written["error"].item() == text
    with (folder / "trials.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["error"][0] not in "=+-@"
    (folder / "trials.parquet").unlink()
    assert load(folder)[0]["error"].item() == text


def test_digests_tell_a_reproduced_study_from_another(mixed, capsys):
    trials, epochs = write_frames(mixed)
    found = digests((trials, epochs))
    again = trials.assign(seconds=1.0, study="other", device="another machine").sample(frac=1, random_state=0)
    assert digests((again, epochs.assign(data_wait=0.5)[::-1])) == found
    for name in ("trials.parquet", "epochs.parquet"):
        (mixed / name).unlink()
    assert digests(load(mixed)) == found, "CSV holds the same"
    trials.loc[0, "last_semseg_val_miou"] += 1e-15
    assert digests((trials, epochs))[0] != found[0]
    assert main(["--digest", str(mixed)]) == 0
    assert capsys.readouterr().out == f"{mixed}: trials {found[0]}, epochs {found[1]}\n"


def test_a_multi_task_trial_has_columns_for_each_task(study_writer, make_trial):
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


def test_a_truncated_record_costs_its_trial_only(mixed):
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


def test_seconds_can_be_summed_over_the_rows_of_an_epoch(mixed):
    trials, epochs = build_frames(mixed)
    summed = epochs.groupby("trial_id")["seconds"].sum()
    assert summed[trials["trial_id"].iloc[0]] == pytest.approx(trials["seconds"].iloc[0])


def test_class_names_come_with_the_epochs(study_writer, make_trial):
    trial = make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, 0.4)
    classes = {"semseg": ["background", "cat", "cow", "dog"]}
    folder = study_writer([trial], data={"name": "figures", "classes": classes})
    write_frames(folder)
    assert load(folder)[1].attrs["classes"] == classes


def image_counts(rng, images=60):
    labeled = rng.integers(0, 50, (images, 4))
    hits = (labeled * rng.uniform(0.3, 0.9, (images, 4))).astype(int)
    return ImageCounts(tuple(f"i{n}" for n in range(images)), hits, labeled, hits + 5)


def test_scores_of_image_subsets_are_columns(study_writer, make_trial):
    axes = {"weight_decay": 0.0, "pretrained": False}
    folder = study_writer([make_trial(axes | {"seed": 0}, 0.4), make_trial(axes | {"seed": 1}, 0.4)])
    planned = json.loads((folder / "manifest.json").read_text())["trials"]
    rng = np.random.default_rng(0)
    val, test = image_counts(rng), image_counts(rng)
    store = Store(folder / "trials" / planned[0]["trial_id"])
    write_counts(store, {("semseg", "val"): val, ("semseg", "test"): test})
    write_frames(folder)
    for kind in ("parquet", "csv"):
        first, second = (row for _, row in load(folder)[0].iterrows())
        assert first["last_semseg_val_miou_a"] == pytest.approx(val.half_mious()["a"])
        assert first["last_semseg_val_miou_b"] == pytest.approx(val.half_mious()["b"])
        assert first["last_semseg_test_miou"] == pytest.approx(test.miou())
        assert first["semseg_val_constant_miou"] == pytest.approx(val.constant_miou())
        assert list(first["last_semseg_val_miou_jackknife"]) == pytest.approx(list(val.jackknife_mious()))
        assert pd.isna(second["last_semseg_val_miou_a"])
        assert second["last_semseg_val_miou_jackknife"] is None or np.isnan(
            second["last_semseg_val_miou_jackknife"]
        ), kind
        (folder / "trials.parquet").unlink(missing_ok=True)


def test_damaged_counts_cost_their_columns_only(study_writer, make_trial):
    folder = study_writer([make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, 0.4)])
    (next(folder.glob("trials/*")) / "counts.npz").write_bytes(b"PK")
    row = build_frames(folder)[0].iloc[0]
    assert row["last_semseg_val_miou"] == pytest.approx(0.4)
    assert pd.isna(row["last_semseg_val_miou_a"])
    assert "counts.npz cannot be read" in row["error"]


def test_the_floor_may_be_a_fact_of_the_trial(study_writer, make_trial):
    folder = study_writer([make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, 0.4)])
    path = next(folder.glob("trials/*")) / "records.json"
    records = json.loads(path.read_text())
    records["facts"]["constant_miou"] = {"semseg": {"val": 0.104, "test": 0.1}}
    path.write_text(json.dumps(records))
    row = build_frames(folder)[0].iloc[0]
    assert (row["semseg_val_constant_miou"], row["semseg_test_constant_miou"]) == (0.104, 0.1)


def test_initialization_is_always_filled_also_of_trials_recorded_before_it(study_writer, make_trial):
    axes = [{"pretrained": False}, {"pretrained": True}, {"pretrained": True, "initialization": "self"}]
    folder = study_writer([make_trial({**each, "weight_decay": 0.0, "seed": 0}, 0.4) for each in axes])
    manifest = json.loads((folder / "manifest.json").read_text())
    for trial in manifest["trials"][:2]:
        del trial["config"]["initialization"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found, _ = build_frames(folder)
    assert list(found["initialization"]) == ["raw", "given", "self"]
    assert list(found.columns).index("initialization") == list(found.columns).index("pretrained") + 1


def test_frames_written_before_initialization_existed_have_it_too(mixed):
    write_frames(mixed)
    before = load(mixed)[0]
    before.drop(columns="initialization").to_parquet(mixed / "trials.parquet", index=False)
    after = load(mixed)[0]
    assert list(after["initialization"]) == ["raw", "raw", "given", "given", "given", "raw"]
    assert list(after.columns) == list(before.columns)
