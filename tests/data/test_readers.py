"""The readers of the published layouts, on tiny files whose pixels are known, and on real samples."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.dataset import VOID
from segstrat.data.files import FileDataset, Item, LabelFile, read_ids
from segstrat.data.labels import IndexPng
from segstrat.data.readers import lip, person_part, sbd, voc
from segstrat.errors import UserError

RAMP = np.arange(48).reshape(6, 8) % 21


def test_voc_reads_images_and_palette_labels(trees) -> None:
    trees.voc(["2007_1"], ["2007_2"])
    labels = RAMP.copy()
    labels[5, 7] = VOID
    path = trees.root / "VOCdevkit/VOC2012/SegmentationClass/2007_1.png"
    path.unlink()
    path.write_bytes(trees.index_png(labels))
    folder = voc.find(trees.root)
    sample = FileDataset(voc.items(folder, voc.ids(folder, "train")), ["semseg"]).read(0)
    assert sample.id == "2007_1"
    assert sample.image.shape == (6, 8, 3)
    assert sample.image.dtype == np.uint8
    np.testing.assert_array_equal(sample.labels["semseg"], labels)


def test_sbd_reads_the_class_map_of_the_mat_files(trees) -> None:
    trees.sbd(["a"], ["b"])
    path = trees.root / "benchmark_RELEASE/dataset/cls/b.mat"
    path.unlink()
    path.write_bytes(trees.sbd_mat(RAMP))
    folder = sbd.find(trees.root)
    sample = FileDataset(sbd.items(folder, sbd.ids(folder, "val")), ["semseg"]).read(0)
    np.testing.assert_array_equal(sample.labels["semseg"], RAMP)


@pytest.mark.parametrize("lists", ["in the split's folder", "one level above"])
def test_cihp_reads_its_layout(trees, lists: str) -> None:
    trees.cihp(["1", "2"], ["3"])
    top = trees.root / "instance-level_human_parsing"
    if lists == "one level above":
        shutil.move(top / "Training/train_id.txt", top / "train_id.txt")
        shutil.move(top / "Validation/val_id.txt", top / "val_id.txt")
    folder = lip.find(trees.root)
    assert [item.id for item in lip.items(folder, "train")] == ["1", "2"]
    sample = FileDataset(lip.items(folder, "val"), ["parts"]).read(0)
    assert sample.id == "3"
    assert set(np.unique(sample.labels["parts"])) == {19}


def test_person_part_reads_the_published_layout(trees) -> None:
    trees.person_part(["p1"], ["p2"])
    people = person_part.find(trees.root)
    assert people.ids("val") == ("p2",)
    assert people.labels.name == "pascal_person_part_gt"
    assert set(np.unique(people.label("p1").decode(people.label("p1").path))) == {6}


def test_person_part_reads_plain_lists_next_to_any_folder_of_labels(trees) -> None:
    trees.list_ids("people/train.txt", ["p1"])
    trees.list_ids("people/val.txt", ["p2"])
    trees.write("people/labels/p1.png", trees.index_png(RAMP % 7))
    trees.write("people/JPEGImages/p1.png", trees.index_png(RAMP))
    people = person_part.find(trees.root)
    assert people.labels == trees.root / "people/labels"
    np.testing.assert_array_equal(people.label("p1").decode(people.label("p1").path), RAMP % 7)


def part_mat(objects: list[tuple[str, list[tuple[str, np.ndarray]]]]) -> bytes:
    """An annotation in PASCAL-Part's structure: objects of (class, parts of (name, mask))."""
    kinds = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    things = np.empty((1, len(objects)), dtype=kinds)
    for index, (name, parts) in enumerate(objects):
        pieces = np.empty((1, len(parts)), dtype=[("part_name", object), ("mask", object)])
        for place, (part, mask) in enumerate(parts):
            pieces[0, place] = (part, mask.astype(np.uint8))
        shape = (6, 8)
        things[0, index] = (name, 15, np.ones(shape, np.uint8), pieces if parts else np.empty((0, 0)))
    annotation = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
    annotation[0, 0] = ("x", things)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"anno": annotation})
    return buffer.getvalue()


