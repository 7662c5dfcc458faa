"""The boundary task against a pixel-by-pixel reference."""

from pathlib import Path

import numpy as np
import pytest

from segstrat.data import build_protocol
from segstrat.data.boundaries import RADIUS, boundary_counts, boundary_map, nearest_class
from segstrat.data.dataset import VOID


def reference(labels: np.ndarray, radius: int) -> np.ndarray:
    """Without void: a pixel is boundary if its window holds a second class."""
    height, width = labels.shape
    result = np.zeros_like(labels)
    for y in range(height):
        for x in range(width):
            window = labels[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            result[y, x] = len(np.unique(window)) > 1
    return result


@pytest.mark.parametrize("radius", [1, 3])
def test_boundaries_are_pixels_with_another_class_in_reach(radius: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (5, 6)), np.ones((7, 9))).astype(np.uint8)
    np.testing.assert_array_equal(boundary_map(labels, radius), reference(labels, radius))


def test_void_stays_void_and_counts_as_its_nearest_class() -> None:
    labels = np.zeros((9, 40), np.uint8)
    labels[:, 20:] = 7
    labels[:, 18:23] = VOID
    boundary = boundary_map(labels, radius=5)
    # The classes meet in the middle of the seam, between columns 20 and 21 at the latest.
    assert (boundary[:, 18:23] == VOID).all()
    assert (boundary[:, 16:18] == 1).all()
    assert (boundary[:, 23:25] == 1).all()
    assert (boundary[:, :15] == 0).all()
    assert (boundary[:, 26:] == 0).all()


def test_void_inside_one_class_makes_no_boundary() -> None:
    labels = np.full((20, 20), 3, np.uint8)
    labels[5:15, 5:15] = VOID
    boundary = boundary_map(labels)
    assert set(np.unique(boundary)) == {0, VOID}


def test_a_map_without_any_label_stays_void() -> None:
    assert (boundary_map(np.full((4, 4), VOID, np.uint8)) == VOID).all()


def test_real_labels_have_boundaries_next_to_their_void_borders(shared_data: Path) -> None:
    protocol = build_protocol("voc", shared_data / "voc-animals", tasks=("semseg", "boundaries"))
    share = []
    for index in range(0, 100, 10):
        labels = protocol.val.read(index).labels
        np.testing.assert_array_equal(labels["boundaries"] == VOID, labels["semseg"] == VOID)
        share.append((labels["boundaries"] == 1).mean())
    assert 0.02 < np.mean(share) < 0.2
    assert RADIUS == 5


def counts_by_pixel(predicted, labels, ignore: int, classes: int, tolerance: float) -> np.ndarray:
    """`boundary_counts`, from lists of points and all their distances."""
    void = labels == ignore
    known = np.argwhere(~void)
    filled, counted = nearest_class(labels, void), np.ones(labels.shape, bool)
    for y, x in np.argwhere(void):
        counted[y, x] = np.hypot(*(known - (y, x)).T).min() <= RADIUS
    reach = max(tolerance * np.hypot(*labels.shape), 1.0)

    def points(classes_HW: np.ndarray, index: int) -> np.ndarray:
        padded = np.pad(classes_HW.astype(int), 1, mode="edge")
        middle = padded[1:-1, 1:-1]
        neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        differs = np.any([other != middle for other in neighbors], axis=0)
        return np.argwhere(differs & counted & (middle == index))

    def met(some: np.ndarray, others: np.ndarray) -> int:
        if not len(some) or not len(others):
            return 0
        return int(
            (np.hypot(*(some[:, None] - others[None]).transpose(2, 0, 1)).min(1) <= reach + 1e-6).sum()
        )

    columns = []
    for index in range(classes):
        ours, theirs = points(predicted, index), points(filled, index)
        columns.append([met(ours, theirs), len(ours), met(theirs, ours), len(theirs)])
    return np.array(columns).T


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("ignore", [0, 3, 255])
def test_boundary_counts_are_those_of_every_pair_of_pixels(tolerance: float, ignore: int) -> None:
    rng = np.random.default_rng(ignore)
    labels = np.kron(rng.integers(0, 4, (3, 4)), np.ones((7, 9))).astype(np.uint8)
    predicted = np.roll(labels, (1, 3), (0, 1))
    predicted[predicted == ignore] = 1
    if ignore == 255:
        labels[5:9] = VOID  # the seam of two rows of blocks
        labels[:, 25:] = VOID  # so wide that some of it lies out of reach
    found = boundary_counts(predicted, labels, 4, ignore, tolerance)
    expected = counts_by_pixel(predicted, labels, ignore, 4, tolerance)
    classes = [index for index in range(4) if index != ignore]
    assert expected[:, classes].min(axis=1)[1] > 0
    np.testing.assert_array_equal(found[:, classes], expected[:, classes])


def test_boundaries_of_a_shifted_prediction_agree_within_the_tolerance() -> None:
    labels, predicted = np.zeros((2, 60, 80), np.uint8)
    labels[:, 40:], predicted[:, 43:] = 1, 1
    # The diagonal has 100 pixels.
    assert boundary_counts(predicted, labels, 2, VOID, 0.03).tolist() == [[60, 60]] * 4
    assert boundary_counts(predicted, labels, 2, VOID, 0.029).tolist() == [[0, 0], [60, 60]] * 2
    assert not boundary_counts(predicted, np.full_like(labels, VOID), 2, VOID, 0.03).any()
    np.testing.assert_array_equal(boundary_counts(labels, labels, 2, VOID, 0.0), [[60, 60]] * 4)
