"""A whole study through the command line, on a real Ray: run, refused, resumed, repeated."""

import json
import shutil

from study.frame import load
from study.run import main


def test_every_trial_has_a_row_a_status_and_records(undisturbed):
    code, _, folder, _ = undisturbed
    trials, epochs = load(folder)
    assert code == 0
    assert len(trials) == 6
    assert trials["order"].is_monotonic_increasing
    hopeless = trials["weight_decay"] > 1
    assert list(trials.loc[hopeless, "status"]) == ["stopped", "stopped"]
    assert list(trials.loc[hopeless, "stop_epoch"]) == [2, 2]
    assert set(trials.loc[~hopeless, "status"]) == {"completed"}, "too few competitors to stop"
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
    assert len(list((folder / "tensorboard").rglob("events.out.tfevents.*"))) == 6
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["train_images"] == 8
    assert manifest["scheduler"]["rung_fractions"] == [0.25, 0.5]
    assert len(manifest["weights"]["digest"]) == 64
    flat = " ".join(output.split())
    assert "Does the machinery run?" in flat
    assert "8 to train, 4 to validate" in flat
    assert "2 trials at once, 1 core each" in flat
    assert "raw 1e-3" in flat
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
    assert main(["--resume", "--name", "first", "--storage", str(folder.parent)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == before
    assert "6 trials are done, 0 remain" in capsys.readouterr().out


def test_a_changed_code_or_seed_is_refused(undisturbed, capsys, tmp_path):
    _, _, folder, _ = undisturbed
    changed = tmp_path / "first"
    shutil.copytree(folder, changed)
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"code": "0123"}))
    resume = ["--resume", "--name", "first", "--storage", str(tmp_path)]
    assert main(resume) == 2
    assert "the code in segstrat/ changed since" in capsys.readouterr().err
    assert main([*resume, "--seeds", "0,1"]) == 2
    assert "the seeds ([0] before, [0, 1] now)" in capsys.readouterr().err
    assert main([*resume, "--accept-changes"]) == 0


def test_the_same_command_gives_the_same_frame(undisturbed, same_frames):
    _, flags, folder, _ = undisturbed
    assert main([*flags, "--name", "second", "--max-concurrent", "3"]) == 0
    same_frames(folder, folder.parent / "second")


def test_more_gpus_than_a_node_has_are_refused(undisturbed, capsys):
    _, flags, folder, _ = undisturbed
    assert main([*flags, "--name", "third", "--gpus-per-trial", "5"]) == 2
    assert "the largest node has 4" in capsys.readouterr().err
    assert not (folder.parent / "third").exists()
