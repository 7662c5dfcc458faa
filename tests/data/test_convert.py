"""Every export layout is converted and compared with its own decoding; rules, splits and faults."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from segstrat.data import build_protocol
from segstrat.data.audit.checks import audit
from segstrat.data.convert import FORMATS, divide, main, make_ids
from segstrat.data.dataset import VOID
from segstrat.data.palette import voc_palette
from tests.data.exports import (
    LAYOUTS,
    Expected,
    H,
    W,
    Writer,
    ade20k,
    assert_same,
    coco,
    coco_panoptic,
    cvat,
    labelme,
    masks,
    masks_beside,
    names_of,
    photo,
    png_base64,
    read,
    rle,
    roboflow,
    shape,
    stripes,
    write_json,
    write_png,
)
from tests.data.tiffs import GEOTIFF, no_data, write_tiff


def run(format_name: str, source: Path, out: Path, *flags: str) -> None:
    assert main([format_name, str(source), "--out", str(out), *flags]) == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_label_maps_are_those_of_another_decoder(name: str, tmp_path: Path):
    format_name, write, counts = LAYOUTS[name]
    expected = write(tmp_path / "export")
    run(format_name, tmp_path / "export", tmp_path / "out")
    splits, labels = read(tmp_path / "out")
    assert_same(labels, expected)
    assert {split: len(ids) for split, ids in splits.items()} == counts
    assert sum(counts.values()) == len(expected)
    assert not (tmp_path / "out" / "unpacked").exists()


def test_every_format_is_tested():
    assert {format_name for format_name, _, _ in LAYOUTS.values()} == set(FORMATS)


# --- Rules ---


def test_crowds_can_be_objects(tmp_path: Path, capsys):
    coco(tmp_path / "export")
    run("coco", tmp_path / "export", tmp_path / "out")
    assert "4 of 16 outlines are crowds and become void" in capsys.readouterr().out
    run("coco", tmp_path / "export", tmp_path / "objects", "--crowds", "objects")
    _, labels = read(tmp_path / "objects")
    assert not any((labels_HW == "void").any() for labels_HW in labels.values())
    assert (labels["train_2"][:, :2] == "cow").all()


def test_an_object_with_only_a_box_is_void_there(tmp_path: Path, capsys):
    coco(tmp_path / "export")
    path = tmp_path / "export" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    first = {"id": 99, "image_id": 103, "category_id": 3, "iscrowd": 0, "bbox": [2, 3, 4, 5]}
    content["annotations"] += [first | {"segmentation": []}, first | {"segmentation": [[1, 1, 4, 4]]}]
    write_json(path, content)
    run("coco", tmp_path / "export", tmp_path / "out")
    _, labels = read(tmp_path / "out")
    assert np.argwhere(labels["train_3"] == "void").tolist() == [
        [y, x] for y in range(3, 8) for x in range(2, 6)
    ]
    assert "objects with a box, but without an outline" in capsys.readouterr().out


def test_kept_classes_and_the_others(tmp_path: Path):
    ade20k(tmp_path / "export")
    run("ade20k", tmp_path / "export", tmp_path / "out", "--classes", "building,wall")
    protocol = build_protocol("folder", tmp_path / "out")
    assert protocol.tasks["semseg"].classes == ("background", "building", "wall")
    _, labels = read(tmp_path / "out")
    values_HW = stripes(0, [0, 1, 2, 131, 142])
    names = {1: "wall", 2: "building", 131: "background", 142: "background"}
    assert (labels["ADE_train_00000000"] == names_of(values_HW, names)).all()


def many_classes(root: Path) -> None:
    for index in range(3):
        photo(root / "images" / f"{index}.jpg", size=(20, 30))
        values_HW = (np.arange(600).reshape(20, 30) * 7) % 300 + 1000
        write_png(root / "labels" / f"{index}.png", values_HW, np.uint16)


def test_more_classes_than_label_maps_hold(tmp_path: Path, capsys):
    many_classes(tmp_path / "export")
    assert main(["masks", str(tmp_path / "export"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "300 classes occur" in error
    assert "--classes 'class 1001,class 1002,…'" in error
    run("masks", tmp_path / "export", tmp_path / "out", "--classes", "class 1001,class 1002")
    _, labels = read(tmp_path / "out")
    assert Counter(labels["0"].ravel().tolist()) == {"background": 596, "class 1001": 2, "class 1002": 2}


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_labels_of_few_bits_keep_their_numbers(bits: int, tmp_path: Path):
    """Written by hand: Pillow saves 2 and 4 bits only with a palette, and reads them stretched."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    root, top = tmp_path / "export", 2 ** min(bits, 3) - 1
    for index in range(3):
        photo(root / "images" / f"{index}.jpg", size=(4, 8))
        values_HW = stripes(index, [0, top], (4, 8))
        flags = ((values_HW[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(4, -1)
        rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in flags)
        header = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        (root / "labels").mkdir(exist_ok=True)
        png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (root / "labels" / f"{index}.png").write_bytes(png)
    run("masks", root, tmp_path / "out")
    _, labels = read(tmp_path / "out")
    expected = names_of(stripes(0, [0, top], (4, 8)), {0: "background", top: f"class {top}"})
    assert (labels["0"] == expected).all()


def test_an_orientation_tag_fits_turned_or_stored_labels(tmp_path: Path, capsys):
    root = tmp_path / "export"
    for index, (tag, size) in enumerate([(1, (H, W)), (6, (W, H)), (6, (H, W)), (3, (H, W))]):
        photo(root / "images" / f"{index}.jpg", size=(H, W), orientation=tag)
        write_png(root / "masks" / f"{index}.png", stripes(index, [0, 1], size))
    run("masks", root, tmp_path / "out")
    told = capsys.readouterr().out
    assert (
        "3 images have an orientation tag: labels fit the upright picture of 1, the stored one of 1" in told
    )
    assert (tmp_path / "out" / "images" / "1.jpg").samefile(root / "images" / "1.jpg")


def test_images_are_linked_or_copied(tmp_path: Path, monkeypatch, capsys):
    masks(tmp_path / "export")
    first = tmp_path / "export" / "Images" / "day0" / "0.JPG"
    first.rename(tmp_path / "elsewhere.JPG")
    first.symlink_to("../../../elsewhere.JPG")
    run("masks", tmp_path / "export", tmp_path / "hard")
    assert (tmp_path / "hard" / "images" / "day0__0.jpg").samefile(tmp_path / "elsewhere.JPG")
    assert not (tmp_path / "hard" / "images" / "day0__0.jpg").is_symlink()

    def other_device(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", other_device)
    run("masks", tmp_path / "export", tmp_path / "soft")
    assert (tmp_path / "soft" / "images" / "day0__0.jpg").readlink() == tmp_path / "elsewhere.JPG"
    monkeypatch.setattr(Path, "symlink_to", other_device)
    run("masks", tmp_path / "export", tmp_path / "copy")
    assert "10 copies" in capsys.readouterr().out
    assert (tmp_path / "copy" / "images" / "day0__0.jpg").read_bytes() == first.read_bytes()


def test_ids_are_file_names_and_unique(tmp_path: Path):
    names = ["a/b__c.jpg", "a__b/c.jpg", "a/x y.jpg", "a/x_y.jpg", "A/X_Y.jpg", "b/.h.jpg", "ü/" + "n" * 300]

    def made(name: str) -> object:
        image = tmp_path / name
        return type("Item", (), {"name": name.removesuffix(".jpg"), "image": image})()

    ids = make_ids([made(name) for name in names], tmp_path)
    assert len({name.casefold() for name in ids}) == len(names)
    assert all(name == Path(name).name and len(name.encode()) < 200 and " " not in name for name in ids)
    assert ids[5] == "b__.h"


# --- Splits ---


def test_groups_stay_together_near_the_shares():
    rng = np.random.default_rng(0)
    groups = [f"video{index}" for index in range(40) for _ in range(rng.integers(1, 12))]
    classes = [{"background", f"class {int(group[5:]) % 7}"} for group in groups]
    shares = {"train": 70.0, "val": 10.0, "test": 20.0}
    splits = divide(groups, classes, shares, seed=3)
    together: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        together.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in together.values())
    for split, share in shares.items():
        assert abs(splits.count(split) / len(splits) - share / 100) < 0.03
    assert divide(groups, classes, shares, seed=3) == splits
    assert divide(groups, classes, shares, seed=4) != splits


def test_rare_classes_are_in_training():
    classes = [{"a"} for _ in range(20)]
    classes[3], classes[17] = {"a", "rare"}, {"rarer"}
    for seed in range(20):
        splits = divide([str(i) for i in range(20)], classes, {"train": 50, "val": 25, "test": 25}, seed)
        assert splits[17] == "train"
        assert splits[3] == "train"
        assert Counter(splits) == {"train": 10, "val": 5, "test": 5}


def test_every_split_has_a_group_even_if_a_class_is_then_not_trained(tmp_path: Path, capsys):
    assert sorted(divide(["a", "b", "c"], [{"x"}, {"y"}, {"z"}], {"train": 98, "val": 1, "test": 1}, 0)) == [
        "test",
        "train",
        "val",
    ]
    root = tmp_path / "export"
    for index in range(3):
        photo(root / "images" / f"{index}.jpg")
        write_png(root / "masks" / f"{index}.png", stripes(index, [0, index + 1]))
    run("masks", root, tmp_path / "out")
    assert "no training image shows class" in capsys.readouterr().out


def test_frames_of_a_video_stay_together(tmp_path: Path, capsys):
    cvat(tmp_path / "export")
    for name in ("clip 2", "clip 3"):
        for index in range(2):
            photo(tmp_path / "export" / "JPEGImages" / name / f"{index}.png")
            (tmp_path / "export" / "SegmentationClass" / name).mkdir(exist_ok=True)
            png = (tmp_path / "export" / "SegmentationClass" / "clip 0" / "frame_000000.png").read_bytes()
            (tmp_path / "export" / "SegmentationClass" / name / f"{index}.png").write_bytes(png)
    (tmp_path / "export" / "ImageSets" / "Segmentation" / "default.txt").unlink()
    flags = ("--group-by", "^(.+)__", "--splits", "50,25,25", "--seed", "7")
    run("cvat", tmp_path / "export", tmp_path / "out", *flags)
    splits, _ = read(tmp_path / "out")
    clips = {split: {name.split("__")[0] for name in ids} for split, ids in splits.items()}
    assert sum(len(names) for names in clips.values()) == 4
    assert "4 groups stay together" in capsys.readouterr().out


def test_own_splits_hold_unless_others_are_asked_for(tmp_path: Path):
    ade20k(tmp_path / "export")
    run("ade20k", tmp_path / "export", tmp_path / "anew", "--splits", "75,25")
    splits, _ = read(tmp_path / "anew")
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 3, "val": 1}


def test_validation_images_come_from_training_where_only_test_images_are_given(tmp_path: Path):
    root = tmp_path / "export"
    for split, count in (("train", 8), ("test", 3)):
        for index in range(count):
            photo(root / split / "images" / f"{split}{index}.jpg")
            write_png(root / split / "masks" / f"{split}{index}.png", stripes(index, [0, 1]))
    run("masks", root, tmp_path / "out")
    splits, _ = read(tmp_path / "out")
    assert sorted(splits["test"]) == ["test0", "test1", "test2"]
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 7, "val": 1, "test": 3}


