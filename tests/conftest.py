"""Fixtures that several folders of tests share."""

import os

# Tensors are small here: a second thread costs more than it gains, above all next to the tests' Ray workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path

from study.on_ray.runtime import keep_bytecode

# The tests start dozens of processes that import torch or Ray.
keep_bytecode(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")

import numpy as np
import pytest

from segstrat.data.dataset import VOID, Dataset, Sample, hash_strings
from segstrat.data.palette import voc_palette
from segstrat.data.protocols import DataProtocol
from segstrat.tasks import Task


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images, labels and weights; its tests skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEGSTRAT_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set SEGSTRAT_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def node_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: the user's is neither read nor filled."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGSTRAT_CACHE", str(folder))
        yield folder


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded data with eight scenes and 24 classification images: drawing all takes half a minute."""
    monkeypatch.setattr("segstrat.data.figures.write.SCENES", {"train": 4, "val": 2, "test": 2})
    monkeypatch.setattr("segstrat.data.figures.write.SINGLES", {"train": 16, "val": 8})


class MemoryDataset(Dataset):
    """Samples held in memory, for tests that need no files."""

    def __init__(self, samples: list[Sample], tasks: list[tuple[str, ...]] | None = None) -> None:
        self.samples = samples
        self.tasks = tasks or [tuple(sample.labels) for sample in samples]
        self.ids = tuple(sample.id for sample in samples)

    @property
    def digest(self) -> str:
        return hash_strings(self.ids)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        return self.tasks[index]

    def read(self, index: int) -> Sample:
        sample = self.samples[index]
        return Sample(sample.id, sample.image, {task: sample.labels[task] for task in self.tasks[index]})


def striped_sample(name: str, seed: int, size: int = 48) -> Sample:
    """An image of coloured rectangles: `semseg` is the colour, `parts` the half of the rectangle."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 110, (size, size, 3), dtype=np.uint8)
    semseg, parts = (np.zeros((size, size), np.uint8) for _ in range(2))
    for label in (1, 2):
        top, left = rng.integers(0, size // 2, 2)
        box = (slice(top, top + size // 2), slice(left, left + size // 2))
        image[box] = (220, 40, 40) if label == 1 else (40, 40, 220)
        semseg[box], parts[box] = label, 1
        parts[top : top + size // 4, box[1]] = 2
    semseg[0], parts[0] = VOID, VOID
    return Sample(name, image, {"semseg": semseg, "parts": parts})


@pytest.fixture(scope="session")
def tiny_protocol() -> Callable[..., DataProtocol]:
    """Builds a protocol of a few 48-pixel images with three classes a task.

    `mixed=True` labels every other training image for `parts` alone and the rest for `semseg` alone; its test
    images have labels for `semseg` alone.
    """

    def build(train: int = 6, val: int = 3, test: int = 0, *, mixed: bool = False) -> DataProtocol:
        samples = [striped_sample(f"train{i}", i) for i in range(train)]
        single = [("parts",) if i % 2 else ("semseg",) for i in range(train)] if mixed else None
        tested = [striped_sample(f"test{i}", 2000 + i, size=40 + 8 * (i % 2)) for i in range(test)]
        names = ("semseg", "parts")
        return DataProtocol(
            name="tiny",
            train=MemoryDataset(samples, single),
            val=MemoryDataset([striped_sample(f"val{i}", 1000 + i) for i in range(val)]),
            test=MemoryDataset(tested, [("semseg",)] * test if mixed else None) if test else None,
            tasks={name: Task(name, 3) for name in names},
            palette=voc_palette(),
            synthetic=True,
            digest="tiny",
            sources={},
            official={},
        )

    return build
