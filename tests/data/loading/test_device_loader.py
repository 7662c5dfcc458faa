"""Augmentation on the device against the one on the host, pixel by pixel."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.loading import device_loader
from segstrat.data.loading.device_loader import DeviceTrainLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.errors import UserError
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 6), "parts": Task("parts", ("background", "left arm", "right arm"))}


class Scenes(Dataset):
    """Smooth pictures of several sizes; every third one lacks the parts."""

    digest = "scenes"

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.ids = [f"scene{i}" for i in range(count)]
        self.samples = []
        for index, name in enumerate(self.ids):
            size = ((90, 130), (130, 90), (110, 110))[index % 3]
            noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
            labels = {task: _blocks(rng, size) for task in self.tasks_of(index)}
            self.samples.append(Sample(name, image, labels))

    def tasks_of(self, index):
        return ("semseg",) if index % 3 == 1 else ("semseg", "parts")

    def read(self, index):
        return self.samples[index]


def _blocks(rng, size):
    coarse = rng.integers(0, 3, (-(-size[0] // 10), -(-size[1] // 10)), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]])


def both(dataset, **changes):
    arguments = {"tasks": TASKS, "crop_size": 96, "batch_size": 4, "augmentation": 1.0, "seed": 0}
    arguments |= changes
    return TrainLoader(dataset, **arguments), DeviceTrainLoader(dataset, **arguments)


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    error = (one.double() - other.double()).square().mean().item()
    return 10 * np.log10(255**2 / max(error, 1e-6))


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_crops_are_those_of_the_host(strength):
    host, device = both(Scenes(23), augmentation=strength)
    assert len(host) == len(device)
    for epoch in (0, 1):
        for ours, theirs in zip(device.epoch(epoch), host.epoch(epoch), strict=True):
            assert ours.ids == theirs.ids
            assert ours.indices == theirs.indices
            assert ours.images.dtype == torch.uint8
            assert ours.images.is_contiguous(memory_format=torch.channels_last)
            for row in range(len(ours.ids)):
                for task in TASKS:
                    same = ours.labels[task][row] == theirs.labels[task][row]
                    assert same.double().mean() > 0.985
                # The host's polygons may be a pixel off at the edge of what the rotation uncovers.
                maps = torch.stack([theirs.labels["semseg"][row], ours.labels["semseg"][row]])
                outside = (maps == VOID).any(0).float()
                inside = F.max_pool2d(outside[None], 5, stride=1, padding=2)[0] == 0
                assert psnr(ours.images[row][:, inside], theirs.images[row][:, inside]) > 45
                assert psnr(ours.images[row], theirs.images[row]) > 28


def test_plain_crops_are_exact():
    host, device = both(Scenes(11), augmentation=0.0)
    for ours, theirs in zip(device.epoch(0), host.epoch(0), strict=True):
        assert torch.equal(ours.images, theirs.images)
        for task in TASKS:
            assert torch.equal(ours.labels[task], theirs.labels[task])


def test_images_without_a_task_are_void():
    dataset = Scenes(12)
    _, device = both(dataset)
    for batch in device.epoch(0):
        for row, name in enumerate(batch.ids):
            lacking = "parts" not in dataset.tasks_of(int(name[5:]))
            assert (batch.labels["parts"][row] == VOID).all() == lacking


def test_an_epoch_is_pure_and_batches_own_their_memory():
    _, device = both(Scenes(12))
    first = list(device.epoch(3))
    again = list(device.epoch(3))
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].images, next(device.epoch(4)).images)


def test_shards_partition_each_batch():
    dataset = Scenes(12)
    whole = [set(batch.ids) for batch in both(dataset)[1].epoch(0)]
    halves = [
        [set(batch.ids) for batch in both(dataset, rank=rank, world_size=2)[1].epoch(0)] for rank in (0, 1)
    ]
    for all_of_them, left, right in zip(whole, *halves, strict=True):
        assert left | right == all_of_them
        assert not left & right


class Allocator:
    """Torch's allocator on a GPU of 2 MB, as far as the check of the size asks it."""

    def __init__(
        self, monkeypatch, allocated: int, cached: int, fragmented: int = 0, fraction: float = 1.0
    ) -> None:
        self.allocated, self.cached, self.fragmented = allocated, cached, fragmented
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2_000_000 - self.reserved, 2_000_000))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: self.reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: self.allocated)
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty_cache)
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: fraction)

    @property
    def reserved(self) -> int:
        return self.allocated + self.cached

    def empty_cache(self) -> None:
        self.cached = self.fragmented


def test_a_set_that_does_not_fit_is_refused(monkeypatch):
    Allocator(monkeypatch, allocated=1_000_000, cached=0)
    device_loader._check_fit(400_000, torch.device("cuda"), 0.5)
    with pytest.raises(UserError, match="run without the device cache"):
        device_loader._check_fit(600_000, torch.device("cuda"), 0.5)


def test_memory_beyond_the_share_of_the_process_is_not_free(monkeypatch):
    Allocator(monkeypatch, allocated=100_000, cached=0, fraction=0.25)
    device_loader._check_fit(190_000, torch.device("cuda"), 0.5)
    with pytest.raises(UserError, match="run without the device cache"):
        device_loader._check_fit(210_000, torch.device("cuda"), 0.5)


@pytest.mark.parametrize("fragmented", [0, 500_000])
def test_what_an_earlier_trial_left_in_the_allocator_is_free(monkeypatch, fragmented):
    Allocator(monkeypatch, allocated=0, cached=1_800_000, fragmented=fragmented)
    device_loader._check_fit(900_000, torch.device("cuda"), 0.5)
    with pytest.raises(UserError, match=r"the 0\.0 GB that this process may still allocate"):
        device_loader._check_fit(1_100_000, torch.device("cuda"), 0.5)


@pytest.mark.gpu
def test_a_second_trial_in_the_same_process_finds_room():
    """Shows that the cache that the first trial leaves in torch's allocator does not count as used."""
    free, _ = torch.cuda.mem_get_info()
    left = torch.empty(int(0.7 * free), dtype=torch.uint8, device="cuda")
    del left
    device_loader._check_fit(int(0.4 * free), torch.device("cuda", 0), 0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("loader", [0, 1])
def test_batches_lie_on_the_gpu(loader):
    dataset = Scenes(23)
    on_host = list(both(dataset)[1].epoch(0))
    for reference, batch in zip(on_host, both(dataset, device="cuda")[loader].epoch(0), strict=True):
        assert batch.images.device.type == "cuda"
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert psnr(batch.images.cpu(), reference.images) > 36
        for task in TASKS:
            assert (batch.labels[task].cpu() == reference.labels[task]).double().mean() > 0.98
