"""Which images of a batch have which task, whole and cut into micro-batches."""

import pytest
import torch

from segstrat.data.loading.batch import Batch, make_batch

LABELLED = [("a", "b"), ("b",), ("a", "b"), ("b",), ("b",)]


def batch(labelled: list[tuple[str, ...]]) -> Batch:
    count = len(labelled)
    numbers = torch.arange(count, dtype=torch.uint8)
    maps = numbers.view(-1, 1, 1).expand(count, 2, 2)
    images = numbers.view(-1, 1, 1, 1).expand(count, 3, 2, 2)
    return make_batch(images, {"a": maps, "b": maps, "c": maps}, labelled, [str(row) for row in range(count)])


def test_a_batch_knows_the_positions_of_the_labelled_images():
    mixed = batch(LABELLED)
    assert mixed.indices == {"a": [0, 2], "b": [0, 1, 2, 3, 4], "c": []}
    assert mixed.labelled_tasks() == ["a", "b"]
    assert list(mixed.rows) == ["a"], "a task of all images needs no positions on the device"
    assert mixed.rows["a"].tolist() == [0, 2]


def test_micro_batches_know_their_own_positions():
    first, second = batch(LABELLED).split(2)
    assert (first.ids, second.ids) == (["0", "1"], ["2", "3", "4"])
    assert second.images[:, 0, 0, 0].tolist() == [2, 3, 4]
    for part, rows in ((first, [0]), (second, [0])):
        assert part.indices == {"a": rows, "b": list(range(len(part))), "c": []}
        assert part.rows["a"].tolist() == rows


def test_a_micro_batch_whose_images_all_have_the_task_needs_no_positions():
    first, second = batch([("a",), ("a",), ("b",), ("b",)]).split(2)
    assert first.rows == second.rows == {}
    assert (first.labelled_tasks(), second.labelled_tasks()) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(6, 2, [2, 2, 2]), (7, 3, [2, 2, 3]), (3, 2, [3]), (5, 2, [2, 3]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_no_micro_batch_is_a_single_image_unless_asked(count: int, size: int, lengths: list[int]):
    parts = batch([("a",)] * count).split(size)
    assert [len(part) for part in parts] == lengths
    assert [name for part in parts for name in part.ids] == [str(row) for row in range(count)]
