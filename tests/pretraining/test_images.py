"""Classification sets on disk, their crops and their batches."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.data import build_protocol
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.pretraining import images as classification
from segstrat.pretraining.batches import center_crop, eval_batches, random_crop, train_batches
from segstrat.pretraining.cached import train_weights, weights_name
from segstrat.pretraining.images import UnlabelledData, decode, open_classification, open_unlabelled
from segstrat.pretraining.job import Pretraining, SelfSource


def write_set(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 16)) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in counts.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_classes_are_sorted_folders_and_labels_follow_them(tmp_path: Path) -> None:
    data = open_classification(write_set(tmp_path, {"zebra": 2, "ant": 3}))
    assert data.classes == ("ant", "zebra")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert [path.parent.name for path in data.val.paths] == ["ant"] * 3 + ["zebra"] * 2


def test_greyscale_images_are_read_as_rgb(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": 1, "b": 1})
    Image.fromarray(np.full((5, 4), 77, np.uint8)).save(root / "train" / "a" / "0.png")
    pixels = open_classification(root).train.read(0)
    assert pixels.shape == (5, 4, 3)
    assert (pixels == 77).all()


def test_an_image_is_decoded_once_as_long_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "KEPT_BYTES", 12 * 16 * 3)
    train = open_classification(write_set(tmp_path, {"a": 2, "b": 1})).train
    assert train.read(0) is train.read(0)
    again = train.read(1)
    assert again is not train.read(1)
    np.testing.assert_array_equal(again, train.read(1))


def test_the_digest_changes_with_the_files(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": 2, "b": 2})
    before = open_classification(root).digest
    assert before == open_classification(root).digest
    (root / "train" / "a" / "1.png").rename(root / "train" / "b" / "2.png")
    assert open_classification(root).digest != before


@pytest.mark.parametrize(
    ("counts", "lost", "words"),
    [
        ({"a": 1, "b": 1}, "train", "no folder train"),
        ({"a": 1, "b": 1}, "val", "no folder val"),
        ({"a": 1}, None, "1 class folder;"),
        ({"a": 1, "b": 0}, None, "b contains no images"),
        ({"a": 1, "b": 1}, "val/b", "b contains no images"),
    ],
)
def test_a_set_that_is_not_laid_out_as_one_is_named(
    tmp_path: Path, counts: dict[str, int], lost: str | None, words: str
) -> None:
    root = write_set(tmp_path / "set", counts)
    if lost:
        (root / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=words):
        open_classification(root)


def test_a_damaged_image_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": 2, "b": 2})
    broken = root / "train" / "b" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    train = open_classification(root).train
    with pytest.raises(UserError, match=r"b/1\.png"):
        list(batches_of(train))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_are_decoded_to_the_pixels_of_pillow(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 2)
    for subsampling in (0, 1, 2):
        path = tmp_path / f"{subsampling}.jpg"
        Image.fromarray(smooth).convert(mode).save(path, quality=85, subsampling=subsampling)
        with Image.open(path) as image:
            np.testing.assert_array_equal(decode(path), np.array(image.convert("RGB")))


def test_an_orientation_tag_turns_no_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg").shape == (10, 20, 3)


@pytest.mark.parametrize("content", [b"no image", b"\xff\xd8\xff\xd9", None])
def test_a_damaged_jpeg_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(UserError, match=r"a\.jpg"):
        decode(path)


def test_the_short_side_is_the_median_of_the_training_images(tmp_path: Path) -> None:
    root = write_set(tmp_path, {"a": 2, "b": 1})
    Image.new("RGB", (90, 70)).save(root / "train" / "a" / "0.png")
    assert open_classification(root).train.short_side() == 12


def batches_of(
    images: classification.ImageFolder, epoch: int = 0, threads: int = 2, batch_size: int = 2
) -> list:
    return list(
        train_batches(
            images,
            batch_size=batch_size,
            crop_size=8,
            smallest_crop=0.3,
            seed=3,
            epoch=epoch,
            threads=threads,
        )
    )


def test_an_epoch_is_a_function_of_seed_and_epoch_whatever_the_threads(tmp_path: Path) -> None:
    train = open_classification(write_set(tmp_path, {"a": 4, "b": 3})).train
    one, other = batches_of(train, threads=1), batches_of(train, threads=3)
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(one, other, strict=True))
    later = batches_of(train, epoch=1)
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(one, later, strict=True))


def test_order_and_crops_of_an_epoch_are_drawn_from_streams_of_their_own(monkeypatch, tmp_path: Path) -> None:
    train = open_classification(write_set(tmp_path, {"a": 4, "b": 3})).train
    seeds, plain = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or plain(seed))
    batches_of(train, epoch=0, batch_size=7)
    batches_of(train, epoch=1, batch_size=7)
    # Training draws its order and its placements from the streams 1 and 2.
    seeds += [[3, 1, 0], [3, 2, 0, 0], [3, 1, 1], [3, 2, 1, 0]]
    assert len(seeds) == 2 * (1 + 7) + 4
    first = {plain(seed).random() for seed in seeds}
    assert len(first) == len(seeds), "two draws share a generator"


def test_batches_hold_every_image_but_a_last_single_one(tmp_path: Path) -> None:
    train = open_classification(write_set(tmp_path, {"a": 4, "b": 3})).train
    assert [len(labels) for _, labels in batches_of(train, batch_size=4)] == [4, 3]
    assert [len(labels) for _, labels in batches_of(train, batch_size=3)] == [3, 3]
    images, _ = batches_of(train, batch_size=4)[0]
    assert images.shape == (4, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    whole = torch.cat([labels for _, labels in batches_of(train, batch_size=4)])
    assert sorted(whole.tolist()) == [0] * 4 + [1] * 3


def test_evaluation_sees_every_image_once_in_order(tmp_path: Path) -> None:
    val = open_classification(write_set(tmp_path, {"a": 4, "b": 3})).val
    batches = list(eval_batches(val, batch_size=2, crop_size=12, resize=12, threads=2))
    assert torch.cat([labels for _, labels in batches]).tolist() == [0] * 4 + [1] * 3
    images = torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1).numpy()
    for index in range(len(val)):
        np.testing.assert_array_equal(images[index], val.read(index)[:, 2:14])


def test_a_whole_crop_is_the_image_or_its_mirror_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    crops = [random_crop(image, 9, 1.0, np.random.default_rng(seed)) for seed in range(40)]
    # A square image is cropped whole only where the aspect ratio happens to be near 1.
    exact = [crop for crop in crops if (crop == image).all()]
    mirrored = [crop for crop in crops if (crop == image[:, ::-1]).all()]
    assert exact
    assert mirrored


def test_crops_cover_the_asked_share_of_the_area() -> None:
    # Colour is position: the range of values in a crop is the extent that it covers.
    position = np.arange(200, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(position[:, None], position[None, :], np.uint8(0)), axis=2)
    shares = []
    for seed in range(60):
        crop = random_crop(image, 64, 0.25, np.random.default_rng(seed)).astype(int)
        height, width = (np.ptp(crop[:, :, channel]) / 199 for channel in (0, 1))
        shares.append(height * width)
    assert 0.2 < min(shares) < 0.4
    assert 0.8 < max(shares) <= 1.0


def test_the_center_is_cropped_after_the_resize() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 30:50] = 255
    crop = center_crop(image, 10, 20)
    assert crop.shape == (10, 10, 3)
    assert (crop == 255).all()


def read_all(data: UnlabelledData) -> None:
    for images in (data.train, data.val):
        list(map(images.read, range(len(images))))


SPLITS = {"train": 12, "val": 4, "test": 3}


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A data set of one's own: 12 training, 4 validation and 3 test images of 40 pixels, with labels."""
    root, rng = tmp_path / "own", np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for split, count in SPLITS.items():
        names = [f"{split}{number}" for number in range(count)]
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.png")
            Image.fromarray(pixels[..., 0] % 2).save(root / "labels" / f"{name}.png")
    splits = "\n".join(f'{split} = "{split}.txt"' for split in SPLITS)
    (root / "dataset.toml").write_text(
        f'name = "my own"\nimages = "images"\nflip = false\n[splits]\n{splits}\n'
        '[tasks.semseg]\nlabels = "labels"\nclasses = ["a", "b"]\n'
    )
    return root


