"""The check of a user's own data: what it says, what it does not, and the contact sheet."""

import html
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.audit.__main__ import main
from segstrat.data.audit.checks import audit
from segstrat.data.audit.contents import count_labels
from segstrat.data.audit.headers import Needs, check_headers, read_headers
from segstrat.data.audit.sheet import draw_sheet, write_sheet
from segstrat.data.palette import label_palette
from segstrat.data.protocols import DataProtocol
from tests.data.planted import ASKED, FAULTS, Planted, sound

NEEDS = Needs(stride=32, smallest_crop=48, largest_crop=64)


@pytest.fixture
def data(tmp_path) -> Planted:
    return sound(tmp_path / "data", 5)


def check(data: Planted, **options) -> tuple[list[str], list[str]]:
    report = audit(
        build_protocol("folder", data.root, cache_dir=options.get("cache_dir")), needs=NEEDS, **options
    )
    return report.errors, report.warnings


def plant(data: Planted, name: str) -> tuple[list[str], list[str]]:
    FAULTS[name](data)
    data.describe()
    return check(data)


@pytest.mark.parametrize("cached", [False, True])
def test_a_class_that_never_occurs_is_an_error_with_the_remedy(data, tmp_path, cached):
    FAULTS["masks_of_0_and_255"](data)
    data.describe()
    errors, _ = check(data, **({"cache_dir": tmp_path / "cache"} if cached else {}))
    assert len(errors) == 1
    assert (
        "class 'object' of task semseg does not occur in the training labels, which have 'background' (0)"
        in errors[0]
    )
    assert errors[0].endswith("if 255 is 'object' and not void, write values = [0, 255] in dataset.toml")
    data.task = {"values": [0, 255]}
    data.describe()
    assert check(data) == ([], [])


def test_classes_beyond_the_labels_are_named_with_lists_to_copy(data):
    kept, values = list(data.classes), list(range(len(data.classes)))
    errors, _ = plant(data, "a_class_too_many")
    assert "class 'nothing'" in errors[0]
    listed = ", ".join(f'"{name}"' for name in kept)
    assert errors[0].endswith(f"or remove them: classes = [{listed}], values = {values}")


def test_published_data_may_lack_classes(trees):
    trees.voc([f"t{i}" for i in range(4)], ["v0"])
    assert audit(build_protocol("voc", trees.root)).errors == []


def test_labels_are_decoded_until_every_class_was_seen(data, monkeypatch):
    protocol = build_protocol("folder", data.root)
    task = protocol.tasks["semseg"]
    few = count_labels(protocol.train, task, least=2)
    assert len(few.ids) < len(protocol.train)
    assert not few.whole
    everything = count_labels(protocol.train, task, least=99)
    assert everything.whole
    labels = [protocol.train.read(i).labels["semseg"] for i in range(8)]
    expected = np.bincount(np.concatenate([label.ravel() for label in labels]), minlength=256)
    np.testing.assert_array_equal(everything.total(), expected)


def test_an_image_smaller_than_the_stride_is_found_before_training(data):
    errors, _ = plant(data, "a_small_test_image")
    assert "smaller than the stride of the network, 32; remove it from its list" in errors[0]


def test_a_crop_smaller_than_the_stride_is_an_error(data):
    needs = Needs(stride=32, smallest_crop=16, largest_crop=64)
    errors = audit(build_protocol("folder", data.root), needs=needs).errors
    assert errors[0].startswith("crops of 16 pixels are smaller than the stride of the network, 32")


def test_what_a_stamp_says_is_completed_by_what_the_trials_need(data, tmp_path):
    FAULTS["a_small_test_image"](data)
    protocol = build_protocol("folder", data.root)
    assert audit(protocol, full=True, cache_dir=tmp_path).errors == []
    assert "smaller than the stride" in audit(protocol, needs=NEEDS, cache_dir=tmp_path).errors[0]


def tag_all(data: Planted, tag: int, names: list[str]) -> None:
    for name in names:
        picture = Image.fromarray(data.images[name])
        exif = picture.getexif()
        exif[0x0112] = tag
        data.save_image(name, picture, exif=exif)


def test_orientation_tags_are_told(tmp_path):
    data = sound(tmp_path / "data", 5)
    data.save_label(data.ids[0], np.ascontiguousarray(data.labels[data.ids[0]].T))
    tag_all(data, 5, data.ids[:1])
    errors, warnings = check(data)
    assert errors == []
    assert "they are turned upright, because the labels have that size" in warnings[0]


