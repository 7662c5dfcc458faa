"""`--dry-run` on a folder of one's own: the recipe of each arm, time, disk and warnings."""

import dataclasses
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from segstrat.step_cost import StepTime
from study.driver.dry_run import Estimate, _in_words, time_line, tuning_lines
from study.planning.space import load_space
from study.planning.space_files import write_template
from study.planning.trials import plan
from study.run import main


@pytest.fixture
def own_data(tmp_path):
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(8):
        Image.fromarray(rng.integers(0, 255, (70, 96, 3), np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(rng.integers(0, 2, (70, 96), np.uint8)).save(root / "labels" / f"{index}.png")
    (root / "train.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (root / "val.txt").write_text("6\n7\n")
    (root / "dataset.toml").write_text(
        'name = "mine"\nimages = "images"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        '[tasks.semseg]\nlabels = "labels"\nclasses = ["background", "thing"]\n'
    )
    return root


@pytest.fixture
def dry_run(own_data, tmp_path, monkeypatch, capsys):
    """Runs `--dry-run` of the template, changed; returns the output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("study.driver.weights.Weights.check", lambda *_, **__: None)

    def run(old: str = "", new: str = "") -> str:
        space = write_template("mine")
        text = space.read_text().replace('"model": "fcn8s"', '"width": 0.25, "model": "fcn8s"')
        space.write_text(text.replace(old, new))
        before = sorted(tmp_path.rglob("*"))
        flags = [
            "--space",
            "mine.py",
            "--data",
            "folder",
            "--data-root",
            str(own_data),
            "--weights",
            "imagenet",
        ]
        assert main([*flags, "--dry-run"]) == 0
        after = [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts]
        assert after == before
        return capsys.readouterr().out

    return run


def test_the_recipe_of_each_arm_is_printed(dry_run):
    output = dry_run()
    assert "recipe   small: for fewer than 1,500 images (6 of 70 pixels here)" in output
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines() if "resnet18" in line}
    assert rows["raw"] == ["fcn8s", "resnet18", "0.25", "64", "4", "300", "0.02", "0.02"]
    assert rows["pre-trained"] == ["fcn8s", "resnet18", "0.25", "64", "4", "300", "0.02", "2e-3"]
    assert list(rows) == ["raw", "pre-trained"]


def test_time_and_disk_are_estimated(dry_run):
    output = dry_run()
    assert "CPU cores" in output
    assert "MB of checkpoints" in output
    assert "warning" not in output
    assert "data     mine (" in output, "the data set's own name"
    assert "Nothing was started." in output


def test_the_thesis_recipe_on_a_small_folder_is_warned_of(dry_run):
    output = dry_run('"backbone":', '"crop_size": 512, "epochs": 300, "backbone":')
    assert "warning  crops of 512 pixels on images of 70" in output
    assert "warning  300 epochs of 512 pixels are the thesis's recipe" in output


def test_the_cost_of_a_tuned_axis_is_stated_for_each_arm():
    (line,) = tuning_lines(plan(load_space("wd_lr_grid"), "figures", weights="w"))
    assert "learning rate 0.0125, 0.05, 0.2" in line
    assert "it costs 6 of 9 raw trials, 6 of 9 pre-trained trials" in line
    assert tuning_lines(plan(load_space("wd_grid"), "figures", weights="w")) == []


def test_the_time_contains_that_of_the_pre_trainings():
    cost = Estimate(seconds=1800, pretrain_seconds=1200, disk_bytes=0, concurrent=2, device="4 CPU cores")
    assert time_line(cost, 3).startswith("time     about 30 min (20 min of it for 3 pre-trainings) on 4 CPU")
    assert "(20 min of it for 1 pre-training)" in time_line(cost, 1)
    none = dataclasses.replace(cost, seconds=600, pretrain_seconds=0)
    assert time_line(none, 0).startswith("time     about 10 min on 4 CPU cores, 2 trials at once")


def test_a_plan_of_many_trials_fits_on_a_screen_unless_all_are_asked_for(dry_run):
    many = str([index / 1000 for index in range(100)])
    output = dry_run("[0.0, 5e-4, 5e-3]", many)
    rows = [
        line for line in output.splitlines() if line.startswith(tuple("0123456789abcdef")) and "fcn8s" in line
    ]
    assert len(rows) == 20
    assert "… 180 more trials; --verbose lists them all" in output
    assert output.count("\n") < 50


def test_many_values_of_a_recipe_are_a_range():
    assert _in_words([0.0, 1e-4, 0.02]) == "0, 1e-4, 0.02"
    assert _in_words([index / 1000 for index in range(1, 2001)]).startswith("1e-3 to 2 (")


def test_a_long_study_proposes_the_command_of_one_that_fits_an_hour(own_data, tmp_path, monkeypatch, capsys):
    """Its own dry run says so, and proposes nothing further."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("study.driver.weights.Weights.check", lambda *_, **__: None)
    step = StepTime(train_seconds=0.2, val_seconds=0.1, checkpoint_bytes=1000)
    monkeypatch.setattr("segstrat.step_cost.measure_step", lambda *_: step)
    line = ["--space", "wd_grid", "--data", "folder", "--data-root", str(own_data), "--weights", "imagenet"]
    assert main([*line, "--dry-run"]) == 0
    output = capsys.readouterr().out
    (proposed,) = (words for words in output.splitlines() if "study/run.py" in words)
    words = shlex.split(proposed)
    assert words[:4] == ["uv", "run", "python", "study/run.py"]
    assert main([*words[4:], "--dry-run"]) == 0
    smaller = capsys.readouterr().out
    (minutes,) = re.findall(r"^time +about (\d+) min", smaller, re.MULTILINE)
    assert int(minutes) < 60
    assert "study/run.py" not in smaller
    assert {flag: words[words.index(flag) + 1] for flag in ("--set", "--seeds", "--scheduler")} == {
        "--set": "weight_decay=0.0,0.001",
        "--seeds": "0,1,2",
        "--scheduler": "none",
    }


def test_a_study_that_fits_no_hour_proposes_nothing(own_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("study.driver.weights.Weights.check", lambda *_, **__: None)
    step = StepTime(train_seconds=2000.0, val_seconds=0.1, checkpoint_bytes=1000)
    monkeypatch.setattr("segstrat.step_cost.measure_step", lambda *_: step)
    line = ["--space", "wd_grid", "--data", "folder", "--data-root", str(own_data), "--weights", "imagenet"]
    assert main([*line, "--dry-run"]) == 0
    assert "study/run.py" not in capsys.readouterr().out
