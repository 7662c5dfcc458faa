"""Datasets that are made of others, and the seeded nested subsets."""

import itertools
import random

import numpy as np
import pytest

from segstrat.data.dataset import Concat, Dataset, Sample, Subset, hash_strings, nested_indices
from segstrat.errors import UserError


class Numbers(Dataset):
    """Each image is filled with its own number."""

    def __init__(self, ids: list[str], task: str = "semseg") -> None:
        self.ids = ids
        self.task = task

    @property
    def digest(self) -> str:
        return hash_strings(self.ids)

    def tasks_of(self, index: int) -> tuple[str, ...]:
        return (self.task,) if self.ids[index] else ()

    def read(self, index: int) -> Sample:
        number = int(self.ids[index][1:])
        return Sample(self.ids[index], np.full((2, 2, 3), number, np.uint8), {})


IDS = [f"i{number}" for number in range(200)]


def test_subset_reads_the_chosen_samples_in_the_given_order() -> None:
    subset = Subset(Numbers(IDS), [7, 3])
    assert subset.ids == ("i7", "i3")
    assert [int(subset.read(i).image[0, 0, 0]) for i in range(len(subset))] == [7, 3]


def test_subset_digest_changes_with_the_choice() -> None:
    whole = Numbers(IDS)
    assert Subset(whole, [1, 2]).digest != Subset(whole, [1, 3]).digest
    assert Subset(whole, [1, 2]).digest == Subset(Numbers(IDS), [1, 2]).digest


def test_concat_finds_every_sample_of_every_part() -> None:
    joined = Concat([Numbers(IDS[:3]), Numbers(IDS[3:4], "parts"), Numbers(IDS[4:9])])
    assert [int(joined.read(i).image[0, 0, 0]) for i in range(len(joined))] == list(range(9))
    assert [joined.tasks_of(i)[0] for i in (2, 3, 4)] == ["semseg", "parts", "semseg"]
    assert joined.read(-1).id == "i8"
    with pytest.raises(IndexError):
        joined.read(9)


def test_concat_refuses_an_image_that_stands_in_two_parts() -> None:
    with pytest.raises(UserError, match="'i3' is in two of the sources"):
        Concat([Numbers(IDS[:4]), Numbers(IDS[3:])])


def test_fractions_of_one_seed_are_nested() -> None:
    chosen = [set(nested_indices(IDS, fraction, seed=3)) for fraction in (0.05, 0.1, 0.25, 0.5, 1.0)]
    assert [len(each) for each in chosen] == [10, 20, 50, 100, 200]
    for small, large in itertools.pairwise(chosen):
        assert small < large


def test_fractions_depend_on_seed_and_ids_alone() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    first = {IDS[i] for i in nested_indices(IDS, 0.3, seed=1)}
    again = {shuffled[i] for i in nested_indices(shuffled, 0.3, seed=1)}
    other = {IDS[i] for i in nested_indices(IDS, 0.3, seed=2)}
    assert first == again
    assert first != other


def test_a_fraction_is_no_run_of_the_list() -> None:
    # The first half of a list that joins two sources would be one source: each tenth must be drawn from.
    chosen = nested_indices(IDS, 0.5, seed=0)
    tenths = np.bincount(np.array(chosen) // 20, minlength=10)
    assert tenths.min() >= 4
    assert tenths.max() <= 16


def test_a_tiny_fraction_keeps_an_image() -> None:
    assert len(nested_indices(IDS[:3], 0.01, seed=0)) == 1


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="must be in"):
        nested_indices(IDS, fraction, seed=0)
