"""The command line of the pre-training stage, and the weights that studies on `figures` share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.config import TrialConfig
from segstrat.machine import Machine
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.recipe import Recipe
from study import pretrain as stage

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{number}.png")
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def _tiny_and_single_threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr(stage, "this_machine", lambda: Machine(threads=1))


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return ["--backbone", "resnet18", "--width", "0.1", "--data", str(folder), "--out", str(out), *more]


def cut(reports, title, epochs):
    """Ctrl-C after the first epoch."""
    next(reports)
    raise KeyboardInterrupt


def test_a_folder_is_learnt_from_and_the_weights_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights" / "w.pth"
    assert stage.main(command(folder, out, "--epochs", "1")) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out} (top-1 ")
    assert "8 images, 2 classes, 1 epochs" in printed.err
    assert "epoch 1/1, loss " in printed.err
    assert torch.load(out, weights_only=True)["about"]["recipe"]["epochs"] == 1


def test_resume_goes_on_where_it_was_cut_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "w.pth", tmp_path / "whole.pth"
    assert stage.main(command(folder, whole)) == 0
    plain = stage.show
    monkeypatch.setattr(stage, "show", cut)
    assert stage.main(command(folder, out)) == 130
    assert "continue after the last complete epoch with --resume" in capsys.readouterr().err
    assert not out.exists()

    monkeypatch.setattr(stage, "show", plain)
    assert stage.main(command(folder, out)) == 2
    assert "started already" in capsys.readouterr().err
    assert stage.main(command(folder, out, "--resume")) == 0
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--backbone", "resnet19"], "unknown backbone 'resnet19': did you mean 'resnet"),
        (["--width", "9"], "width 9: expected a number in (0, 4]"),
        (["--width", "wide"], "invalid float value"),
        (["--epochs", "0"], "'0' is not a whole number ≥ 1"),
        (["--epoch", "3"], "unknown argument '--epoch': did you mean --epochs?"),
        (["--resume"], "--resume: there is no unfinished run"),
    ],
)
def test_bad_input_ends_with_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    assert stage.main([*command(folder, tmp_path / "w.pth"), *change]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "w.pth").exists()


def test_a_result_is_not_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.pth").write_text("mine")
    assert stage.main(command(folder, tmp_path / "w.pth")) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "w.pth").read_text() == "mine"


def test_a_damaged_image_ends_with_its_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train" / "b" / "2.png").write_bytes(b"no image")
    assert stage.main(command(folder, tmp_path / "w.pth")) == 2
    assert "train/b/2.png" in capsys.readouterr().err


@pytest.fixture
def small_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ClassificationData:
    data = open_classification(folder, name="figures", digest="d1")
    monkeypatch.setattr(stage, "open_data", lambda *_: data)
    return data


def test_weights_of_figures_are_made_once(
    small_figures: ClassificationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrialConfig(data="figures", model="fcn8s", width=0.1)
    path = stage.ensure_pretrained(config, tmp_path / "cache")
    assert path.parent == tmp_path / "cache" / "weights"
    assert torch.load(path, weights_only=True)["width"] == 0.1
    monkeypatch.setattr(stage, "pretrain", None)
    assert stage.ensure_pretrained(config, tmp_path / "cache") == path


def test_another_width_recipe_or_data_is_another_file(
    small_figures: ClassificationData, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(width: float = 0.1) -> Path:
        config = TrialConfig(data="figures", model="fcn8s", width=width)
        return stage.ensure_pretrained(config, tmp_path / "cache")

    paths = [made(), made(width=0.15)]
    monkeypatch.setattr(stage, "RECIPES", {"figures": Recipe(**{**vars(TINY), "weight_decay": 0.0})})
    paths.append(made())
    other = open_classification(folder, name="figures", digest="d2")
    monkeypatch.setattr(stage, "open_data", lambda *_: other)
    paths.append(made())
    assert len(set(paths)) == 4


def test_an_interrupted_cache_entry_is_finished_not_started_again(
    small_figures: ClassificationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrialConfig(data="figures", model="fcn8s", width=0.1)
    monkeypatch.setattr(stage, "show", cut)
    with pytest.raises(KeyboardInterrupt):
        stage.ensure_pretrained(config, tmp_path)
    shown = []
    monkeypatch.setattr(stage, "show", lambda reports, *_: shown.extend(reports))
    stage.ensure_pretrained(config, tmp_path)
    assert [report.epoch for report in shown] == [2]


def test_recipes_of_backbones_without_batch_norm_are_gentler() -> None:
    assert stage.recipe_for("vgg16", "figures").learning_rate == pytest.approx(TINY.learning_rate / 10)
    assert stage.recipe_for("vgg16", "figures").dropout == 0.5
    assert stage.recipe_for("vgg16_bn", "figures") == TINY
    assert stage.recipe_for("squeezenet1_1", "anywhere", epochs=7).epochs == 7


def test_crops_are_no_larger_than_the_images(folder: Path) -> None:
    data = open_classification(folder)
    usual = Recipe(**{**vars(TINY), "crop_size": 56, "resize": 64})
    assert stage.fitted(TINY, data) == TINY
    # Images of 32 pixels: half of 64, and half of 56 would be less than the smallest crop.
    small = stage.fitted(usual, data)
    assert (small.resize, small.crop_size) == (32, 32)
    for path in data.train.paths:
        Image.new("RGB", (90, 48)).save(path)
    middle = stage.fitted(usual, open_classification(folder))
    assert (middle.resize, middle.crop_size) == (48, 42)
