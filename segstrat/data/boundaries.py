"""Semantic boundaries, derived from labels: as a separate task, and as what a prediction is scored by."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segstrat.data.dataset import VOID
from segstrat.data.files import Item, LabelFile
from segstrat.data.labels import Decoder
from segstrat.tasks import Task

TASK = Task("boundaries", ("interior", "boundary"))
RADIUS = 5
"""Pixels from a change of class that still count as boundary; VOC's void border covers about half of them."""


@dataclass(frozen=True)
class BoundaryLabels:
    """Decodes a `semseg` label file and keeps its class boundaries."""

    decode: Decoder
    radius: int = RADIUS

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8: 0 interior, 1 boundary, `VOID` where the label is void."""
        return boundary_map(self.decode(path), self.radius)


def derive(item: Item) -> Item:
    """The item with a `boundaries` label derived from its `semseg` label; unchanged if it has none."""
    semseg = item.labels.get("semseg")
    if semseg is None or "boundaries" in item.labels:
        return item
    derived = LabelFile(semseg.path, BoundaryLabels(semseg.decode))
    return Item(item.id, item.image, {**item.labels, "boundaries": derived})


def boundary_map(labels_HW: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Pixels that have another class within `radius` pixels, in rows or columns.

    Void counts as its nearest class, since VOC draws a void border exactly where the classes meet. Void
    itself stays void.

    Args:
        labels_HW: (H, W) uint8 class indices.

    Returns:
        (H, W) uint8: 0 interior, 1 boundary, `VOID`.
    """
    void_HW = labels_HW == VOID
    if void_HW.all():
        return labels_HW.copy()
    filled_HW = nearest_class(labels_HW, void_HW)
    window = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    boundary_HW = (cv2.dilate(filled_HW, window) != cv2.erode(filled_HW, window)).astype(np.uint8)
    boundary_HW[void_HW] = VOID
    return boundary_HW


def boundary_counts(
    predicted_HW: np.ndarray, labels_HW: np.ndarray, num_classes: int, ignore: int, tolerance: float
) -> np.ndarray:
    """Boundary pixels of a prediction and of its label that lie near each other (Csurka et al. 2013).

    A boundary pixel of a class has another class above, below, left or right of it. Void counts as its
    nearest class, as in `boundary_map`; what lies more than `RADIUS` pixels from any label counts nowhere.

    Args:
        predicted_HW: (H, W) uint8 classes.
        labels_HW: (H, W) uint8 classes, or `ignore`.
        tolerance: as a share of the image's diagonal; at least one pixel is allowed.

    Returns:
        (4, C) int64: predicted boundary pixels that have a labelled one of their class within the tolerance,
        all predicted ones; labelled ones that have a predicted one, all labelled ones.
    """
    counts = np.zeros((4, num_classes), dtype=np.int64)
    void_HW = labels_HW == ignore
    if void_HW.all():
        return counts
    filled_HW = nearest_class(labels_HW, void_HW)
    counted_HW = cv2.distanceTransform(void_HW.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= RADIUS
    reach = max(tolerance * float(np.hypot(*labels_HW.shape)), 1.0)
    edges = [_edges(map_HW) & counted_HW for map_HW in (predicted_HW, filled_HW)]
    maps = (predicted_HW, filled_HW)
    of_class = [
        np.bincount(map_HW[edge], minlength=256)[:num_classes]
        for map_HW, edge in zip(maps, edges, strict=True)
    ]
    counts[1], counts[3] = of_class
    for index in np.flatnonzero(counts[1] * counts[3]):
        predicted, labelled = (edge & (map_HW == index) for map_HW, edge in zip(maps, edges, strict=True))
        counts[0, index] = _near(predicted, labelled, reach)
        counts[2, index] = _near(labelled, predicted, reach)
    return counts


def _edges(labels_HW: np.ndarray) -> np.ndarray:
    """Pixels (H, W) that have another label above, below, left or right of them."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return cv2.dilate(labels_HW, cross) != cv2.erode(labels_HW, cross)


def _near(from_HW: np.ndarray, to_HW: np.ndarray, reach: float) -> int:
    """Pixels of the first map that have one of the second within `reach`."""
    distance_HW = cv2.distanceTransform((~to_HW).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int((distance_HW[from_HW] <= reach + 1e-4).sum())


def nearest_class(labels_HW: np.ndarray, void_HW: np.ndarray) -> np.ndarray:
    """The labels (H, W) uint8 with the nearest class where they are void; some pixel must not be."""
    if not void_HW.any():
        return labels_HW
    _, nearest_HW = cv2.distanceTransformWithLabels(
        void_HW.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the labelled pixels in its own order, so each number's class is read from the pixel.
    classes = np.zeros(int(nearest_HW.max()) + 1, dtype=np.uint8)
    classes[nearest_HW[~void_HW]] = labels_HW[~void_HW]
    return classes[nearest_HW]