@pytest.fixture
def opened_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Path]]:
    """Every file that Python opens, or Pillow and NumPy through it, and every one that OpenCV is given."""
    found: set[Path] = set()

    def note(event: str, arguments: tuple) -> None:
        if active and event == "open" and isinstance(arguments[0], str | bytes | Path):
            found.add(Path(os.fsdecode(arguments[0])))

    active = [True]
    sys.addaudithook(note)
    yield found
    # A hook cannot be removed.
    active.clear()


def test_self_supervision_opens_neither_labels_nor_validation_and_test_images(
    described: Path, tmp_path: Path, opened_files: set[Path]
) -> None:
    cache = tmp_path / "cache"
    decoded = build_protocol("folder", described, cache_dir=cache)
    assert len(decoded.train) == 12
    for split, names in SPLITS.items():
        for name in (f"{split}{number}.png" for number in range(names)):
            for path in [described / "labels" / name, *[described / "images" / name] * (split != "train")]:
                path.write_bytes(b"must not be opened")
    entries = list((cache / "decoded").glob("*/pixels.u8"))
    assert len(entries) == 4, "images and labels of two splits"
    for path in entries:
        path.write_bytes(b"must not be opened")
    opened_files.clear()
    source = SelfSource(protocol="folder", root=str(described), folder=str(described), epochs=1)
    job = Pretraining(backbone="resnet18", width=0.125, source=source)
    out = cache / "weights" / weights_name(job, source.open(cache))
    assert [report for report in train_weights(job, out, Machine(threads=1)) if report]
    assert out.exists()
    inside = {
        path.relative_to(described).as_posix() for path in opened_files if path.is_relative_to(described)
    }
    lists = {f"{split}.txt" for split in SPLITS} | {"dataset.toml"}
    assert inside - lists == {f"images/train{number}.png" for number in range(12)}
    assert not [path for path in opened_files if path.is_relative_to(cache / "decoded")]


