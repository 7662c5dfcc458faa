"""Weights that studies on `figures` share: made once, continued, in this process or in others."""

import dataclasses
import itertools
import json
import os
import select
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.pretraining import cached, recipe
from segstrat.pretraining.bars import PretrainProgress
from segstrat.pretraining.cached import PretrainRequest, ensure_all_pretrained, ensure_pretrained
from segstrat.pretraining.isolated import run_isolated
from segstrat.pretraining.job import PretrainJob
from segstrat.pretraining.recipe import Recipe
from segstrat.pretraining.source import PretrainSource, open_figures

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)
WIDTH = 0.1


@pytest.fixture(autouse=True)
def _tiny_and_single_threaded(monkeypatch: pytest.MonkeyPatch, few_figures: None) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr(cached, "cpu_cores", lambda: 1)
    monkeypatch.setattr(cached, "local_gpus", list)


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: Path, b: Path) -> bool:
    return all(torch.equal(value, state(b)[name]) for name, value in state(a).items())


def test_weights_are_made_once(tmp_path: Path) -> None:
    path = ensure_pretrained("resnet18", WIDTH, tmp_path)
    assert path.parent == tmp_path / "weights"
    assert torch.load(path, weights_only=True)["width"] == WIDTH
    before = path.stat()
    assert ensure_pretrained("resnet18", WIDTH, tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_damaged_file_in_the_cache_is_made_again(tmp_path: Path) -> None:
    path = ensure_pretrained("resnet18", WIDTH, tmp_path)
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    assert ensure_pretrained("resnet18", WIDTH, tmp_path) == path
    assert path.read_bytes() == before


def test_another_width_recipe_seed_or_data_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [ensure_pretrained("resnet18", WIDTH, tmp_path), ensure_pretrained("resnet18", 0.15, tmp_path)]
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path, seed=1))
    monkeypatch.setitem(recipe.RECIPES, "figures", dataclasses.replace(TINY, weight_decay=0.0))
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path))
    monkeypatch.setattr("segstrat.data.figures.write.SINGLES", {"train": 24, "val": 8})
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path))
    assert len(set(paths)) == 5
    assert not same(paths[0], paths[2])


def test_an_interrupted_run_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PretrainProgress.follow

    def cut(progress: PretrainProgress, reports, title: str, epochs: int) -> None:
        next(reports)
        raise KeyboardInterrupt

    monkeypatch.setattr(PretrainProgress, "follow", cut)
    with pytest.raises(KeyboardInterrupt):
        ensure_pretrained("resnet18", WIDTH, tmp_path)
    epochs = []

    def count(progress: PretrainProgress, reports, title: str, total: int) -> None:
        epochs.extend(report.epoch for report in reports)

    monkeypatch.setattr(PretrainProgress, "follow", count)
    ensure_pretrained("resnet18", WIDTH, tmp_path)
    assert epochs == [2]
    monkeypatch.setattr(PretrainProgress, "follow", plain)


def test_several_seeds_at_once_are_those_of_one_after_another(tmp_path: Path) -> None:
    requests = [PretrainRequest(backbone="resnet18", width=WIDTH, seed=seed) for seed in (0, 1)]
    together = ensure_all_pretrained(requests, tmp_path / "a", at_once=2)
    alone = ensure_all_pretrained(requests, tmp_path / "b")
    assert together.keys() == alone.keys() == set(requests)
    assert all(same(together[request], alone[request]) for request in requests)


def test_a_folder_and_the_number_of_epochs_are_part_of_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "val"), ("heron", "wren")):
        (folder / split / name).mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    sources = [PretrainSource(name=str(folder), epochs=epochs) for epochs in (1, 2)]
    paths = [ensure_pretrained("resnet18", WIDTH, tmp_path, seed=5, source=source) for source in sources]
    assert [path.name.startswith("resnet18-0.1-birds-seed5-") for path in paths] == [True, True]
    assert paths[0] != paths[1]
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / "birds")
    again = PretrainSource(name=str(moved), epochs=1)
    assert ensure_pretrained("resnet18", WIDTH, tmp_path, seed=5, source=again) == paths[0]


