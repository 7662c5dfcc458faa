from pathlib import Path

import pytest
from PIL import Image

from segstrat.data.readers.folder import ImageFacts, image_facts
from segstrat.errors import UserError

TOML = """images = "images"
[splits]
train = "train.txt"
val = "train.txt"
[tasks.semseg]
labels = "labels"
classes = ["background", "thing"]
"""


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    sizes = {"wide": (90, 40), "tall": (50, 80), "square": (60, 60)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "train.txt").write_text("".join(f"{name}\n" for name in sizes))
    (tmp_path / "dataset.toml").write_text(TOML)
    return tmp_path


def test_number_and_median_short_side(root):
    assert image_facts("folder", root) == ImageFacts(train_images=3, short_side=50)


def test_images_that_cannot_be_opened_are_left_to_the_data_check(root):
    for path in (root / "images").iterdir():
        path.write_bytes(b"no image")
    assert image_facts("folder", root) == ImageFacts(train_images=3, short_side=0)


def test_many_images_are_sampled(root, monkeypatch):
    monkeypatch.setattr("segstrat.data.readers.folder.SAMPLE", 2)
    opened = []
    monkeypatch.setattr("segstrat.data.readers.folder._short_side", lambda path: opened.append(path) or 7)
    (root / "train.txt").write_text("".join(f"{index}\n" for index in range(20)))
    assert image_facts("folder", root) == ImageFacts(train_images=20, short_side=7)
    assert len(opened) == 2


def test_published_data_has_recipes_of_its_own(root):
    assert image_facts("figures", None) is None
    assert image_facts("d1", root) is None


def test_a_folder_without_a_description_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.toml is missing"):
        image_facts("folder", tmp_path)
