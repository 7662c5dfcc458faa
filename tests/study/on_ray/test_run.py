"""A whole study through the command line, on a real Ray: run, refused, resumed, extended."""

import json
import shutil

import numpy as np
import pytest

from study.frame import load
from study.run import main

pytestmark = pytest.mark.cluster


def test_every_trial_has_a_row_a_status_and_records(undisturbed):
    code, _, folder, _ = undisturbed
    trials, epochs = load(folder)
    assert code == 0
    assert len(trials) == 9
    assert trials["order"].is_monotonic_increasing
    screening, answering = (trials[trials["stage"] == stage] for stage in ("screening", "answering"))
    hopeless = screening["weight_decay"] > 1
    assert list(screening.loc[hopeless, "status"]) == ["stopped", "stopped"]
    assert list(screening.loc[hopeless, "stop_epoch"]) == [2, 2]
    assert set(screening.loc[~hopeless, "status"]) == {"completed"}, "too few competitors to stop"
    assert set(answering["seed"]) == {1}
    assert (
        list(zip(answering["pretrained"], answering["status"], strict=True)).count((False, "completed")) == 2
    )
    raw_decays = set(answering.loc[~answering["pretrained"], "weight_decay"])
    assert raw_decays == {0.0, 1e-3}, "the reference and the best other raw cell"
    completed = trials[trials["status"] == "completed"]
    assert (completed["epochs_run"] == 8).all()
    assert (completed["epochs_budget"] == 8).all()
    counts = epochs.groupby("trial_id")["epoch"].max()
    assert dict(counts) == dict(trials.set_index("trial_id")["epochs_run"])


def test_the_folder_holds_what_the_console_names(undisturbed):
    _, _, folder, output = undisturbed
    assert "No gallery is here" not in (folder / "report.html").read_text()
    for name in (
        "gallery-semseg.npz",
        "report.html",
        "trials.parquet",
        "trials.csv",
        "epochs.parquet",
        "manifest.json",
    ):
        assert (folder / name).stat().st_size > 0
    with np.load(folder / "gallery-semseg.npz") as gallery:
        assert len(gallery["ids"]) == len(set(gallery["ids"])) == 4, "each validation image once"
    assert "Which class is taken for which" in (folder / "report.html").read_text()
    assert len(list((folder / "tensorboard").rglob("events.out.tfevents.*"))) == 9
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["train_images"] == 8
    assert manifest["scheduler"]["rung_fractions"] == [0.25, 0.5]
    assert [len(digest) for digest in manifest["weights"]["files"].values()] == [64]
    flat = " ".join(output.split())
    assert "Does the machinery run?" in flat
    assert "8 to train, 4 to validate" in flat
    assert "2 trials at once, 1 core each" in flat
    assert "raw 1e-3" in flat
    assert "screening nominates raw weight_decay=0.001" in flat
    assert "look 1 of 1, 1 seeds" in flat
    assert manifest["answering"]["semseg"]["reference"] == "raw weight_decay=0"
    assert f"{folder}/report.html" in output.replace("\n", "")


def test_an_existing_name_is_refused(undisturbed, capsys):
    _, flags, folder, _ = undisturbed
    before = (folder / "manifest.json").read_bytes()
    assert main([*flags, "--name", "first"]) == 2
    assert "exists already; continue it with --resume" in capsys.readouterr().err
    assert (folder / "manifest.json").read_bytes() == before


def test_resuming_a_finished_study_runs_nothing_again(undisturbed, capsys):
    _, _, folder, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    resume = ["--resume", "--name", "first", "--storage", str(folder.parent), "--gpus-per-trial", "0"]
    assert main(resume) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before
    assert "9 trials are done, 0 remain" in capsys.readouterr().out


def test_a_changed_code_or_seed_is_refused(undisturbed, capsys, tmp_path):
    _, _, folder, _ = undisturbed
    changed = tmp_path / "first"
    shutil.copytree(folder, changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"code": "0123"}))
    resume = ["--resume", "--name", "first", "--storage", str(tmp_path), "--gpus-per-trial", "0"]
    assert main(resume) == 2
    assert "the code in segstrat/ changed since" in capsys.readouterr().err
    assert main([*resume, "--seeds", "0,1"]) == 2
    assert "the seeds ([0] before, [0, 1] now)" in capsys.readouterr().err
    assert main([*resume, "--accept-changes"]) == 0


def test_more_gpus_than_a_node_has_are_refused(undisturbed, capsys):
    _, flags, folder, _ = undisturbed
    assert main([*flags, "--name", "third", "--gpus-per-trial", "5"]) == 2
    assert "the largest node has 4" in capsys.readouterr().err
    assert not (folder.parent / "third").exists()


@pytest.mark.cluster
def test_a_finished_study_is_extended_by_more_seeds(undisturbed, tmp_path, capsys):
    _, _, folder, _ = undisturbed
    shutil.copytree(folder, tmp_path / "first")
    resume = ["--resume", "--name", "first", "--storage", str(tmp_path)]
    assert main([*resume, "--max-seeds", "2", "--gpus-per-trial", "0"]) == 0, (
        "without switching off the guards"
    )
    trials, _ = load(tmp_path / "first")
    answering = trials[trials["stage"] == "answering"]
    assert sorted(answering["seed"]) == [1] * 3 + [2] * 3
    before, _ = load(folder)
    assert list(trials["trial_id"][:9]) == list(before["trial_id"])
    assert main([*resume, "--max-seeds", "1"]) == 2
    assert "give a larger number" in capsys.readouterr().err
