"""Which images and labels each protocol trains and validates on."""

from pathlib import Path

import numpy as np
import pytest

from segstrat.data import PROTOCOLS, build_protocol
from segstrat.errors import UserError

FOLDER_TOML = """
name = "toy"
images = "images"
[splits]
train = "train.txt"
val = "val.txt"
[tasks.semseg]
labels = "masks"
classes = ["background", "cat"]
values = [0, 8]
ignore = [255, 9]
"""


@pytest.fixture
def toy_folder(trees) -> Path:
    trees.write("dataset.toml", FOLDER_TOML.encode())
    trees.list_ids("train.txt", ["a", "b"])
    trees.list_ids("val.txt", ["c"])
    for name in "abc":
        trees.write(f"images/{name}.jpg", trees.jpeg())
        labels = np.zeros((6, 8))
        labels[0, :3] = 8, 9, 255
        trees.write(f"masks/{name}.png", trees.index_png(labels))
    return trees.root


def test_d1_is_trainaug(official_trees: Path, official_ids) -> None:
    protocol = build_protocol("d1", official_trees)
    everything = (
        set(official_ids("voc12_seg_train")) | set(official_ids("sbd_train")) | set(official_ids("sbd_val"))
    )
    assert len(protocol.train) == 10_582
    assert set(protocol.train.ids) == everything - set(official_ids("voc12_seg_val"))
    assert set(protocol.val.ids) == set(official_ids("voc12_seg_val"))
    assert len(protocol.val) == protocol.official["val"] == 1449
    assert protocol.tasks["semseg"].num_classes == 21


def test_d1_prefers_vocs_label_where_an_image_has_both(official_trees: Path, official_ids) -> None:
    protocol = build_protocol("d1", official_trees)
    both = set(official_ids("voc12_seg_train")) & set(official_ids("sbd_train"))
    place = {name: index for index, name in enumerate(protocol.train.ids)}
    name, alone = min(both), min(set(official_ids("sbd_train")) - both - set(official_ids("voc12_seg_val")))
    # The trees label VOC's files with class 1 and SBD's with class 2.
    assert 1 in protocol.train.read(place[name]).labels["semseg"]
    assert 2 in protocol.train.read(place[alone]).labels["semseg"]


def test_d1_half_is_a_random_half(official_trees: Path) -> None:
    half = build_protocol("d1-half", official_trees)
    whole = build_protocol("d1", official_trees)
    assert len(half.train) == 5291
    assert half.digest != whole.digest
    assert half.parts == whole.parts
    kept = set(half.train.ids)
    positions = [index for index, name in enumerate(whole.train.ids) if name in kept]
    assert 0.45 < np.mean(np.array(positions) < len(whole.train) / 2) < 0.55
    assert "train" not in half.official
    assert half.official["val"] == 1449


def test_d2_is_the_published_split(trees, official_ids) -> None:
    train, val = official_ids("cihp_train"), official_ids("cihp_val")
    assert (len(train), len(val)) == (28_280, 5_000)
    trees.cihp(train[:30], val[:20])
    protocol = build_protocol("d2", trees.root)
    assert list(protocol.train.ids) == train[:30]
    assert list(protocol.val.ids) == val[:20]
    assert protocol.official == {"train": 28_280, "val": 5_000}
    assert protocol.tasks["parts"].num_classes == 20
    assert set(np.unique(protocol.val.read(0).labels["parts"])) == {19}


def test_d3_has_both_labels_of_every_image(official_trees: Path, official_ids) -> None:
    protocol = build_protocol("d3", official_trees)
    assert set(protocol.train.ids) == set(official_ids("ppp_train")) & set(official_ids("sbd_train"))
    assert set(protocol.val.ids) == set(official_ids("ppp_val")) & set(official_ids("sbd_val"))
    assert (len(protocol.train), len(protocol.val)) == (1695, 893)
    assert set(protocol.train.tasks_of(5)) == {"semseg", "parts"}
    labels = protocol.train.read(5).labels
    assert set(np.unique(labels["semseg"])) == {2}
    assert set(np.unique(labels["parts"])) == {6}


