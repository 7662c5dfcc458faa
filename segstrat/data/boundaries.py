"""Semantic boundaries as a separate task, derived from `semseg` labels."""

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
