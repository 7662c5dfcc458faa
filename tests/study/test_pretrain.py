"""The command line of pre-training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    monkeypatch.setattr("segstrat.pretraining.recipe.RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr("segstrat.pretraining.cached.cpu_cores", lambda: 1)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return ["--backbone", "resnet18", "--width", "0.125", "--data", str(folder), "--out", str(out), *more]


def cut(reports):
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


def test_images_without_labels_are_learnt_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.pth"
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(flat / f"{number}.png")
    assert stage.main([*command(flat, out, "--epochs", "1"), "--self"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out} (reconstruction error ")
    assert "flat: 13 images, no labels, 1 epochs" in printed.err
    assert torch.load(out, weights_only=True)["about"]["recipe"]["mask_share"] == 0.6


def test_the_training_images_of_a_described_folder_are_learnt_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png"))
    (folder / "train.txt").write_text("\n".join(names[:12]))
    (folder / "val.txt").write_text("\n".join(names[12:]))
    (folder / "dataset.toml").write_text(
        'name = "mine"\nimages = "."\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        '[tasks.semseg]\nlabels = "no labels here"\nclasses = ["a", "b"]\n'
    )
    assert stage.main([*command(folder, tmp_path / "w.pth", "--epochs", "1"), "--self"]) == 0
    assert "on mine: 10 images, no labels" in capsys.readouterr().err


def test_resume_goes_on_where_it_was_cut_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "w.pth", tmp_path / "whole.pth"
    assert stage.main(command(folder, whole)) == 0
    plain = stage.follow
    monkeypatch.setattr(stage, "follow", cut)
    assert stage.main(command(folder, out)) == 130
    assert "continue after the last complete epoch with --resume" in capsys.readouterr().err
    assert not out.exists()

    monkeypatch.setattr(stage, "follow", plain)
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
        (["--width", "9"], "'9' is not a number in (0, 4]"),
        (["--width", "wide"], "'wide' is not a number"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 to"),
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


@pytest.mark.parametrize("out", ["file/w.pth", "file/deeper/w.pth"])
def test_an_output_folder_that_cannot_be_created_is_named_before_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (tmp_path / "file").write_text("")
    assert stage.main(command(folder, tmp_path / out)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / out} cannot be written (")
    assert error.count("\n") == 1


def test_the_seed_changes_the_weights(folder: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "0.pth", tmp_path / "1.pth", tmp_path / "again.pth"]
    for path, seed in zip(paths, "010", strict=True):
        assert stage.main(command(folder, path, "--seed", seed, "--epochs", "1")) == 0
    first, second, again = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])
    assert torch.equal(first["conv1.weight"], again["conv1.weight"])
