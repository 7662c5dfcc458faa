"""The boundary task against a pixel-by-pixel reference."""

from pathlib import Path

import numpy as np
import pytest

from segstrat.data import build_protocol
from segstrat.data.boundaries import RADIUS, boundary_map
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
