"""Bad weights end a study before anything has started: one sentence, exit code 2, also with --dry-run."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segstrat.models import build_backbone
from segstrat.models.weights import save_backbone
from study.run import main

WIDTH = 0.25  # of wd_grid on figures


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.mkdir, (self.target,)


def truncated(path: Path) -> None:
    save_backbone(path, build_backbone("resnet18", WIDTH))
    path.write_bytes(path.read_bytes()[:20_000])


def not_finite(path: Path) -> None:
    backbone = build_backbone("resnet18", WIDTH)
    with torch.no_grad():
        backbone.conv1.weight[0, 0, 0, 0] = float("nan")
    save_backbone(path, backbone)


def other_shapes(path: Path) -> None:
    # As torchvision would save them: nothing in the file names the width.
    torch.save(build_backbone("resnet18", 0.5).state_dict(), path)


def other_keys(path: Path) -> None:
    torch.save(build_backbone("squeezenet1_1", WIDTH).state_dict(), path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "is not a file"),
    "a folder": (Path.mkdir, "is not a file"),
    "empty": (Path.touch, "damaged"),
    "truncated": (truncated, "damaged"),
    "noise": (lambda path: path.write_bytes(b"\x17noise" * 99), "damaged"),
    "hostile": (
        lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "ran"), protocol=2)),
        "more than tensors",
    ),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "not a state dict"),
    "other keys": (other_keys, "do not fit resnet18 at width 0.25"),
    "other shapes": (other_shapes, "with another shape"),
    "other width": (lambda path: save_backbone(path, build_backbone("resnet18", 0.5)), "width 0.5"),
    "other backbone": (lambda path: save_backbone(path, build_backbone("resnet34", WIDTH)), "resnet34"),
    "not finite": (not_finite, "NaN or infinite values"),
}


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_weights_are_refused_before_anything_starts(
    kind: str, dry: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("study.driver.session.ray_session", refuse)
    make, words = BAD[kind]
    path = tmp_path / "w.pth"
    make(path)
    arguments = ["--space", "wd_grid", "--weights", str(path), "--storage", str(tmp_path / "results")]
    assert main([*arguments, *(["--dry-run"] if dry else [])]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("error: ") == 1
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("results/*/manifest.json"))


@pytest.mark.usefixtures("few_figures")
def test_imagenet_weights_need_width_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--space", "wd_grid", "--weights", "imagenet", "--storage", str(tmp_path), "--dry-run"]
    assert main(arguments) == 2
    assert "imagenet weights are those of width 1, not 0.25" in capsys.readouterr().err


@pytest.mark.usefixtures("few_figures")
def test_weights_that_fit_are_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_backbone(tmp_path / "w.pth", build_backbone("resnet18", WIDTH))
    arguments = ["--space", "wd_grid", "--weights", str(tmp_path / "w.pth"), "--storage", str(tmp_path)]
    assert main([*arguments, "--dry-run"]) == 0
    assert "Nothing was started." in capsys.readouterr().out