def column(index: int) -> np.ndarray:
    mask = np.zeros((6, 8), bool)
    mask[:, index] = True
    return mask


def test_raw_part_annotations_merge_to_the_six_parts_of_people(tmp_path: Path) -> None:
    names = ["hair", "neck", "ruarm", "lhand", "luleg", "rfoot"]
    path = tmp_path / "x.mat"
    people = ("person", [(name, column(index)) for index, name in enumerate(names)])
    path.write_bytes(part_mat([("dog", [("muzzle", column(7))]), people, ("person", [])]))
    labels = person_part.PascalPartMat()(path)
    np.testing.assert_array_equal(labels, np.tile([1, 2, 3, 4, 5, 6, 0, 0], (6, 1)))


def test_every_part_of_a_person_is_merged() -> None:
    sides = ["eye", "ear", "ebrow", "larm", "uarm", "hand", "lleg", "uleg", "foot"]
    assert len(person_part.MERGED) == 24
    assert set(person_part.MERGED.values()) == set(range(1, 7))
    for side in sides:
        assert person_part.MERGED[f"l{side}"] == person_part.MERGED[f"r{side}"]


def test_an_unknown_part_of_a_person_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(part_mat([("person", [("tail", column(1))])]))
    with pytest.raises(UserError, match=r"x\.mat: a person has the part 'tail'"):
        person_part.PascalPartMat()(path)


def test_person_part_falls_back_to_the_raw_annotations(trees) -> None:
    trees.list_ids("parts/train_id.txt", ["p1"])
    trees.list_ids("parts/val_id.txt", ["p2"])
    trees.write("parts/Annotations_Part/p1.mat", part_mat([("person", [("torso", column(4))])]))
    people = person_part.find(trees.root)
    labels = people.label("p1").decode(people.label("p1").path)
    np.testing.assert_array_equal(labels, column(4) * 2)


def test_index_png_maps_label_values_to_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.array([[0, 8], [10, 7]], np.uint8)).save(path)
    labels = IndexPng(values=(0, 8, 10), ignore=(7, 255))(path)
    np.testing.assert_array_equal(labels, [[0, 1], [2, VOID]])


def test_greyscale_and_palette_pngs_mean_the_same(tmp_path: Path, trees) -> None:
    (tmp_path / "p.png").write_bytes(trees.index_png(RAMP))
    (tmp_path / "l.png").write_bytes(trees.index_png(RAMP, palette=False))
    decode = IndexPng(tuple(range(21)))
    np.testing.assert_array_equal(decode(tmp_path / "p.png"), decode(tmp_path / "l.png"))


def test_colours_are_rgb_and_grey_images_have_three_channels(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), (250, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (4, 3), 90).save(tmp_path / "grey.jpg")
    dataset = FileDataset(
        [
            Item(name, tmp_path / name, {"semseg": LabelFile(tmp_path, IndexPng((0, 1)))})
            for name in ("red.png", "grey.jpg")
        ],
        ["semseg"],
    )
    assert dataset.image(0)[0, 0].tolist() == [250, 0, 0]
    assert dataset.image(1).shape == (3, 4, 3)
    assert np.ptp(dataset.image(1), axis=2).max() == 0


