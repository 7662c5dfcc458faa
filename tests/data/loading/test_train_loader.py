"""Loaders: what an epoch holds, on what it depends, and that reused buffers never leak."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.loading.augment import draw_placement, place_image, place_label
from segstrat.data.loading.batch import Batch, copy_stream, normalize
from segstrat.data.loading.eval_loader import EvalLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.errors import UserError
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 6), "parts": Task("parts", ("background", "left arm", "right arm"))}


class Scenes(Dataset):
    """Images of several sizes: every fourth is labelled for both tasks, every third for `parts` alone."""

    digest = "scenes"

    def __init__(self, count: int, sizes=((40, 60), (60, 40), (50, 50))) -> None:
        rng = np.random.default_rng(count)
        self.ids = [f"scene{i}" for i in range(count)]
        self.samples = []
        for index, name in enumerate(self.ids):
            size = sizes[index % len(sizes)]
            labels = {task: rng.integers(0, 3, size, dtype=np.uint8) for task in self.tasks_of(index)}
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            self.samples.append(Sample(name, image, labels))

    def tasks_of(self, index: int) -> tuple[str, ...]:
        if index % 4 == 0:
            return ("semseg", "parts")
        return ("parts",) if index % 3 == 0 else ("semseg",)

    def read(self, index: int) -> Sample:
        return self.samples[index]


def loader(dataset, **changes) -> TrainLoader:
    arguments = {"crop_size": 32, "batch_size": 4, "augmentation": 1.0, "seed": 0, "threads": 2}
    return TrainLoader(dataset, tasks=TASKS, **(arguments | changes))


def copied(batches) -> list[Batch]:
    """The batches, out of the reach of their reused buffers."""
    return [
        Batch(b.images.clone(), {t: m.clone() for t, m in b.labels.items()}, b.indices, list(b.ids))
        for b in batches
    ]


def by_id(batches) -> dict[str, tuple[np.ndarray, ...]]:
    """Image and label maps of each id."""
    found = {}
    for batch in copied(batches):
        for row, name in enumerate(batch.ids):
            assert name not in found
            found[name] = (batch.images[row].numpy(), *(batch.labels[t][row].numpy() for t in TASKS))
    return found


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, arrays in one.items():
        for left, right in zip(arrays, other[name], strict=True):
            np.testing.assert_array_equal(left, right)


def test_every_image_is_its_own_augmented_crop():
    dataset = Scenes(23)
    found = by_id(loader(dataset, seed=7, batch_size=3).epoch(2))
    assert len(found) == 23
    for index, name in enumerate(dataset.ids):
        sample = dataset.read(index)
        placement = draw_placement(
            sample.image.shape[:2], crop_size=32, strength=1.0, seed=7, epoch=2, index=index
        )
        image = np.empty((32, 32, 3), np.uint8)
        place_image(sample.image, placement, image)
        np.testing.assert_array_equal(found[name][0], image.transpose(2, 0, 1))
        for task, crop in zip(TASKS, found[name][1:], strict=True):
            expected = np.full((32, 32), VOID, np.uint8)
            if task in sample.labels:
                swap = np.array([0, 2, 1, *range(3, 256)], np.uint8) if task == "parts" else None
                place_label(sample.labels[task], placement, expected, swap)
            np.testing.assert_array_equal(crop, expected)


def test_unlabelled_tasks_are_void_and_not_indexed():
    dataset = Scenes(24)
    seen = 0
    for batch in loader(dataset, augmentation=0.0, crop_size=40).epoch(0):
        for task in TASKS:
            rows = [i for i, name in enumerate(batch.ids) if task in dataset.tasks_of(int(name[5:]))]
            assert batch.indices[task] == rows
            without = [i for i in range(len(batch.ids)) if i not in rows]
            assert (batch.labels[task][without] == VOID).all()
            assert all((batch.labels[task][row] != VOID).any() for row in rows)
            seen += len(without)
    assert seen > 0


def test_crops_do_not_depend_on_batch_size_or_threads():
    dataset = Scenes(24)
    reference = by_id(loader(dataset, batch_size=4, threads=1).epoch(1))
    assert_same(reference, by_id(loader(dataset, batch_size=8, threads=3).epoch(1)))


def test_an_epoch_depends_on_seed_and_epoch_alone():
    dataset = Scenes(24)
    one = loader(dataset)
    first = copied(one.epoch(0))
    copied(one.epoch(5))
    again = copied(one.epoch(0))
    assert [b.ids for b in first] == [b.ids for b in again]
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    assert [b.ids for b in first] != [b.ids for b in one.epoch(1)]
    assert [b.ids for b in first] != [b.ids for b in loader(dataset, seed=1).epoch(0)]


@pytest.mark.parametrize(("images", "batches", "dropped"), [(12, 3, 0), (13, 3, 1), (14, 4, 0), (1, 1, 0)])
def test_a_lone_last_image_is_dropped(images, batches, dropped):
    one = loader(Scenes(images))
    epoch = copied(one.epoch(0))
    assert len(epoch) == len(one) == batches
    assert sum(len(batch.ids) for batch in epoch) == images - dropped


def test_the_dropped_image_changes():
    one = loader(Scenes(13))
    left_out = {frozenset(one.dataset.ids) - frozenset(by_id(one.epoch(e))) for e in range(6)}
    assert len(left_out) > 1


def test_batch_size_one_keeps_every_image():
    assert len(copied(loader(Scenes(5), batch_size=1).epoch(0))) == 5


@pytest.mark.parametrize(("images", "kept"), [(24, 24), (27, 24), (28, 28), (29, 29)])
def test_processes_share_each_batch(images, kept):
    dataset = Scenes(images)
    whole = copied(loader(dataset, batch_size=8).epoch(3))
    shards = [loader(dataset, batch_size=8, rank=rank, world_size=2) for rank in (0, 1)]
    epochs = [copied(shard.epoch(3)) for shard in shards]
    assert len(epochs[0]) == len(epochs[1]) == len(shards[0]) == -(-kept // 8)
    for step, (left, right) in enumerate(zip(*epochs, strict=True)):
        assert not set(left.ids) & set(right.ids)
        assert set(left.ids) | set(right.ids) == set(whole[step].ids)
        assert min(len(left.ids), len(right.ids)) >= 2
    together = by_id(epochs[0]) | by_id(epochs[1])
    assert len(together) == kept
    assert_same(together, {name: arrays for name, arrays in by_id(whole).items() if name in together})


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(UserError, match=r"a batch of 4 images .* multiple of 3"):
        loader(Scenes(12), world_size=3)
    with pytest.raises(UserError, match="0 images"):
        loader(Scenes(0))


def test_a_batch_is_channels_last_and_stays_whole_until_the_next():
    epoch = loader(Scenes(24)).epoch(0)
    expected = copied(loader(Scenes(24)).epoch(0))
    for batch, reference in zip(epoch, expected, strict=True):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.images, reference.images)


def test_an_error_in_a_thread_reaches_the_consumer():
    class Damaged(Scenes):
        def read(self, index):
            if index == 11:
                raise UserError("scene11.jpg is damaged")
            return super().read(index)

    with pytest.raises(UserError, match=r"scene11\.jpg"):
        copied(loader(Damaged(24)).epoch(0))
    with pytest.raises(UserError, match=r"scene11\.jpg"):
        copied(EvalLoader(Damaged(24), tasks=TASKS, batch_size=4))


def test_a_consumer_that_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    for batches in (
        loader(Scenes(24)).epoch(0),
        iter(EvalLoader(Scenes(24, sizes=((40, 60),)), tasks=TASKS, batch_size=2)),
    ):
        next(batches)
        assert threading.active_count() > before
        batches.close()
        assert threading.active_count() == before


def test_wait_seconds_counts_slow_input_and_not_a_slow_consumer(monkeypatch):
    now = 0.0

    class Slow(Scenes):
        def read(self, index):
            nonlocal now
            now += 1
            return super().read(index)

    monkeypatch.setattr("segstrat.data.loading.train_loader.time.perf_counter", lambda: now)
    one = loader(Slow(12), threads=1)
    for epoch in (0, 1):
        for step, _ in enumerate(one.epoch(epoch)):
            if step == 0:
                # The four images of the first batch are read while the consumer waits for them.
                assert one.wait_seconds >= 4
            now += 1000
        assert one.wait_seconds <= 12


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_evaluation_gives_every_image_whole_and_once(batch_size):
    dataset = Scenes(25)
    batches = list(EvalLoader(dataset, tasks=TASKS, batch_size=batch_size, threads=2))
    assert max(len(batch.ids) for batch in batches) == min(batch_size, 9)
    found = by_id(batches)
    assert len(found) == 25
    for sample in dataset.samples:
        np.testing.assert_array_equal(found[sample.id][0], sample.image.transpose(2, 0, 1))
        for task, label in zip(TASKS, found[sample.id][1:], strict=True):
            np.testing.assert_array_equal(label, sample.labels.get(task, np.full_like(label, VOID)))
    for batch in batches:
        for task in TASKS:
            expected = [i for i, name in enumerate(batch.ids) if task in dataset.tasks_of(int(name[5:]))]
            assert batch.indices[task] == expected


def test_evaluation_order_does_not_depend_on_threads():
    dataset = Scenes(25)
    orders = [
        [batch.ids for batch in EvalLoader(dataset, tasks=TASKS, batch_size=4, threads=threads)]
        for threads in (1, 3, 3)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_evaluation_holds_few_images_back():
    sizes = tuple((20 + i, 30) for i in range(60))
    held, most = set(), 0

    class Counting(Scenes):
        def read(self, index):
            held.add(self.ids[index])
            return super().read(index)

        def image_size(self, index):
            return sizes[index]

    for batch in EvalLoader(Counting(60, sizes), tasks=TASKS, batch_size=2, threads=1):
        most = max(most, len(held))
        held.difference_update(batch.ids)
    assert most <= 2 + 1 + 1


def test_evaluation_needs_as_few_batches_as_there_can_be_and_starts_with_the_largest():
    dataset = Scenes(61, sizes=((40, 60), (60, 41), (20, 30), (50, 50)))
    counts = Counter(sample.image.shape[:2] for sample in dataset.samples)
    batches = list(EvalLoader(dataset, tasks=TASKS, batch_size=4))
    assert len(batches) == sum(-(-count // 4) for count in counts.values())
    pixels = [batch.images[0, 0].numel() for batch in batches]
    assert pixels == sorted(pixels, reverse=True)


def test_evaluation_limits_the_pixels_of_a_batch():
    dataset = Scenes(30, sizes=((40, 60), (20, 30), (80, 90)))
    batches = list(EvalLoader(dataset, tasks=TASKS, batch_size=8, max_pixels=2 * 40 * 60))
    most = {(40, 60): 2, (20, 30): 8, (80, 90): 1}
    assert {tuple(b.images.shape[2:]) for b in batches} == set(most)
    assert all(len(batch) <= most[tuple(batch.images.shape[2:])] for batch in batches)
    assert_same(by_id(batches), by_id(EvalLoader(dataset, tasks=TASKS, batch_size=8)))


def test_all_epochs_share_their_memory():
    one = loader(Scenes(24))
    # The batches are kept, so that new memory would have other addresses.
    first, second = (list(one.epoch(epoch)) for epoch in (0, 1))
    addresses = [{batch.images.data_ptr() for batch in batches} for batches in (first, second)]
    assert addresses[0] == addresses[1]
    assert len(addresses[0]) == 3


def test_a_device_has_one_stream_for_copies(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: object())
    copy_stream.cache_clear()
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    assert copy_stream(first) is copy_stream(torch.device("cuda", 0))
    assert copy_stream(first) is not copy_stream(second)
    copy_stream.cache_clear()


@pytest.mark.gpu
def test_gpu_memory_does_not_grow_from_epoch_to_epoch():
    """Shows that streams and buffers are reused: with new ones every epoch would reserve some 60 MB more."""
    one = loader(Scenes(64, sizes=((400, 500),)), crop_size=256, device="cuda")
    reserved = []
    for epoch in range(10):
        for batch in one.epoch(epoch):
            batch.images.float().sum()
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    # How many batches are on their way at once depends on timing.
    assert reserved[-1] - reserved[1] <= 60e6


@pytest.mark.gpu
def test_a_fast_host_stays_four_steps_ahead_of_the_gpu_at_most():
    """Shows that the memory of batches on their way is bounded where the GPU is the bottleneck."""
    one, done = loader(Scenes(64), device="cuda"), []
    for step, _ in enumerate(one.epoch(0)):
        assert step < 4 or done[step - 4].query()
        torch.cuda._sleep(50_000_000)
        done.append(torch.cuda.Event())
        done[-1].record()
    assert not done[-1].query(), "the GPU was not slower than the host"


@pytest.mark.gpu
def test_evaluation_on_the_gpu_gives_the_same_pixels():
    """Shows that no copy is read before it has arrived, and no pinned memory reused before it was copied."""
    dataset = Scenes(200, sizes=((400, 600), (600, 400), (300, 300)))
    on_host = by_id(EvalLoader(dataset, tasks=TASKS, batch_size=8, threads=4))
    on_gpu = {}
    for batch in EvalLoader(dataset, tasks=TASKS, batch_size=8, threads=4, device="cuda"):
        on_gpu |= {name: batch.images[row].cpu().numpy() for row, name in enumerate(batch.ids)}
    assert on_gpu.keys() == on_host.keys()
    assert all((on_gpu[name] == arrays[0]).all() for name, arrays in on_host.items())


def test_evaluation_is_shared_between_processes():
    dataset = Scenes(25)
    shards = [
        by_id(EvalLoader(dataset, tasks=TASKS, batch_size=4, rank=rank, world_size=3)) for rank in range(3)
    ]
    assert sum(map(len, shards)) == 25
    assert_same(shards[0] | shards[1] | shards[2], by_id(EvalLoader(dataset, tasks=TASKS, batch_size=4)))


def test_normalize_matches_the_definition():
    images = torch.randint(
        0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = images.permute(0, 3, 1, 2)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    out = normalize(images)
    expected = (images.double() / 255 - mean) / std
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert normalize(images, torch.bfloat16).dtype == torch.bfloat16
