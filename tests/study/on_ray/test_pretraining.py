"""A study that pre-trains by itself, killed while it does: it continues, with weights for each seed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.frame import load
from study.run import main


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A classification folder with two classes of four images in each split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("red", "blue"):
            folder = tmp_path / "classes" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "classes"


@pytest.mark.cluster
def test_a_study_killed_while_it_pre_trains_continues(
    cluster, start_driver, tiny_flags, classes, tmp_path, capsys
):
    at = tiny_flags.index("--weights")
    flags = [*tiny_flags[:at], *tiny_flags[at + 2 :], "--budget", "0.25"]
    flags += ["--storage", str(tmp_path), "--name", "own", "--max-concurrent", "2"]
    driver = start_driver([*flags, "--pretrain-on", str(classes), "--pretrain-epochs", "3"])
    for line in driver.stdout:
        if "seed 0 on classes (once): epoch" in line:
            break
    driver.kill()
    driver.wait()
    begun = json.loads((tmp_path / "own" / "manifest.json").read_text())
    assert begun["options"]["pretrain_on"] == str(classes)
    assert not (tmp_path / "own" / "trials").exists(), "no trial starts before its weights exist"
    again = ["--resume", "--name", "own", "--storage", str(tmp_path), "--gpus-per-trial", "0"]
    assert main([*again, "--max-concurrent", "2"]) == 0
    trials, _ = load(tmp_path / "own")
    manifest = json.loads((tmp_path / "own" / "manifest.json").read_text())
    pretrained = trials[trials["pretrained"]]
    used = {stage: set(group["weights_digest"]) for stage, group in pretrained.groupby("stage")}
    files = manifest["weights"]["files"]
    screening = {digest for name, digest in files.items() if "-seed0-" in name}
    answering = {digest for name, digest in files.items() if "-seed1-" in name}
    assert used == {"screening": screening, "answering": answering}
    assert screening != answering
    assert manifest["weights"]["data_digest"]
    verdict = json.loads((tmp_path / "own" / "verdict.json").read_text())
    assert "Each seed has its own pre-training" in verdict["sentence"]
    assert "intervals include that variation" in " ".join(capsys.readouterr().out.split())