# --- Errors ---


def change_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def break_coco(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        coco(root)
        change_json(root / "annotations" / "instances_train2017.json", change)

    return write


def first(key: str, value: object) -> Callable[[Path], object]:
    return break_coco(lambda content: content["annotations"][0].update({key: value}))


def break_labelme(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        labelme(root)
        change_json(root / "farm" / "0.json", change)

    return write


def after(write: Writer, change: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(root: Path) -> None:
        write(root)
        change(root)

    return both


def black(path: str) -> Callable[[Path], object]:
    return lambda root: Image.new("L", (5, 5)).save(root / path)


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no such format": ("coc", coco, "unknown format 'coc': did you mean 'coco'?"),
    "no file": ("coco", lambda root: root.mkdir(), "no COCO annotations below .*: there is no JSON file"),
    "other files": ("coco-panoptic", coco, "no panoptic COCO annotations below .*: none of 4 JSON files"),
    "damaged JSON": (
        "coco",
        after(
            coco, lambda root: (root / "annotations" / "instances_val2017.json").write_text('{"images": [')
        ),
        "instances_val2017.json is not a complete JSON file",
    ),
    "unknown category": (
        "coco",
        first("category_id", 90),
        "annotation 0 has category_id 90, which is not among",
    ),
    "unknown image": (
        "coco",
        first("image_id", 7),
        "annotation 0 has image_id 7, which is not among its 4 images",
    ),
    "no annotations": (
        "coco",
        break_coco(lambda c: c["annotations"].clear()),
        "has an empty list of annotations",
    ),
    "only boxes": (
        "coco",
        lambda root: (
            coco(root),
            [
                change_json(path, lambda c: [each.update(segmentation=[]) for each in c["annotations"]])
                for path in root.glob("annotations/instances_*")
            ],
        ),
        "no annotation below .* has an outline, only boxes",
    ),
    "absent image": (
        "coco",
        after(coco, lambda root: (root / "train2017" / "train_1.jpg").unlink()),
        "instances_train2017.json names train_1.jpg, which is not below",
    ),
    "two images of one name": (
        "coco",
        after(coco, lambda root: photo(root / "more" / "train" / "train_1.jpg")),
        "names train_1.jpg, but there is more/train/train_1.jpg and train2017/train_1.jpg",
    ),
    "another size": (
        "coco",
        break_coco(lambda c: c["images"][3].update(height=H + 1)),
        rf"image train_3.jpg, is {W}×{H + 1} pixels, its image train_3.jpg {W}×{H}",
    ),
    "polygon of odd length": (
        "coco",
        first("segmentation", [[1, 2, 3, 4, 5, 6, 7]]),
        "has a polygon that is not",
    ),
    "polygon at infinity": (
        "coco",
        first("segmentation", [[1, 2, 3, 1e12, 5, 6]]),
        "has a polygon that is not",
    ),
    "polygon of nothing": (
        "coco",
        first("segmentation", [[1, 2, 3, math.nan, 5, 6]]),
        "has a polygon that is not",
    ),
    "RLE too short": (
        "coco",
        first("segmentation", {"size": [H, W], "counts": [20, 30]}),
        f"has an RLE of 50 pixels, but {H * W} pixels",
    ),
    "compressed RLE too short": (
        "coco",
        first("segmentation", {"size": [H, W], "counts": "0000"}),
        f"has an RLE of 0 pixels, but {H * W} pixels",
    ),
    "RLE of another size": (
        "coco",
        first("segmentation", rle(np.ones((5, 4)), compressed=True)),
        f"has an RLE of 4×5 pixels, but is {W}×{H}",
    ),
    "two categories of one name": (
        "coco",
        break_coco(lambda c: c["categories"].append({"id": 9, "name": "cow"})),
        "has two categories called cow",
    ),
    "unlisted segment": (
        "coco-panoptic",
        after(
            coco_panoptic,
            lambda root: change_json(
                root / "annotations" / "panoptic_val2017.json",
                lambda c: c["annotations"][1].update(segments_info=[]),
            ),
        ),
        r"val1.png has a segment \d+ that is not among its segments_info",
    ),
    "no shapes": (
        "labelme",
        lambda root: write_json(root / "a.json", {"a": 1}),
        "no labelme shapes in 1 JSON",
    ),
    "unknown shape": (
        "labelme",
        break_labelme(lambda c: c["shapes"][0].update(shape_type="spline")),
        "farm/0.json has a shape of type spline",
    ),
    "polygon of two points": (
        "labelme",
        break_labelme(lambda c: c["shapes"].append(shape("cow", "polygon", [[1, 1], [2, 2]]))),
        "farm/0.json has a polygon with 2 points",
    ),
    "mask beside its box": (
        "labelme",
        break_labelme(
            lambda c: c["shapes"].append(shape("a", "mask", [[1, 1], [2, 2]], mask=png_base64(np.eye(3))))
        ),
        "farm/0.json has a mask of 3×3 pixels in a box of 2×2",
    ),
    "absent labelme image": (
        "labelme",
        break_labelme(lambda c: c.update(imagePath="../../gone.jpg")),
        "farm/0.json names ../../gone.jpg, which is not below",
    ),
    "unknown color": (
        "cvat",
        after(cvat, lambda root: (root / "labelmap.txt").write_text("background:0,0,0::\ncow:250,50,83::\n")),
        "frame_000000.png contains the color #33ddff in 432 pixels, but labelmap.txt does not name it",
    ),
    "no labelmap": ("cvat", after(cvat, lambda root: (root / "labelmap.txt").unlink()), "there is none"),
    "color twice": (
        "cvat",
        after(cvat, lambda root: (root / "labelmap.txt").write_text("a:0,0,0::\nb:0,0,0::\n")),
        "has the name or value of b twice",
    ),
    "mask of another size": (
        "cvat",
        after(cvat, black("SegmentationClass/clip 0/frame_000002.png")),
        rf"frame_000002.png is 5×5 pixels, its image frame_000002.PNG {W}×{H}",
    ),
    "unknown value": (
        "roboflow",
        after(
            roboflow, lambda r: [p.write_text("Pixel Value, Class\n0, a\n1, b\n") for p in r.rglob("*.csv")]
        ),
        "_mask.png contains the value 2 in 576 pixels, but test/_classes.csv does not name it",
    ),
    "different classes": (
        "roboflow",
        after(
            roboflow, lambda root: (root / "valid" / "_classes.csv").write_text("Pixel Value, Class\n0, a\n")
        ),
        "valid/_classes.csv and test/_classes.csv have different classes",
    ),
    "no cityscapes": ("cityscapes", masks, "expected .*_gtFine_labelIds.png"),
    "label without image": (
        "masks",
        after(masks, lambda root: (root / "Images" / "day1" / "3.JPG").unlink()),
        r"Masks/day1/3.png has no image of the same name \(1 such labels\)",
    ),
    "JPEG labels": (
        "masks",
        lambda root: [photo(root / kind / f"{i}.jpg") for kind in ("images", "masks") for i in range(3)],
        "masks/0.jpg is a JPEG file, which changes class numbers",
    ),
    "colors and numbers": (
        "masks",
        after(
            masks_beside,
            lambda root: write_png(root / "train" / "train0_label.png", np.full((H, W), 3)),
        ),
        "_label.png holds colors, but .*train0_label.png numbers",
    ),
    "transparent": (
        "masks",
        after(masks, lambda r: Image.new("RGBA", (W, H)).save(r / "Masks" / "day0" / "0.png")),
        "0.png has transparent pixels",
    ),
    "one class": (
        "masks",
        lambda root: [
            (photo(root / "images" / f"{i}.jpg"), write_png(root / "masks" / f"{i}.png", np.zeros((H, W))))
            for i in range(3)
        ],
        "at least two classes must occur in the labels, but only background occurs",
    ),
    "nothing alike": ("masks", lambda root: photo(root / "a.jpg"), "no image has a label of the same name"),
    "no parquet": ("huggingface", masks, "has no .parquet file"),
    "damaged parquet": (
        "huggingface",
        lambda root: (root.mkdir(), (root / "train.parquet").write_bytes(b"PAR1")),
        "train.parquet cannot be read as parquet",
    ),
    "no such columns": (
        "huggingface",
        lambda root: (root.mkdir(), pq.write_table(pa.table({"x": [1]}), root / "a.parquet")),
        "a.parquet has the columns x; say which one with --images NAME",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_in_one_sentence_and_nothing_is_left(name: str, tmp_path: Path, capsys):
    format_name, write, message = FAULTS[name]
    write(tmp_path / "export")
    out = tmp_path / "made" / "out"
    assert main([format_name, str(tmp_path / "export"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not out.exists()
    assert not list((tmp_path / "made").glob("*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--splits", "70,10,10"], "percentages train,val,test that sum to 100"),
        (["--splits", "100,0"], "training and validation both need images"),
        (["--splits", "a,b"], "percentages train,val,test"),
        (["--group-by", "(a"], "is not a regular expression"),
        (["--group-by", "day"], "has no group"),
        (["--group-by", "(night)"], "finds no group in the id"),
        (["--group-by", "(d)"], "cannot be divided into 3 splits"),
        (["--classes", "objekt"], "did you mean 'object'?"),
        (["--crowds", "objects"], "--crowds means nothing for masks"),
        (["--labels", "nowhere"], "no images in a folder nowhere"),
        (["--lables", "Masks"], "did you mean --labels?"),
    ],
)
def test_flags_are_checked(flags: list[str], message: str, tmp_path: Path, capsys):
    masks(tmp_path / "export")
    assert main(["masks", str(tmp_path / "export"), "--out", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_groups_in_several_own_splits_are_refused(tmp_path: Path, capsys):
    ade20k(tmp_path / "export")
    flags = ["--group-by", r"(\d+)$"]
    assert main(["ade20k", str(tmp_path / "export"), "--out", str(tmp_path / "out"), *flags]) == 2
    assert "is in several splits of the export (2 such groups); give --splits" in capsys.readouterr().err
    run("ade20k", tmp_path / "export", tmp_path / "out", *flags, "--splits", "50,50")


def test_a_phone_writes_suffixes_in_capitals(tmp_path: Path):
    expected = coco(tmp_path / "export")
    for path in (tmp_path / "export").rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    run("coco", tmp_path / "export", tmp_path / "out")
    assert_same(read(tmp_path / "out")[1], expected)


def test_an_image_of_another_format_is_named(tmp_path: Path, capsys):
    coco(tmp_path / "export")
    path = tmp_path / "export" / "train2017" / "train_1.jpg"
    path.rename(path.with_suffix(".HEIC"))
    assert main(["coco", str(tmp_path / "export"), "--out", str(tmp_path / "out")]) == 2
    assert "names train_1.jpg, which is not below" in (error := capsys.readouterr().err)
    assert "(found train2017/train_1.HEIC)" in error


def test_what_exists_is_not_overwritten(tmp_path: Path, capsys):
    masks(tmp_path / "export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert main(["masks", str(tmp_path / "export"), "--out", str(tmp_path / "full")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    run("masks", tmp_path / "export", tmp_path / "empty")


def test_a_data_set_below_the_export_is_no_part_of_it(tmp_path: Path):
    expected = coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    for out in ("first", "second"):
        run("coco", path, tmp_path / out, "--splits", "50,50")
    assert read(tmp_path / "second")[1].keys() == {name for name in expected if "train" in name}
    assert build_protocol("folder", tmp_path / "second").name == path.stem


def test_real_photographs_come_back_pixel_by_pixel(shared_data: Path, tmp_path: Path):
    """VOC's label maps as RLE of connected regions; void as crowds."""
    voc = shared_data / "voc-animals"
    names = {8: "cat", 10: "cow", 12: "dog", 13: "horse", 15: "person", 17: "sheep"}
    expected: Expected = {}
    for split in ("train", "val"):
        images, annotations = [], []
        for number, name in enumerate((voc / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:12]):
            values_HW = np.array(Image.open(voc / "SegmentationClass" / f"{name}.png"))
            target = tmp_path / "export" / f"{split}2017" / f"{name}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to((voc / "JPEGImages" / f"{name}.jpg").resolve())
            height, width = values_HW.shape
            images.append({"id": number, "file_name": target.name, "height": height, "width": width})
            for value in set(np.unique(values_HW).tolist()) - {0}:
                void = value == VOID
                annotations.append(
                    {
                        "image_id": number,
                        "category_id": 8 if void else value,
                        "iscrowd": int(void),
                        "segmentation": rle(values_HW == value, compressed=number % 2 == 0),
                    }
                )
            expected[name] = names_of(values_HW, {0: "background", **names})
        categories = [{"id": value, "name": name} for value, name in names.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_json(tmp_path / "export" / "annotations" / f"instances_{split}2017.json", content)
    run("coco", tmp_path / "export", tmp_path / "out")
    assert_same(read(tmp_path / "out")[1], expected)
    for path in (tmp_path / "out" / "images").iterdir():
        assert path.read_bytes() == (voc / "JPEGImages" / path.name).read_bytes()


def test_voc_colors_are_not_needed_to_look_at_label_maps(tmp_path: Path):
    masks(tmp_path / "export")
    run("masks", tmp_path / "export", tmp_path / "out")
    with Image.open(tmp_path / "out" / "labels" / "day0__0.png") as image:
        assert image.mode == "P"
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert (palette[0] == 0).all()
    assert len({tuple(color) for color in palette[[0, 1, VOID]].tolist()}) == 3
    assert palette.shape == voc_palette().shape


# --- What the reader of the folder reads, goes through ---


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".bmp", ".tif", ".TIFF", ".webp"])
def test_images_of_every_format_go_through_turned_as_their_labels_are(suffix: str, tmp_path: Path, capsys):
    """Labels are drawn on what a viewer shows; a BMP has no orientation tag."""
    root = tmp_path / "export"
    tags = [1] * 8 if suffix == ".bmp" else list(range(1, 9))
    shown, expected = {}, {}
    for index, tag in enumerate(tags):
        path = photo(root / "images" / f"{index}{suffix}", orientation=tag)
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        shown[str(index)] = pixels
        values_HW = stripes(index, [0, 1, 2], pixels.shape[:2])
        write_png(root / "masks" / f"{index}.png", values_HW)
        expected[str(index)] = names_of(values_HW, {0: "background", 1: "class 1", 2: "class 2"})
    run("masks", root, tmp_path / "out", "--splits", "50,50")
    assert_same(read(tmp_path / "out")[1], expected)
    protocol = build_protocol("folder", tmp_path / "out")
    for dataset in (protocol.train, protocol.val):
        for index in range(len(dataset)):
            sample = dataset.read(index)
            np.testing.assert_array_equal(sample.image, shown[sample.id])
    # Pillow itself turns TIFFs.
    tagged = suffix not in (".bmp", ".tif", ".TIFF")
    told = (
        "7 images have an orientation tag: labels fit the upright picture of 4, the stored one of 0, and both"
    )
    assert (told in capsys.readouterr().out) == tagged


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_wide_images_go_through_to_the_check_of_their_maximum(kind: type, tmp_path: Path):
    for index in range(4):
        grey = np.random.default_rng(index).integers(0, 4096, (H, W))
        path = tmp_path / "export" / "images" / f"{index}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(kind)).save(path)
        write_png(tmp_path / "export" / "masks" / f"{index}.png", stripes(index, [0, 1]))
    run("masks", tmp_path / "export", tmp_path / "out", "--splits", "50,50")
    report = audit(build_protocol("folder", tmp_path / "out"))
    assert "image_max" in report.errors[0]


def geotiffs(root: Path, empty: str, names: str = "") -> None:
    for index in range(4):
        photo(root / "images" / f"{index}.tif")
        (root / "masks").mkdir(exist_ok=True)
        values_HW = stripes(index, [0, 1, 2]).astype(np.int16)
        values_HW[:3] = int(empty)
        write_tiff(root / "masks" / f"{index}.tif", values_HW, tags=GEOTIFF | no_data(empty))
    if names:
        (root / "classes.txt").write_text(names)


@pytest.mark.parametrize("empty", ["-9999", "0", "7"])
def test_no_data_of_geotiffs_is_void(empty: str, tmp_path: Path, capsys):
    geotiffs(tmp_path / "export", empty)
    run("masks", tmp_path / "export", tmp_path / "out", "--splits", "50,50")
    assert "void: no data of a GeoTIFF" in capsys.readouterr().out
    names = {0: "background", 1: "class 1", 2: "class 2"}
    names = {value: name for value, name in names.items() if value != int(empty)}
    for name, labels_HW in read(tmp_path / "out")[1].items():
        assert (labels_HW[:3] == "void").all()
        assert (labels_HW[3:] == names_of(stripes(int(name), [0, 1, 2])[3:], names)).all()


def test_no_data_that_a_list_names_is_that_class(tmp_path: Path, capsys):
    geotiffs(tmp_path / "export", "0", "nothing\ncow\ncat\n")
    run("masks", tmp_path / "export", tmp_path / "out", "--splits", "50,50")
    assert "void" not in capsys.readouterr().out
    for labels_HW in read(tmp_path / "out")[1].values():
        assert (labels_HW[:3] == "nothing").all()
