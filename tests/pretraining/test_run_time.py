"""The time of pre-trainings is estimated from a few images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.machine import Machine
from segstrat.pretraining import run_time
from segstrat.pretraining.images import open_classification
from segstrat.pretraining.job import PretrainJob
from segstrat.pretraining.recipe import Recipe
from segstrat.pretraining.run_time import run_seconds

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)


@pytest.fixture
def job(tmp_path: Path) -> PretrainJob:
    """A run on 8 training and 4 validation images."""
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((40, 40, 3), index, np.uint8)).save(folder / f"{index}.png")
    data = open_classification(tmp_path / "photos")
    return PretrainJob.make("resnet18", 0.1, TINY, data, tmp_path / "weights.pth")


def test_a_run_is_its_epochs_times_its_images(job: PretrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 50.0, 100.0, 104.0, 200.0, 250.0, 300.0, 302.0])  # of four starts and ends
    monkeypatch.setattr(run_time.time, "perf_counter", lambda: next(seconds))
    longer = dataclasses.replace(job, recipe=dataclasses.replace(TINY, epochs=6, seed=1))
    # The second steps: 4 s for 4 of 8 training images, 2 s for 4 of 4 validation images.
    assert run_seconds([job, longer], Machine()) == [2 * (8 + 2), 6 * (8 + 2)]


def test_each_network_is_timed_and_nothing_is_written(job: PretrainJob) -> None:
    jobs = [job, dataclasses.replace(job, backbone="squeezenet1_1")]
    first, second = run_seconds(jobs, Machine())
    assert 0 < first != second > 0
    assert not list(job.out.parent.glob("weights*"))
    assert run_seconds([], Machine()) == []
