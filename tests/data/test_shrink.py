from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol, shrink
from segstrat.data.shrink import main
from segstrat.errors import UserError

TOML = """name = "farm"
images = "photos"
[splits]
train = "lists/train.txt"
val = "lists/val.txt"
[tasks.semseg]
labels = "masks"
classes = ["background", "cow"]
values = [0, 10]
ignore = [255]
"""


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """Three images; the left half of each is background, the right half cow, with one void row."""
    root = tmp_path / "farm"
    for name in ("photos", "masks", "lists"):
        (root / name).mkdir(parents=True)
    for name, (width, height) in {"a": (80, 40), "b": (40, 60), "c": (12, 10)}.items():
        labels_HW = np.zeros((height, width), np.uint8)
        labels_HW[:, width // 2 :] = 10
        labels_HW[0] = 255
        Image.fromarray(labels_HW).save(root / "masks" / f"{name}.png")
        Image.new("RGB", (width, height), (10, 200, 30)).save(root / "photos" / f"{name}.jpg")
    (root / "lists" / "train.txt").write_text("a\nb\n")
    (root / "lists" / "val.txt").write_text("c\n")
    (root / "dataset.toml").write_text(TOML)
    return root


def test_the_copy_is_the_same_data_set_at_another_size(farm, tmp_path):
    out = tmp_path / "small"
    assert main([str(farm), str(out), "--short-side", "20"]) == 0
    protocol = build_protocol("folder", out)
    assert protocol.name == "farm-20"
    assert protocol.tasks["semseg"].classes == ("background", "cow")
    samples = [protocol.train.read(index) for index in range(2)]
    assert [sample.image.shape for sample in samples] == [(20, 40, 3), (30, 20, 3)]
    for sample in samples:
        labels_HW = sample.labels["semseg"]
        middle = labels_HW.shape[1] // 2
        assert (labels_HW[1:, :middle] == 0).all()
        assert (labels_HW[1:, middle:] == 1).all(), "labels are not interpolated between classes"


def test_smaller_images_are_not_enlarged(farm, tmp_path):
    shrink.shrink(farm, tmp_path / "small", 20)
    with Image.open(tmp_path / "small" / "images" / "c.png") as image:
        assert image.size == (12, 10)


def test_a_folder_with_content_is_refused(farm):
    with pytest.raises(UserError, match="not empty"):
        shrink.shrink(farm, farm, 20)