def test_labels_of_stored_pictures_are_told(data):
    tag_all(data, 6, data.ids)
    errors, warnings = check(data)
    assert errors == []
    assert warnings == [
        "17 of 17 images have an orientation tag, e.g. p00.png; they are read as stored, because the labels "
        "have that size"
    ]


def test_tags_that_contradict_each_other_are_an_error(data):
    tag_all(data, 6, data.ids[:8])
    tag_all(data, 3, data.ids[8:])
    errors, _ = check(data)
    assert 'write orientation = "stored" or "upright" in dataset.toml' in errors[0]
    data.top = {"orientation": "stored"}
    data.describe()
    assert check(data)[0] == []


def test_sixteen_bits_without_a_maximum_are_told_or_refused(data):
    errors, warnings = plant(data, "sixteen_bits")
    assert errors == []
    assert "17 images have 16 bits, e.g. p00.png; 65535 becomes white" in warnings[0]
    errors, _ = plant(data, "twelve_bits_of_sixteen")
    assert "the largest value of 8 sampled 16-bit images is 4080 of 65535" in errors[0]
    data.top = {"image_max": 4080}
    data.describe()
    assert check(data) == ([], [])


def test_moved_palette_colors_are_an_error_and_other_ones_a_warning(tmp_path):
    errors, _ = plant(sound(tmp_path / "moved", 5), "renumbered_palettes")
    assert "colors have changed places, so one number means two classes" in errors[0]
    data = sound(tmp_path / "other", 5)
    for index, name in enumerate(data.ids):
        picture = Image.fromarray(data.labels[name])
        picture.putpalette([0, 0, 0, *([9, 9, 200] if index % 2 else [200, 9, 9]) * 3])
        data.save_label(name, picture)
    errors, warnings = check(data)
    assert errors == []
    assert "another palette than" in warnings[0]


def test_copies_of_training_images_in_validation(tmp_path):
    data = sound(tmp_path / "data", 5)
    first, other = data.splits["val"][0], data.splits["train"][0]
    shutil.copy(data.image_path(other), data.image_path(first))
    shutil.copy(data.label_path(other), data.label_path(first))
    errors, warnings = check(data)
    assert errors == []
    assert "1 image(s) are in two splits under different ids, e.g. p00 of train and p08 of val" in warnings[0]
    errors, _ = plant(data, "copies_in_validation")
    assert "5 of 5 images of val are copies of training images" in errors[0]


def test_six_validation_images_are_six_different_ones(data):
    _, warnings = plant(data, "one_picture_many_times")
    assert "4 image(s) of val are copies of others, e.g. p08 and p09; they count twice" in warnings


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["background", "arm_left", "arm_right", "torso"], None),
        (["background", "arm_l", "arm_r", "torso"], 'swap = [["arm_l", "arm_r"]]'),
        (["background", "Arm links", "Arm rechts", "torso"], 'swap = [["Arm links", "Arm rechts"]]'),
        (["background", "left arm", "torso", "head"], "'left arm' has no counterpart"),
        (["background", "leftovers", "girl", "bright"], None),
    ],
)
def test_names_of_sides(tmp_path, classes, words):
    data = sound(tmp_path / "data", 12, classes=4)
    data.classes = classes
    data.describe()
    _, warnings = check(data)
    assert (warnings == []) if words is None else words in warnings[0]
    data.top = {"flip": False}
    data.describe()
    assert check(data) == ([], [])


def test_headers_of_ten_thousand_files_take_seconds(data):
    """Linked files: 5,000 images and 5,000 labels, in seconds of processor time."""
    # Photographs of a phone, of which some do not tell how their labels were made.
    data.save_label("p00", np.ascontiguousarray(data.labels["p00"].T))
    tag_all(data, 5, ["p00"])
    tag_all(data, 3, ["p01"])
    names = [f"n{index}" for index in range(5000)]
    for index, name in enumerate(names):
        first = f"p0{index % 2}"
        data.image_path(name).hardlink_to(data.image_path(first))
        data.label_path(name).hardlink_to(data.label_path(first))
    data.splits = {"train": names[:4000], "val": names[4000:]}
    data.describe()
    protocol = build_protocol("folder", data.root)
    started = time.process_time()
    files = read_headers(protocol)
    found = check_headers(files, protocol)
    # Two cores for ten seconds.
    assert time.process_time() - started < 20
    assert len(files) == 5000
    assert "turned upright, because 2,500 labels have that size and the others" in found.warnings[0]


# The contact sheet.