def test_an_orientation_tag_turns_no_image_away_from_its_label(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    Image.new("L", (8, 6)).save(tmp_path / "x.png")
    label = LabelFile(tmp_path / "x.png", IndexPng((0, 1)))
    sample = FileDataset([Item("x", tmp_path / "x.jpg", {"semseg": label})], ["semseg"]).read(0)
    assert sample.image.shape[:2] == sample.labels["semseg"].shape == (6, 8)


def test_only_labels_of_the_chosen_tasks_are_touched(trees) -> None:
    trees.sbd(["a"], ["b"])
    folder = sbd.find(trees.root)
    missing = LabelFile(trees.root / "nowhere.png", IndexPng((0, 1)))
    item = sbd.items(folder, ["a"])[0]
    item = Item(item.id, item.image, {**item.labels, "parts": missing})
    dataset = FileDataset([item], ["semseg"])
    assert set(dataset.read(0).labels) == {"semseg"}
    assert len(dataset.digest) == 16


def test_a_digest_follows_sizes_ids_and_decoders_but_not_the_place(trees, tmp_path: Path) -> None:
    def digest(root: Path, names: list[str], classes: int = 21) -> str:
        folder = root / "benchmark_RELEASE/dataset"
        items = sbd.items(folder, names)
        relabelled = [
            Item(
                item.id,
                item.image,
                {"semseg": LabelFile(item.labels["semseg"].path, sbd.SbdMat(tuple(range(classes))))},
            )
            for item in items
        ]
        return FileDataset(relabelled, ["semseg"]).digest

    trees.sbd(["a", "b"], ["c"])
    first = digest(trees.root, ["a", "b"])
    moved = tmp_path / "moved"
    shutil.copytree(trees.root, moved)
    assert digest(moved, ["a", "b"]) == first
    assert digest(moved, ["a", "c"]) != first
    assert digest(moved, ["a", "b"], classes=22) != first
    image = moved / "benchmark_RELEASE/dataset/img/b.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert digest(moved, ["a", "b"]) != first


def test_lists_may_have_blank_lines_and_foreign_line_ends(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\n c \n")
    assert read_ids(tmp_path / "list.txt") == ("a", "b", "c")


def test_real_part_annotations_agree_with_the_real_semantic_labels(shared_data: Path) -> None:
    person = voc.SEMSEG.classes.index("person")
    outside, parts, with_people = 0, 0, 0
    for path in sorted((shared_data / "samples" / "pascal-part").glob("*.mat")):
        labels = person_part.PascalPartMat()(path)
        semantic = IndexPng(tuple(range(21)))(path.with_name(f"{path.stem}.semantic.png"))
        assert labels.shape == semantic.shape
        assert labels.max() <= 6
        with_people += bool(labels.any())
        parts += int((labels > 0).sum())
        outside += int(((labels > 0) & (semantic != person) & (semantic != VOID)).sum())
    assert with_people >= 3
    # Drawn by different people: one of them took a child for a chair.
    assert outside < 0.08 * parts


def test_real_cihp_pairs_are_read(shared_data: Path, tmp_path: Path) -> None:
    samples = shared_data / "samples" / "cihp"
    names = sorted(path.stem for path in (samples / "Images").iterdir())
    for folder, split in (("Training", "train"), ("Validation", "val")):
        (tmp_path / folder).mkdir()
        for kind in ("Images", "Category_ids"):
            (tmp_path / folder / kind).symlink_to(samples / kind)
        chosen = names[:2] if split == "train" else names[2:]
        (tmp_path / folder / f"{split}_id.txt").write_text("\n".join(chosen))
    protocol = build_protocol("d2", tmp_path)
    assert len(protocol.train) == 2
    for dataset in (protocol.train, protocol.val):
        for index in range(len(dataset)):
            sample = dataset.read(index)
            assert sample.image.shape[:2] == sample.labels["parts"].shape
            assert sample.image.std() > 10
            assert len(np.unique(sample.labels["parts"])) > 5


def test_real_voc_images_are_read(shared_data: Path) -> None:
    protocol = build_protocol("voc", shared_data / "voc-animals")
    assert (len(protocol.train), len(protocol.val)) == (838, 400)
    present = set()
    for index in range(0, 400, 10):
        sample = protocol.val.read(index)
        assert sample.image.shape[:2] == sample.labels["semseg"].shape
        present |= set(np.unique(sample.labels["semseg"]).tolist())
    assert present == {0, 8, 10, 12, 13, 15, 17, VOID}


def test_real_voc_images_are_a_folder_of_seven_classes(shared_data: Path) -> None:
    protocol = build_protocol("folder", shared_data / "voc-animals")
    assert protocol.name == "voc-animals"
    assert protocol.tasks["semseg"].classes[:3] == ("background", "cat", "cow")
    whole = build_protocol("voc", shared_data / "voc-animals")
    values = np.array([0, 8, 10, 12, 13, 15, 17])
    for index in range(0, 400, 40):
        mapped = protocol.val.read(index).labels["semseg"]
        plain = whole.val.read(index).labels["semseg"]
        np.testing.assert_array_equal(np.where(mapped == VOID, VOID, values[np.minimum(mapped, 6)]), plain)
