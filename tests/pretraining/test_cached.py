"""Weights that studies share: made once, continued by whichever process, timed before they are made."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.atomic import only_builder
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.pretraining import cached, recipe
from segstrat.pretraining.cached import run_seconds, train_weights, weights_name
from segstrat.pretraining.job import Pretraining, PretrainReport, PretrainSource, open_figures
from segstrat.pretraining.recipe import Recipe
from segstrat.store import Store

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)
WIDTH = 0.125
# As studies pre-train on every CPU.
ONE_CORE = Machine(threads=1, precision="float32")


@pytest.fixture(autouse=True)
def _tiny_and_single_threaded(monkeypatch: pytest.MonkeyPatch, few_figures: None) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr(cached, "cpu_cores", lambda: 1)


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: Path, b: Path) -> bool:
    return all(torch.equal(value, state(b)[name]) for name, value in state(a).items())


def ensure_pretrained(
    backbone: str,
    width: float,
    cache: Path,
    *,
    seed: int = 0,
    source: PretrainSource | None = None,
    on_report: Callable[[PretrainReport], object] = lambda report: report,
) -> Path:
    """The file with the weights of one pre-training."""
    job = Pretraining(backbone=backbone, width=width, seed=seed, source=source or PretrainSource())
    with contextlib.closing(train_weights(job, file_of(job, cache), ONE_CORE)) as steps:
        for report in steps:
            if report is not None:
                on_report(report)
    return file_of(job, cache)


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
    flipped = bytearray(before)
    flipped[len(before) // 2] ^= 1
    for damaged in (before[: len(before) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        assert ensure_pretrained("resnet18", WIDTH, tmp_path) == path
        assert path.read_bytes() == before


def test_another_width_recipe_seed_or_data_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [ensure_pretrained("resnet18", WIDTH, tmp_path), ensure_pretrained("resnet18", 0.1875, tmp_path)]
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path, seed=1))
    monkeypatch.setitem(recipe.RECIPES, "figures", dataclasses.replace(TINY, weight_decay=0.0))
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path))
    monkeypatch.setattr("segstrat.data.figures.write.SINGLES", {"train": 24, "val": 8})
    paths.append(ensure_pretrained("resnet18", WIDTH, tmp_path))
    assert len(set(paths)) == 5
    assert not same(paths[0], paths[2])


def test_an_interrupted_run_is_continued(tmp_path: Path) -> None:
    def interrupt(report: PretrainReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_pretrained("resnet18", WIDTH, tmp_path, on_report=interrupt)
    epochs: list[int] = []
    ensure_pretrained("resnet18", WIDTH, tmp_path, on_report=lambda report: epochs.append(report.epoch))
    assert epochs == [2]


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
    assert [path.name.startswith("resnet18-0.125-birds-seed5-") for path in paths] == [True, True]
    assert paths[0] != paths[1]
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / "birds")
    again = PretrainSource(name=str(moved), epochs=1)
    assert ensure_pretrained("resnet18", WIDTH, tmp_path, seed=5, source=again) == paths[0]


def test_a_cache_that_cannot_be_written_is_named_first(tmp_path: Path) -> None:
    open_figures(tmp_path)
    (tmp_path / "weights").write_text("")
    with pytest.raises(UserError, match=r"weights/resnet18-0\.125-.*\.pth cannot be written"):
        ensure_pretrained("resnet18", WIDTH, tmp_path)


@pytest.fixture
def job() -> Pretraining:
    return Pretraining(backbone="resnet18", width=WIDTH)


def file_of(job: Pretraining, cache: Path) -> Path:
    return cache / "weights" / weights_name(job, job.source.open(cache))


def test_a_job_survives_plain_values(job: Pretraining) -> None:
    far = dataclasses.replace(job, source=PretrainSource(name="/photos", epochs=3))
    assert Pretraining.from_dict(far.to_dict()) == far
    assert str(far) == "resnet18, width 0.125, seed 0 on photos"


def test_another_machine_continues_from_the_shared_state(job: Pretraining, tmp_path: Path) -> None:
    here, there, shared = tmp_path / "here", tmp_path / "there", Store(tmp_path / "study" / "weights")
    out = file_of(job, here)
    lost = train_weights(job, out, ONE_CORE, shared=shared)
    assert next(report for report in lost if report).epoch == 1
    lost.close()
    rest = [each for each in train_weights(job, file_of(job, there), ONE_CORE, shared=shared) if each]
    assert [report.epoch for report in rest] == [2]
    assert same(file_of(job, there), ensure_pretrained("resnet18", WIDTH, tmp_path / "alone"))
    assert shared.read(out.name) == file_of(job, there).read_bytes()
    assert not (shared / f"{out.name}.state").exists()


def test_a_process_that_waits_for_another_can_be_ended(job: Pretraining, tmp_path: Path) -> None:
    out = file_of(job, tmp_path)
    out.parent.mkdir()
    steps = train_weights(job, out, ONE_CORE)
    with only_builder(out.with_suffix(".lock")):
        assert list(islice(steps, 2)) == [None, None], "it only says that it waits"
        assert not out.with_name(f"{out.name}.state").exists()
    assert [report.epoch for report in steps if report] == [1, 2]


def test_other_images_than_those_of_the_driver_are_refused(
    job: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = file_of(job, tmp_path / "driver").name
    monkeypatch.setattr("segstrat.data.figures.write.SINGLES", {"train": 24, "val": 8})
    with pytest.raises(UserError, match=r"the images of figures on .* give the weights resnet18"):
        list(train_weights(job, tmp_path / "node" / "weights" / expected, ONE_CORE))


@pytest.fixture
def photos(tmp_path: Path) -> Pretraining:
    """A run on 8 training and 4 validation images."""
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((40, 40, 3), index, np.uint8)).save(folder / f"{index}.png")
    return Pretraining(backbone="resnet18", width=WIDTH, source=PretrainSource(name=str(tmp_path / "photos")))


def test_a_run_takes_its_epochs_times_its_images(
    photos: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 50.0, 100.0, 104.0, 200.0, 250.0, 300.0, 302.0])  # of four starts and ends
    monkeypatch.setattr(cached.time, "perf_counter", lambda: next(seconds))
    longer = dataclasses.replace(photos, source=dataclasses.replace(photos.source, epochs=6), seed=1)
    # The second steps: 4 s for 4 of 8 training images, 2 s for 4 of 4 validation images.
    assert run_seconds([photos, longer], tmp_path, ONE_CORE) == [2 * (8 + 2), 6 * (8 + 2)]


def test_each_network_is_timed_and_nothing_is_written(photos: Pretraining, tmp_path: Path) -> None:
    jobs = [photos, dataclasses.replace(photos, backbone="squeezenet1_1")]
    first, second = run_seconds(jobs, tmp_path, ONE_CORE)
    assert 0 < first != second > 0
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert run_seconds([], tmp_path, ONE_CORE) == []
