"""VOC's colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from segstrat.data.palette import _lab, distinct_palette, has_background, label_palette, voc_palette
from segstrat.data.readers.voc import SEMSEG


def test_known_colours_of_voc() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert palette[255].tolist() == [224, 224, 192]


def test_any_two_of_the_first_colors_can_be_told_apart() -> None:
    """The distance in CIELAB at which two colors just differ is about 2.3."""
    lab = _lab(np.concatenate([distinct_palette()[:30], distinct_palette()[255:]]))
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)[~np.eye(len(lab), dtype=bool)]
    assert distances.min() > 30
    assert len(np.unique(distinct_palette(), axis=0)) == 256


def test_only_vocs_classes_get_vocs_colors_and_only_a_background_is_black() -> None:
    np.testing.assert_array_equal(label_palette(SEMSEG.classes), voc_palette())
    assert label_palette(["background", "cat", "cow"])[0].tolist() == [0, 0, 0]
    roads = label_palette(["road", "car"])
    assert roads[:2].any(axis=1).all()
    assert roads[255].tolist() == voc_palette()[255].tolist()
    assert has_background(["Background", "cat"])
    assert has_background(["class 0", "class 1"])
    assert not has_background(["road", "car"])


def test_real_label_files_have_these_colours(shared_data: Path) -> None:
    path = next((shared_data / "voc-animals" / "SegmentationClass").iterdir())
    with Image.open(path) as image:
        stored = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(stored[:21], voc_palette()[:21])