def test_d1_and_d2_label_each_image_for_one_task(trees) -> None:
    trees.voc(["v1", "v2"], ["v3"])
    trees.sbd(["s1", "v3"], ["v1"])
    trees.cihp(["c1"], ["c2"])
    protocol = build_protocol("d1+d2", trees.root)
    assert protocol.train.ids == ("v1", "v2", "s1", "c1")
    assert [protocol.train.tasks_of(index) for index in range(4)] == [("semseg",)] * 3 + [("parts",)]
    assert protocol.val.ids == ("v3", "c2")
    assert list(protocol.tasks) == ["semseg", "parts"]


def test_one_task_of_d1_and_d2_is_one_of_them(trees) -> None:
    trees.voc(["v1"], ["v2"])
    trees.sbd(["s1"], ["s2"])
    trees.cihp(["c1"], ["c2"])
    protocol = build_protocol("d1+d2", trees.root, tasks=["parts"])
    assert tuple(protocol.train.ids) == ("c1",)
    assert list(protocol.tasks) == ["parts"]


def test_tasks_come_in_the_order_that_was_asked_for(trees) -> None:
    trees.sbd(["x"], ["y"])
    trees.person_part(["x"], ["y"])
    protocol = build_protocol("d3", trees.root, tasks=["parts", "boundaries", "semseg"])
    assert list(protocol.tasks) == ["parts", "boundaries", "semseg"]
    assert protocol.train.tasks_of(0) == ("parts", "boundaries", "semseg")
    assert build_protocol("d3", trees.root, tasks=["boundaries"]).train.tasks_of(0) == ("boundaries",)


def test_boundaries_need_semantic_labels(trees) -> None:
    trees.cihp(["c1"], ["c2"])
    with pytest.raises(UserError, match=r"unknown task of protocol d2 'boundaries'.*Known: parts"):
        build_protocol("d2", trees.root, tasks=["boundaries"])


def test_a_protocol_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data protocol 'figure': did you mean 'figures'"):
        build_protocol("figure")


def test_every_protocol_of_published_data_asks_for_a_root() -> None:
    for name in set(PROTOCOLS) - {"figures"}:
        with pytest.raises(UserError, match="needs a data root"):
            build_protocol(name)


def test_a_data_set_that_is_not_there_says_what_is_looked_for(trees) -> None:
    trees.voc(["v1"], ["v2"])
    with pytest.raises(UserError, match=r"no SBD in .*: expected a folder with img/, cls/"):
        build_protocol("d1", trees.root)


def test_a_data_set_that_is_there_twice_is_not_guessed_at(trees) -> None:
    trees.voc(["v1"], ["v2"], top="first")
    trees.voc(["v1"], ["v2"], top="second")
    with pytest.raises(UserError, match="contains VOC 2012 2 times"):
        build_protocol("voc", trees.root)
    trees.voc(["v3"], ["v2"], top="VOCdevkit/VOC2012")
    assert tuple(build_protocol("voc", trees.root).train.ids) == ("v3",)


def test_the_data_root_may_be_the_data_set_itself(trees) -> None:
    trees.voc(["v1"], ["v2"])
    assert tuple(build_protocol("voc", trees.root / "VOCdevkit/VOC2012").val.ids) == ("v2",)


