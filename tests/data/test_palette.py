"""VOC's colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from segstrat.data.palette import voc_palette


def test_known_colours_of_voc() -> None:
    palette = voc_palette()
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(palette[label].tolist()) for label in known} == known
    assert palette[255].tolist() == [224, 224, 192]


def test_real_label_files_have_these_colours(shared_data: Path) -> None:
    path = next((shared_data / "voc-animals" / "SegmentationClass").iterdir())
    with Image.open(path) as image:
        stored = np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(stored[:21], voc_palette()[:21])
