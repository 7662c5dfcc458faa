"""From the export of an annotation tool to a study, with one command and no line of code."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from segstrat.data import build_protocol
from segstrat.data.convert import main as convert
from segstrat.train import train
from study.cli import parse
from study.driver.data_check import check_data
from study.driver.prepare import open_study, plan_study
from study.run import main
from tests.data.exports import LAYOUTS, H, W, assert_same, masks, read, write_png

SPACE = """
from ray import tune

QUESTION = "Does it start?"
BASE = {"model": "fcn32s", "width": 0.25, "crop_size": 32, "batch_size": 2, "epochs": 1, "validate_every": 1}
SPACE = {"weight_decay": tune.grid_search([0.0])}
ROLES = {"weight_decay": "treatment"}
METRIC = "semseg_val_miou"
"""


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """The flags of a study of one trial; data and its root follow."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(SPACE)
    return ["--space", "space.py", "--scheduler", "none", "--seeds", "0"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_export_is_trained_on_by_one_command(name, command, tmp_path):
    format_name, write, counts = LAYOUTS[name]
    expected = write(tmp_path / "export")
    flags = parse([*command, "--data", format_name, "--data-root", "export"])
    opened = open_study(flags)
    assert opened.settings.name == "space-export"
    trials = plan_study(opened)
    data = check_data(opened.settings, trials, cache=True)
    assert (data["train_images"], data["val_images"]) == (counts["train"], counts["val"])
    assert_same(read(Path(opened.settings.data_root))[1], expected)
    protocol = build_protocol(opened.settings.data, opened.settings.data_root)
    reports = list(train(trials[0].config, protocol=protocol))
    assert reports[-1].status == "completed"
    names = {name for labels in expected.values() for name in labels.ravel()} - {"void"}
    assert set(protocol.tasks["semseg"].classes) == names


def test_a_dry_run_converts_once_and_says_so(command, tmp_path, capsys):
    masks(tmp_path / "export")
    flags = [*command, "--data", "masks", "--data-root", "export", "--dry-run"]
    assert main(flags) == 0
    first = capsys.readouterr().out
    assert "10 images (train 7, val 1, test 2)" in first
    assert "value 0 is background and 255 the object" in first
    assert "Nothing was started." in first
    made = (tmp_path / "export-segstrat" / "dataset.toml").stat().st_mtime_ns
    assert main(flags) == 0
    assert "export-segstrat: converted before" in capsys.readouterr().out
    assert (tmp_path / "export-segstrat" / "dataset.toml").stat().st_mtime_ns == made


def test_an_export_that_has_changed_is_not_taken_for_the_converted_one(command, tmp_path, capsys):
    masks(tmp_path / "export")
    flags = parse([*command, "--data", "masks", "--data-root", "export"])
    open_study(flags)
    write_png(tmp_path / "export" / "Masks" / "day0" / "0.png", np.eye(H, W) * 255)
    assert main([*command, "--data", "masks", "--data-root", "export", "--dry-run"]) == 2
    assert "has changed since; remove" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["--data", "cooc", "--data-root", "export"], "did you mean 'coco'?"),
        (["--data", "coco"], "give the folder of the export with --data-root DIR"),
        (
            ["--data", "coco", "--data-root", "nowhere"],
            "nowhere does not exist; give the folder of the export",
        ),
        (["--data", "coco", "--data-root", "export"], "no COCO annotations below"),
    ],
)
def test_an_export_that_cannot_be_read_is_one_sentence(command, data, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SEGSTRAT_DATA", raising=False)
    masks(tmp_path / "export")
    assert main([*command, *data, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "export-segstrat").exists()


def test_converting_ends_with_commands_to_copy(command, tmp_path, capsys, monkeypatch):
    masks(tmp_path / "my export")
    assert convert(["masks", "my export", "--out", "my data"]) == 0
    printed = capsys.readouterr().out
    look, run = re.findall(r"^  uv run python study/run\.py (.*)$", printed, re.MULTILINE)
    assert look == f"{run} --dry-run"
    settings = parse(shlex.split(run)).settings
    assert (settings["space"], settings["data"], settings["data_root"]) == ("wd_grid", "folder", "my data")
    monkeypatch.setattr("study.driver.weights.Weights.check", lambda *_, **__: None)
    assert main([*command, *shlex.split(look)[2:]]) == 0
