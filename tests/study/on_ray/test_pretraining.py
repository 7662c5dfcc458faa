"""A study that pre-trains by itself, killed or robbed of a node while it does: it continues on any node."""

import contextlib
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.frame import load
from study.run import main
from tests.study.on_ray.test_kill import wait_until

NODE = {"object_store_memory": 80 << 20}


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


@pytest.fixture
def own_weights(tiny_flags, classes) -> list[str]:
    """Flags of the tiny space that pre-trains on the classification folder."""
    at = tiny_flags.index("--weights")
    return [*tiny_flags[:at], *tiny_flags[at + 2 :], "--budget", "0.25", "--pretrain-on", str(classes)]


def states(study: Path) -> dict[str, dict[str, int]]:
    """The complete epochs of unfinished pre-trainings, with the time at which each was written."""
    found: dict[str, dict[str, int]] = {}
    for path in study.glob("weights/*.state/*.sha256"):
        with contextlib.suppress(FileNotFoundError):
            found.setdefault(path.parent.name, {})[path.name] = path.stat().st_mtime_ns
    return found


@pytest.mark.cluster
def test_a_study_killed_while_it_pre_trains_continues(
    cluster, start_driver, own_weights, classes, tmp_path, capsys
):
    flags = [*own_weights, "--storage", str(tmp_path), "--name", "own", "--max-concurrent", "2"]
    driver = start_driver([*flags, "--pretrain-epochs", "3"])
    wait_until(lambda: states(tmp_path / "own") or driver.poll() is not None, "an epoch of a pre-training")
    driver.kill()
    driver.wait()
    begun = json.loads((tmp_path / "own" / "manifest.json").read_text())
    assert begun["options"]["pretrain_on"] == str(classes)
    assert begun["pretrainings"], "`--status` shows what was being trained"
    waiting = {trial["trial_id"] for trial in begun["trials"] if trial["config"]["pretrained"]}
    started = {path.name for path in tmp_path.glob("own/trials/*")}
    assert not waiting & started, "no trial starts before its weights exist"
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


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_pre_trainings_run_on_every_node_and_a_lost_node_costs_an_epoch(
    cluster, start_driver, own_weights, tmp_path, monkeypatch
):
    """Each node has a cache of its own, which tells who has trained what; the study's folder is shared."""

    def begin(name: str) -> tuple[subprocess.Popen, object, Path]:
        there = tmp_path / f"cache of the second node, {name}"
        node = cluster.add_node(num_cpus=3, **NODE, env_vars={"SEGSTRAT_CACHE": str(there)})
        # The driver must not find weights of the other study on its machine.
        monkeypatch.setenv("SEGSTRAT_CACHE", str(tmp_path / f"cache of the driver, {name}"))
        flags = [*own_weights, "--pretrain-epochs", "12", "--storage", str(tmp_path), "--name", name]
        del flags[flags.index("--top") : flags.index("--top") + 4]
        # Three of the first node's four cores, and all of the second one's.
        flags += ["--cpus-per-trial", "3", "--scheduler", "none", "--seeds", "0,1"]
        return start_driver(flags), node, there

    def made(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}/weights/*.pth")}

    def wait_for_both(name: str, driver: subprocess.Popen) -> None:
        wait_until(lambda: len(made(name)) == 2 or driver.poll() is not None, "both seeds' weights")
        driver.kill()
        driver.wait()

    driver, node, there = begin("undisturbed")
    wait_for_both("undisturbed", driver)
    cluster.remove_node(node)
    on_second = {path.name for path in there.glob("weights/*.pth")}
    assert len(on_second) == 1, "each node has trained one"
    assert on_second < made("undisturbed").keys()
    assert not states(tmp_path / "undisturbed")

    driver, node, there = begin("disturbed")
    study = tmp_path / "disturbed"

    def on_the_second() -> set[str]:
        locks = {f"{path.stem}.pth.state" for path in there.glob("weights/*.lock")}
        return {name for name in locks if len(states(study).get(name, ())) == 2}

    wait_until(lambda: on_the_second() or driver.poll() is not None, "two epochs on the second node")
    (lost,) = on_the_second()
    cluster.remove_node(node, allow_graceful=False)
    before = states(study)[lost]
    kept: dict[str, int] = {}

    def continued() -> bool:
        kept.update(states(study).get(lost, {}))
        return max(kept, default="") > max(before) or driver.poll() is not None

    wait_until(continued, "another epoch of the one that was lost")
    assert {name: kept[name] for name in before} == before, "no complete epoch was trained again"
    wait_for_both("disturbed", driver)
    assert made("disturbed") == made("undisturbed"), "bit for bit"