def test_drawn_scenes_are_learned_from_without_their_labels(
    few_figures: None, tmp_path: Path, opened_files: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segstrat.data.figures.write.SCENES", {"train": 9, "val": 2, "test": 2})
    scenes = build_protocol("figures", cache_dir=tmp_path)
    opened_files.clear()
    data = SelfSource(protocol="figures").open(tmp_path)
    read_all(data)
    assert len(data.train) + len(data.val) == len(scenes.train)
    assert data.probe is not None
    images = {path.stem for path in opened_files if path.parent.name == "JPEGImages"}
    assert images == set(scenes.train.ids)
    assert not [
        path for path in opened_files if path.parent.name.startswith("Segmentation") and path.suffix != ".txt"
    ]


def test_a_folder_adds_its_images_but_no_copies_of_what_must_not_be_read(
    described: Path, tmp_path: Path
) -> None:
    alone = open_unlabelled("folder", described, None, tmp_path)
    assert len(alone.train) + len(alone.val) == 12
    assert alone.name == "my own"
    assert not alone.train.mirror, "as dataset.toml says"
    extra = tmp_path / "more"
    for name in ("images", "labels"):
        shutil.copytree(described / name, extra / name)
    assert open_unlabelled("folder", described, extra, tmp_path).digest == alone.digest
    for number in range(5):
        pixels = np.full((50, 50, 3), number, np.uint8)
        Image.fromarray(pixels).save(extra / "images" / f"new{number}.png")
    data = open_unlabelled("folder", described, extra, tmp_path)
    assert len(data.train) + len(data.val) == 17
    assert data.name == "my own+more"
    assert data.digest != alone.digest
    assert {item.id for item in data.train.items}.isdisjoint(item.id for item in data.val.items)


def test_orientation_follows_the_image_alone(described: Path, tmp_path: Path) -> None:
    toml = (described / "dataset.toml").read_text()
    (described / "dataset.toml").write_text(f'orientation = "auto"\n{toml}')
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(12):
        path = described / "images" / f"train{number}.png"
        with Image.open(path) as image:
            image.save(path, exif=exif)
    data = open_unlabelled("folder", described, None, tmp_path)
    assert data.train.read(0).shape == (48, 40, 3), "the label would say that it is not turned"


def test_images_that_self_supervision_cannot_use_are_named(described: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(UserError, match="empty is not a folder; give one with images"):
        open_unlabelled("", None, empty, tmp_path)
    empty.mkdir()
    with pytest.raises(UserError, match=r"empty has 0 images to learn from; .* at least 8"):
        open_unlabelled("", None, empty, tmp_path)
    for number in range(9):
        Image.fromarray(np.zeros((20, 90, 3), np.uint8)).save(empty / f"{number}.png")
    with pytest.raises(UserError, match=r"shorter side of the images is 20 pixels; .* at least 32"):
        open_unlabelled("", None, empty, tmp_path)
    (described / "images" / "train3.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train3\.png is not an image that can be read"):
        read_all(open_unlabelled("folder", described, None, tmp_path))