def test_what_on_tick_raises_ends_the_runs_which_continue_later(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    request = PretrainRequest(backbone="resnet18", width=WIDTH)
    with pytest.raises(Stopped):
        ensure_all_pretrained([request], tmp_path, on_tick=stop)
    path = ensure_all_pretrained([request], tmp_path)[request]
    assert same(path, ensure_pretrained("resnet18", WIDTH, tmp_path / "other"))


def test_on_gpus_this_process_only_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def run(job: PretrainJob, machine: dict, started: object) -> list:
        devices.append(machine["device"])
        job.out.touch()
        return []

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained in the process of the driver")

    monkeypatch.setattr(cached, "local_gpus", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(cached, "run_isolated", run)
    monkeypatch.setattr(PretrainJob, "run", refuse)
    requests = [PretrainRequest(backbone="resnet18", width=WIDTH, seed=seed) for seed in range(3)]
    ensure_all_pretrained(requests, tmp_path)
    assert set(devices) == {"cuda:0", "cuda:1"}
    assert len(devices) == 3


def test_a_cache_that_cannot_be_written_is_named_first(tmp_path: Path) -> None:
    open_figures(tmp_path)
    (tmp_path / "weights").write_text("")
    with pytest.raises(UserError, match=r"weights/resnet18-0\.1-.*\.pth cannot be written"):
        ensure_pretrained("resnet18", WIDTH, tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> PretrainJob:
    return PretrainJob.make("resnet18", WIDTH, TINY, open_figures(tmp_path), tmp_path / "w.pth")


def test_a_job_survives_json(job: PretrainJob) -> None:
    assert PretrainJob.from_dict(job.to_dict()) == job


def test_another_process_gives_the_reports_and_weights_of_this_one(job: PretrainJob, tmp_path: Path) -> None:
    there = list(run_isolated(job, {"threads": 1}))
    here = dataclasses.replace(job, out=tmp_path / "here.pth")
    reports = list(here.run(Machine(threads=1)))
    without_time = [dataclasses.replace(report, seconds=0) for report in reports]
    assert [dataclasses.replace(report, seconds=0) for report in there] == without_time
    assert same(job.out, here.out)


def test_an_error_of_another_process_is_one_of_this_one(job: PretrainJob) -> None:
    wrong = dataclasses.replace(job, recipe=dataclasses.replace(TINY, learning_rate=1e30, warmup_epochs=0))
    with pytest.raises(UserError, match="resnet18 diverged in epoch 1"):
        list(run_isolated(wrong, {"threads": 1}))


def test_a_killed_process_is_an_error_and_its_run_is_continued(job: PretrainJob) -> None:
    processes: list[subprocess.Popen] = []
    long = dataclasses.replace(job, recipe=dataclasses.replace(TINY, epochs=1000))
    reports = run_isolated(long, {"threads": 1}, started=processes.append)
    next(reports)
    processes[0].send_signal(signal.SIGKILL)
    with pytest.raises(RuntimeError, match="pre-trains resnet18 ended with exit code -9"):
        list(islice(reports, 1000))
    assert next(iter(long.run(Machine(threads=1)))).epoch > 1


ORPHAN = """
import json, os, sys
from segstrat.pretraining.isolated import run_isolated
from segstrat.pretraining.job import PretrainJob

job = PretrainJob.from_dict(json.loads(sys.argv[1]))
processes = []
reports = run_isolated(job, {"threads": 1}, started=processes.append)
next(reports)
print(processes[0].pid, flush=True)
os._exit(1)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for another's child, as Linux can")
def test_a_process_ends_when_its_caller_is_gone(job: PretrainJob) -> None:
    long = dataclasses.replace(job, recipe=dataclasses.replace(TINY, epochs=100_000))
    command = [sys.executable, "-c", ORPHAN, json.dumps(long.to_dict())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    pid = int(done.stdout)
    gone = select.poll()
    try:
        gone.register(os.pidfd_open(pid), select.POLLIN)
    except ProcessLookupError:
        return
    # It ends with its next report, which nobody reads.
    assert gone.poll(30_000)


@pytest.mark.gpu
def test_the_driver_holds_no_cuda_context_after_pre_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that pre-training on a GPU leaves this process without a context on it."""
    monkeypatch.undo()
    code = (
        "import sys, torch; from pathlib import Path;"
        "from segstrat.pretraining.cached import ensure_pretrained;"
        "ensure_pretrained('resnet18', 0.1, Path(sys.argv[1])); print(torch.cuda.is_initialized())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False", done.stderr