def test_the_sheet_shows_labels_in_the_colors_of_the_classes(data, tmp_path):
    protocol = build_protocol("folder", data.root)
    page = write_sheet(protocol, tmp_path / "sheets", ["something is <odd>"])
    text = page.read_text()
    assert "something is &lt;odd&gt;" in text
    for name in data.classes:
        assert name in text
    with Image.open(page.with_suffix(".png")) as picture:
        assert f'src="{page.stem}.png"' in text
        shown = {color for _, color in picture.convert("RGB").getcolors(1 << 24)}
    for color in label_palette(data.classes)[1 : len(data.classes)].tolist():
        assert tuple(color) in shown
    shares = [np.mean(data.labels[name] == 1) for name in data.splits["val"]]
    assert f"<td>{np.mean(shares):.2%}</td>" in text


def test_labels_beside_their_objects_look_different(data):
    protocol = build_protocol("folder", data.root)
    sample = protocol.train.read(0)
    shares = {"semseg": {"train": np.zeros(len(data.classes) + 1)}}
    right = draw_sheet([sample], protocol.tasks, shares)
    moved = {"semseg": np.ascontiguousarray(sample.labels["semseg"][:, ::-1])}
    wrong = draw_sheet([type(sample)(sample.id, sample.image, moved)], protocol.tasks, shares)
    assert np.any(np.array(right) != np.array(wrong))


def test_the_audit_of_ones_own_folder_writes_the_sheet_and_no_published_lists(data, tmp_path, capsys):
    # A folder that happens to have the layout of VOC as well.
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (data.root / name).mkdir(parents=True)
    for split in ("train", "val"):
        (data.root / "ImageSets/Segmentation" / f"{split}.txt").write_text("x\n")
    assert main(["folder", "--root", str(data.root), "--cache-dir", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    assert "Images that split lists share" not in printed
    assert "tiny: no errors, 0 warnings" in printed
    page = Path(printed.rpartition("Look at the labels before you train: ")[2].strip())
    assert page.is_file()
    assert page.with_suffix(".png").is_file()


def test_a_protocol_without_files_has_no_headers(tiny_protocol):
    protocol: DataProtocol = tiny_protocol()
    assert read_headers(protocol) == []


def test_names_are_shown_as_they_are(tmp_path, capsys):
    data = sound(tmp_path / "data", 5, classes=4)
    data.classes = ["US$ and C$", "_under_ 100% {0}", "<b>&amp; [red]", "猫 \\frac{x^2"]
    data.describe()
    assert main(["folder", "--root", str(data.root), "--cache-dir", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    page = Path(printed.rpartition("Look at the labels before you train: ")[2].strip())
    with Image.open(page.with_suffix(".png")) as picture:
        assert picture.height > 12 / 3 * 180
    for name in data.classes:
        assert name in printed
        assert html.escape(name) in page.read_text()
    assert "<b>" not in re.sub(r"<p><b>.*</b></p>", "", page.read_text())


# Labels and images that were changed.


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("masks_inverted_in_some_files", "only inside, e.g. p00, where the others have it along the frame"),
        ("labels_resized_like_pictures", "as if they had been resized with interpolation"),
        (
            "images_that_were_never_labelled",
            "2 label(s) of semseg in train have 'background' alone, e.g. p00",
        ),
        (
            "training_images_saved_again_for_validation",
            "2 image(s) of val look like training images, e.g. p08",
        ),
        ("labels_of_images_that_were_cropped", "better when they are enlarged 1.5 times about the center"),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_what_was_changed_is_named(tmp_path, name, words, cached):
    data = sound(tmp_path / "data", 5, **ASKED[name])
    FAULTS[name](data)
    data.describe()
    errors, warnings = check(data, **({"cache_dir": tmp_path / "cache"} if cached else {}))
    assert errors == []
    assert any(words in warning for warning in warnings), warnings


def test_a_class_around_another_is_no_sign_of_interpolation(data):
    data.classes = ["background", "cell", "nucleus"]
    for name in data.ids:
        label = np.zeros_like(data.labels[name])
        y, x = (int(data.rng.integers(0, side - 30)) for side in label.shape)
        label[y : y + 30, x : x + 30], label[y + 8 : y + 22, x + 8 : x + 22] = 1, 2
        data.save_image(name, np.array([(30, 30, 30), (200, 190, 80), (80, 200, 220)], np.uint8)[label])
        data.save_label(name, label)
    data.describe()
    assert check(data) == ([], [])


def test_pictures_of_one_camera_do_not_look_alike(data):
    """Dark corners on all of them, and different things in front."""
    for name in data.ids:
        height, width = data.labels[name].shape
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        darker = data.images[name] * (1 - 0.4 * (x**2 + y**2) / 2)[..., None]
        data.save_image(name, darker.astype(np.uint8))
    assert check(data) == ([], [])