@pytest.mark.usefixtures("few_figures")
def test_figures_have_both_labels_and_are_called_synthetic(tmp_path: Path) -> None:
    protocol = build_protocol("figures", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert protocol.synthetic
    assert protocol.test is not None
    assert not set(protocol.train.ids) & set(protocol.val.ids)
    sample = protocol.train.read(0)
    assert set(sample.labels) == {"semseg", "parts"}
    for task, labels in sample.labels.items():
        assert labels.shape == sample.image.shape[:2]
        assert labels[labels != 255].max() < protocol.tasks[task].num_classes


def test_a_folder_is_read_as_its_toml_says(toy_folder: Path) -> None:
    protocol = build_protocol("folder", toy_folder)
    assert protocol.name == "toy"
    assert protocol.tasks["semseg"].classes == ("background", "cat")
    assert protocol.train.ids == ("a", "b")
    assert protocol.train.read(0).labels["semseg"][0, :4].tolist() == [1, 255, 255, 0]
    assert not protocol.official


def test_a_folders_paths_may_lead_elsewhere(toy_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "description"
    other.mkdir()
    (other / "dataset.toml").write_text(f'root = "{toy_folder}"\n{FOLDER_TOML}')
    assert build_protocol("folder", other).val.ids == ("c",)
    absolute = FOLDER_TOML.replace('"images"', f'"{toy_folder}/images"').replace(
        '"masks"', f'"{toy_folder}/masks"'
    )
    (other / "dataset.toml").write_text(absolute)
    (other / "train.txt").write_text("b\n")
    (other / "val.txt").write_text("c\n")
    assert build_protocol("folder", other).train.ids == ("b",)


def test_images_of_a_folder_may_be_labelled_for_some_tasks(toy_folder: Path, trees) -> None:
    parts = '[tasks.parts]\nlabels = "parts"\nclasses = ["background", "leg", "arm"]\n'
    (toy_folder / "dataset.toml").write_text(FOLDER_TOML + parts)
    for name in "bc":
        trees.write(f"parts/{name}.png", trees.index_png(np.full((6, 8), 2)))
    protocol = build_protocol("folder", toy_folder)
    assert [protocol.train.tasks_of(index) for index in range(2)] == [("semseg",), ("semseg", "parts")]
    assert tuple(build_protocol("folder", toy_folder, tasks=["parts"]).train.ids) == ("b",)


def test_a_task_needs_training_and_validation_images_but_no_test_images(toy_folder: Path, trees) -> None:
    parts = '[tasks.parts]\nlabels = "parts"\nclasses = ["background", "leg", "arm"]\n'
    with_test = FOLDER_TOML.replace("[tasks", 'test = "test.txt"\n[tasks', 1)
    (toy_folder / "dataset.toml").write_text(with_test + parts)
    trees.list_ids("test.txt", ["a"])
    trees.write("parts/b.png", trees.index_png(np.zeros((6, 8))))
    with pytest.raises(UserError, match="no image of val is labelled for parts"):
        build_protocol("folder", toy_folder, tasks=["parts"])
    trees.write("parts/c.png", trees.index_png(np.zeros((6, 8))))
    assert build_protocol("folder", toy_folder, tasks=["parts"]).test is None
    test = build_protocol("folder", toy_folder).test
    assert test is not None
    assert test.ids == ("a",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('images = "images"', 'image = "images"', r"unknown key image; did you mean 'images'\?"),
        ('images = "images"', "", "images must be a string, it is missing"),
        ('"cat"]', '"cat", "dog"]', "values has 2 entries for 3 classes"),
        ("[0, 8]", "[0, 70000]", "must be whole numbers from 0 to 65535"),
        ("[255, 9]", "[255, 8]", "share a value"),
        ("[0, 8]", '"0 8"', "values must be a list, found '0 8'"),
        ("[tasks.semseg]", "[task.semseg]", "unknown key task; did you mean 'tasks'"),
        ('name = "toy"', "name = toy", "cannot be read"),
        ('val = "val.txt"', "", "splits.val must be a string, it is missing"),
    ],
)
def test_a_wrong_dataset_toml_is_explained(toy_folder: Path, old: str, new: str, message: str) -> None:
    assert old in FOLDER_TOML
    (toy_folder / "dataset.toml").write_text(FOLDER_TOML.replace(old, new))
    with pytest.raises(UserError, match=message) as raised:
        build_protocol("folder", toy_folder)
    assert str(toy_folder / "dataset.toml") in str(raised.value)


def test_a_folder_without_a_description_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.toml is missing"):
        build_protocol("folder", tmp_path)
