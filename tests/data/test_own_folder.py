"""What `dataset.toml` can say about images of one's own, and what the layouts of other tools need."""

import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.dataset import VOID
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.data.shrink import shrink
from segstrat.errors import UserError

LABEL = np.array([[0, 0, 1], [0, 1, 1]], np.uint8)
PHOTO = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10


def write(root, toml: str, files: dict[str, object]) -> None:
    """Writes arrays as images and strings as text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            Image.fromarray(np.asarray(content)).save(path)
    (root / "dataset.toml").write_text(toml)


def toml(
    top: str = 'images = "img"',
    task: str = 'labels = "lab"\nclasses = ["no", "yes"]',
    splits: str | None = None,
) -> str:
    splits = '[splits]\ntrain = "train.txt"\nval = "val.txt"\n' if splits is None else splits
    return f"{top}\n{splits}[tasks.semseg]\n{task}\n"


def lists(train: str = "a", val: str = "b") -> dict[str, str]:
    return {"train.txt": train, "val.txt": val}


def pairs(*names: str, label: np.ndarray = LABEL) -> dict[str, object]:
    return {f"img/{name}.png": PHOTO for name in names} | {f"lab/{name}.png": label for name in names}


def label_of(root, split: str = "train") -> np.ndarray:
    return getattr(build_protocol("folder", root), split).read(0).labels["semseg"]


@pytest.mark.parametrize("suffix", ["JPG", "jpeg", "tif", "bmp", "WEBP"])
def test_photographs_beside_masks_are_the_images(tmp_path, suffix):
    photos = {f"all/{name}.{suffix}": np.full((2, 3, 3), 200, np.uint8) for name in "ab"}
    task = 'labels = "all"\nlabel_suffix = ".png"\nclasses = ["no", "yes"]'
    write(tmp_path, toml('images = "all"', task), lists() | photos | {f"all/{n}.png": LABEL for n in "ab"})
    sample = build_protocol("folder", tmp_path).train.read(0)
    assert sample.image.mean() > 190
    np.testing.assert_array_equal(sample.labels["semseg"], LABEL)
    (tmp_path / "dataset.toml").write_text(toml('images = "all"', 'labels = "all"\nclasses = ["no", "yes"]'))
    if suffix in ("tif", "bmp"):
        # Both could be the label.
        with pytest.raises(UserError, match=r'two files that may be the label.*label_suffix = "\.png"'):
            build_protocol("folder", tmp_path)
    else:
        assert build_protocol("folder", tmp_path).train.read(0).image.mean() > 190


def test_masks_alone_in_a_folder_are_no_images(tmp_path):
    write(tmp_path, toml('images = "lab"'), lists() | {f"lab/{name}.png": LABEL for name in "ab"})
    with pytest.raises(UserError, match=r"a\.png is the label of the id a, and there is no other file"):
        build_protocol("folder", tmp_path)


def test_suffixes_tell_images_and_labels_apart(tmp_path):
    task = 'labels = "all"\nlabel_suffix = "_mask"\nclasses = ["no", "yes"]'
    files = {f"all/{name}_photo.png": PHOTO for name in "ab"} | {
        f"all/{name}_mask.png": LABEL for name in "ab"
    }
    write(tmp_path, toml('images = "all"\nimage_suffix = "_photo"', task), lists() | files)
    protocol = build_protocol("folder", tmp_path)
    assert protocol.train.ids == ("a",)
    np.testing.assert_array_equal(protocol.train.read(0).image, PHOTO)
    np.testing.assert_array_equal(label_of(tmp_path), LABEL)


def test_one_folder_for_each_split_needs_no_lists(tmp_path):
    top, task = 'images = "{split}"', 'labels = "{split}"\nlabel_suffix = "_mask"\nclasses = ["no", "yes"]'
    names = {"train": ("1", "2"), "valid": ("1",), "test": ("3",)}
    files = {f"{s}/{n}.png": PHOTO for s, ns in names.items() for n in ns}
    files |= {f"{s}/{n}_mask.png": LABEL for s, ns in names.items() for n in ns}
    splits = '[splits]\ntrain = "train"\nval = "valid"\ntest = "test"\n'
    write(tmp_path, toml(top, task, splits), files)
    protocol = build_protocol("folder", tmp_path)
    # Files of one name in two splits are two images.
    assert [*protocol.train.ids, *protocol.val.ids, *protocol.test.ids] == [
        "train/1",
        "train/2",
        "valid/1",
        "test/3",
    ]
    np.testing.assert_array_equal(label_of(tmp_path, "val"), LABEL)
    (tmp_path / "dataset.toml").write_text(toml(top, task, ""))
    with pytest.raises(
        UserError, match=r'no folder .*val for images = .*\[splits\] val = "valing"|no folder'
    ):
        build_protocol("folder", tmp_path)
    (tmp_path / "valid").rename(tmp_path / "val")
    assert build_protocol("folder", tmp_path).val.ids == ("val/1",)


def test_labels_by_color(tmp_path):
    colors = np.array([(128, 64, 128), (0, 0, 255)], np.uint8)
    task = 'labels = "lab"\n[tasks.semseg.colors]\nsky = [0, 0, 255]\nroad = [128, 64, 128]'
    write(tmp_path, toml(task=task), lists() | pairs("a", "b", label=colors[LABEL]))
    protocol = build_protocol("folder", tmp_path)
    assert protocol.tasks["semseg"].classes == ("sky", "road")
    assert protocol.tasks["semseg"].values == ((0, 0, 255), (128, 64, 128))
    np.testing.assert_array_equal(label_of(tmp_path), 1 - LABEL)


@pytest.mark.parametrize("ignore", ["", "ignore = []\n"])
def test_255_may_be_a_class(tmp_path, ignore):
    task = f'labels = "lab"\nclasses = ["no", "yes"]\nvalues = [0, 255]\n{ignore}'
    write(tmp_path, toml(task=task), lists() | pairs("a", "b", label=LABEL * np.uint8(255)))
    np.testing.assert_array_equal(label_of(tmp_path), LABEL)


def test_a_byte_order_mark_is_accepted(tmp_path):
    write(tmp_path, toml(), lists() | pairs("a", "b"))
    path = tmp_path / "dataset.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert build_protocol("folder", tmp_path).train.ids == ("a",)
    path.write_bytes(toml().encode("utf-16"))
    with pytest.raises(UserError, match=r"not encoded as UTF-8.*save it as UTF-8"):
        build_protocol("folder", tmp_path)


def test_an_id_may_contain_blanks_if_there_is_such_a_file(tmp_path):
    write(tmp_path, toml(), lists("my photo 1") | pairs("my photo 1", "b"))
    assert build_protocol("folder", tmp_path).train.ids == ("my photo 1",)
    (tmp_path / "train.txt").write_text("my photo 2")
    with pytest.raises(
        UserError, match="line 1: expected one image id, found 'my photo 2'; an id is the name"
    ):
        build_protocol("folder", tmp_path)


def test_an_id_with_its_suffix_says_what_an_id_is(tmp_path):
    write(tmp_path, toml(), lists("a.png") | pairs("a", "b"))
    with pytest.raises(UserError, match=r"without its suffix; write a(,| instead of) (not )?a\.png"):
        build_protocol("folder", tmp_path)


def test_an_unknown_format_names_what_was_found(tmp_path):
    write(tmp_path, toml(), lists() | pairs("a", "b"))
    (tmp_path / "img" / "a.png").rename(tmp_path / "img" / "a.heic")
    with pytest.raises(UserError, match=r"found a\.heic; the formats that can be read are \.jpg"):
        build_protocol("folder", tmp_path)


@pytest.mark.parametrize(
    ("top", "task", "message"),
    [
        ("image_max = 0", "", "image_max must be the largest value"),
        ('image_max = "4095"', "", "image_max must be the largest value"),
        ('orientation = "left"', "", "orientation must be auto, upright, stored"),
        ("flip = 0", "", "flip must be true or false"),
        ("", 'classes = ["no", "no"]', "classes has 'no' twice"),
        ("", 'classes = ["no", " "]', "classes must be a list of at least two names"),
        ("", "values = [1, 1]", "values has 1 twice"),
        ("", 'swap = [["no"]]', "swap must be pairs of classes"),
        ("", 'swap = [["no", "maybe"]]', "swap must be pairs of classes"),
        ("", "colors = {no = [0, 0, 0]}", "colors and classes differ in 'yes'"),
        ("", "colors = {no = [0, 0, 0], yes = [0, 0]}", r"must be RGB such as \[128, 64, 128\]"),
        ("", "colors = {no = [0, 0, 0], yes = [0, 0, 0]}", "twice; a color is one class"),
        ("", "colors = {no = [0, 0, 0], yes = [1, 0, 0]}\nvalues = [0, 1]", "values and colors exclude"),
        ("", f"classes = {[str(i) for i in range(256)]}", "has 256 names; at most 255"),
    ],
)
def test_what_is_wrong_in_dataset_toml_is_one_sentence(tmp_path, top, task, message):
    classes = "" if task.startswith("classes") else '\nclasses = ["no", "yes"]'
    write(
        tmp_path,
        toml(f'images = "img"\n{top}', f'labels = "lab"{classes}\n{task}'),
        lists() | pairs("a", "b"),
    )
    with pytest.raises(UserError, match=message):
        build_protocol("folder", tmp_path)


# Orientation: the size of the label tells on which picture it was made.


def tagged(root, name: str, tag: int, upright: np.ndarray) -> None:
    """A photograph whose stored pixels are turned so that its tag makes it `upright`."""
    from segstrat.data.images import turned

    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(tag, tag)
    picture = Image.fromarray(turned(upright, inverse))
    exif = picture.getexif()
    exif[0x0112] = tag
    picture.save(root / "img" / f"{name}.png", exif=exif)


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("square", [False, True])
def test_a_label_of_the_upright_picture_turns_the_image(tmp_path, tag, square):
    upright = np.arange(36, dtype=np.uint8).reshape(2, 6, 3)[:, : 2 if square else 6]
    upright = np.ascontiguousarray(upright)
    label = (upright[..., 0] > 9).astype(np.uint8)
    write(tmp_path, toml(), lists() | pairs("a", "b", label=label))
    for name in "ab":
        tagged(tmp_path, name, tag, upright)
    for cache in (None, tmp_path / "cache"):
        protocol = build_protocol("folder", tmp_path, cache_dir=cache)
        np.testing.assert_array_equal(protocol.train.read(0).image, upright)
        assert protocol.train.image_size(0) == upright.shape[:2]


def test_a_label_of_the_stored_picture_leaves_it_as_it_is(tmp_path):
    upright = np.arange(36, dtype=np.uint8).reshape(2, 6, 3)
    write(tmp_path, toml(), lists() | pairs("a", "b", label=np.zeros((6, 2), np.uint8)))
    for name in "ab":
        tagged(tmp_path, name, 6, upright)
    image = build_protocol("folder", tmp_path).train.read(0).image
    assert image.shape == (6, 2, 3)


@pytest.mark.parametrize(("orientation", "turned"), [("upright", True), ("stored", False)])
def test_dataset_toml_decides_for_square_pictures(tmp_path, orientation, turned):
    upright = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    files = lists() | pairs("a", "b", label=np.array([[0, 1], [0, 1]], np.uint8))
    write(tmp_path, toml(f'images = "img"\norientation = "{orientation}"'), files)
    for name in "ab":
        tagged(tmp_path, name, 6, upright)
    image = build_protocol("folder", tmp_path).train.read(0).image
    assert np.array_equal(image, upright) == turned


def test_published_data_is_read_as_stored(trees):
    trees.voc(["a"], ["b"])
    path = trees.root / "VOCdevkit/VOC2012/JPEGImages/a.jpg"
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 3
        picture.load()
        stored = np.array(picture)
        path.unlink()
        picture.save(path, exif=exif, quality=100)
    assert np.abs(build_protocol("voc", trees.root).train.read(0).image.astype(int) - stored).mean() < 8


# Mirrored images.


@pytest.mark.parametrize(
    ("top", "task", "flips", "table"),
    [
        ("", "", True, None),
        ("", 'swap = [["yes", "no"]]', True, [1, 0]),
        ("flip = false", "", False, None),
    ],
)
def test_dataset_toml_decides_about_mirrored_images(tmp_path, top, task, flips, table):
    write(
        tmp_path,
        toml(f'images = "img"\n{top}', f'labels = "lab"\nclasses = ["no", "yes"]\n{task}'),
        lists() | pairs("a", "b"),
    )
    protocol = build_protocol("folder", tmp_path)
    loader = TrainLoader(
        protocol.train,
        tasks=protocol.tasks,
        crop_size=8,
        batch_size=1,
        augmentation=1.0,
        seed=0,
        flip=protocol.flip,
    )
    assert any(loader.placement(0, (2, 3), epoch).flip for epoch in range(30)) == flips
    found = loader.mirrored["semseg"]
    assert (None if found is None else found[:2].tolist()) == table


def test_what_mirrors_is_part_of_the_digest(tmp_path):
    write(tmp_path, toml(), lists() | pairs("a", "b"))
    plain = build_protocol("folder", tmp_path).digest
    (tmp_path / "dataset.toml").write_text(toml('images = "img"\nflip = false'))
    assert build_protocol("folder", tmp_path).digest != plain


# A smaller copy.


def test_a_smaller_copy_of_any_data_set_is_read_alike(tmp_path):
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 256, (5, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    label = np.kron(rng.integers(0, 2, (5, 5)), np.ones((8, 8))).astype(np.uint8)
    colors = np.array([(0, 0, 0), (200, 10, 10)], np.uint8)
    task = 'labels = "lab"\nlabel_suffix = "_m"\n[tasks.semseg.colors]\nno = [0, 0, 0]\nyes = [200, 10, 10]'
    files: dict[str, object] = {f"img/{name}.png": photo for name in "ab"}
    files |= {f"lab/{name}_m.png": colors[label] for name in "ab"}
    write(tmp_path / "big", toml('images = "img"\nflip = false', task), lists() | files)
    shrink(tmp_path / "big", tmp_path / "small", 20)
    small = build_protocol("folder", tmp_path / "small")
    assert not small.flip
    assert small.tasks["semseg"].values == ((0, 0, 0), (200, 10, 10))
    sample = small.train.read(0)
    np.testing.assert_array_equal(sample.labels["semseg"], label[1::2, 1::2])
    expected = Image.fromarray(photo).resize((20, 20), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(sample.image, np.array(expected))


def test_palette_and_deep_images_are_made_smaller_by_lanczos(tmp_path):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).quantize(200)
    deep = rng.integers(0, 4096, (40, 40)).astype(np.uint16)
    label = np.zeros((40, 40), np.uint8)
    label[5:30] = 1
    write(tmp_path / "big", toml('images = "img"\nimage_max = 4095'), lists() | pairs("a", "b", label=label))
    photo.save(tmp_path / "big/img/a.png")
    Image.fromarray(deep).save(tmp_path / "big/img/b.png")
    shrink(tmp_path / "big", tmp_path / "small", 20)
    small = build_protocol("folder", tmp_path / "small")
    expected = photo.convert("RGB").resize((20, 20), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(small.train.read(0).image, np.array(expected))
    assert small.val.read(0).image.max() > 150
    assert small.val.read(0).labels["semseg"].max() == 1


def test_void_stays_void_in_a_smaller_copy(tmp_path):
    label = np.full((40, 40), 7, np.uint16)
    label[:20], label[30:] = 1000, 3
    task = 'labels = "lab"\nclasses = ["no", "yes"]\nvalues = [7, 1000]\nignore = [3]'
    photo = {f"img/{name}.png": np.zeros((40, 40, 3), np.uint8) for name in "ab"}
    write(tmp_path / "big", toml(task=task), lists() | photo | {f"lab/{name}.png": label for name in "ab"})
    shrink(tmp_path / "big", tmp_path / "small", 20)
    found = label_of(tmp_path / "small")
    np.testing.assert_array_equal(found[:, 0], [1] * 10 + [0] * 5 + [VOID] * 5)
