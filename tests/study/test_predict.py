import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.checkpoint import save_checkpoint
from segstrat.config import TrialConfig
from segstrat.data import build_protocol
from segstrat.data.palette import label_palette
from segstrat.errors import UserError
from segstrat.models import build_model
from segstrat.predict import load_trial, predict
from segstrat.prediction_files import (
    MapFiles,
    SplitScores,
    folder_images,
    read_images,
    study_of,
    trial_store,
)
from segstrat.store import Store
from segstrat.tasks import Task
from study.predict import main

TASKS = {
    "semseg": Task("semseg", ["background", "cat", "cow"]),
    "parts": Task("parts", ["none", "left arm", "right arm"]),
}


@pytest.fixture
def trial_folder(tmp_path):
    """results/study/trials/abc with one checkpoint of an untrained model of both tasks."""
    config = TrialConfig(tasks=("semseg", "parts"), model="fcn8s", width=0.125, crop_size=64)
    model = build_model(config, TASKS)
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    state = {
        "config": config.to_dict(),
        "tasks": {name: list(task.classes) for name, task in TASKS.items()},
        "model": model.state_dict(),
    }
    folder = tmp_path / "results" / "study" / "trials" / "abc"
    save_checkpoint(Store(folder), 3, state, best_epoch=3)
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (70, 91)), ("b", (40, 33)), ("tiny", (9, 12))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def test_maps_are_what_the_evaluation_server_wants(trial_folder, images, tmp_path):
    out = tmp_path / "out"
    short = trial_folder.parents[1] / "abc"
    assert main(["--trial", str(short), "--images", str(images), "--out", str(out)]) == 0
    found = sorted(path.name for path in (out / "results/VOC2012/Segmentation/comp6_test_cls").iterdir())
    assert found == ["a.png", "b.png", "tiny.png"]
    for task in ("results/VOC2012/Segmentation/comp6_test_cls", "parts"):
        with Image.open(out / task / "a.png") as index:
            assert index.mode == "P"
            assert index.size == (91, 70)
            assert np.asarray(index).max() < 3
            assert index.getpalette()[:9] == label_palette(TASKS["semseg"].classes)[:3].ravel().tolist()
    assert (out / "overlays" / "semseg" / "tiny.jpg").is_file()


def test_the_map_is_the_argmax_of_the_logits(trial_folder, images):
    trial = load_trial(trial_folder)
    image = np.asarray(Image.open(images / "a.png"))
    found = predict(trial, image)["semseg"]
    from segstrat.data.loading.batch import normalize

    with torch.inference_mode():
        logits = trial.model(normalize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]))["semseg"]
    np.testing.assert_array_equal(found, logits[0].argmax(0).numpy())
    assert len(np.unique(found)) > 1


def test_flip_averages_and_swaps_left_and_right(trial_folder, images):
    """With averaging over the mirror, the map of a mirrored image is the mirrored map, sides swapped."""
    trial = load_trial(trial_folder)
    image = np.asarray(Image.open(images / "a.png"))
    straight = predict(trial, image, flip=True)
    mirrored = predict(trial, np.ascontiguousarray(image[:, ::-1]), flip=True)
    np.testing.assert_array_equal(mirrored["semseg"], straight["semseg"][:, ::-1])
    swapped = np.array([0, 2, 1], dtype=np.uint8)[straight["parts"]][:, ::-1]
    # Where left and right are exactly as likely, both maps say the first.
    assert (mirrored["parts"] == swapped).mean() > 0.99
    assert (mirrored["parts"] == straight["parts"][:, ::-1]).mean() < 0.9
    assert (predict(trial, image)["parts"] != straight["parts"]).any()


def test_scales_change_the_map_and_keep_its_size(trial_folder, images):
    trial = load_trial(trial_folder)
    image = np.asarray(Image.open(images / "a.png"))
    several = predict(trial, image, scales=(0.5, 1.0, 1.5))["semseg"]
    assert several.shape == image.shape[:2]
    assert (several != predict(trial, image)["semseg"]).any()


def test_a_damaged_checkpoint_is_refused(trial_folder, images, tmp_path, capsys):
    path = trial_folder / "checkpoint-000003.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    arguments = ["--trial", str(trial_folder), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "does not match its digest" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_a_digest_is_refused(trial_folder):
    (trial_folder / "checkpoint-000003.pt.sha256").unlink()
    with pytest.raises(UserError, match="sha256 is missing"):
        load_trial(trial_folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trial", "{trial}", "--out", "out"], "one of --images DIR and --split"),
        (["--trial", "{trial}", "--images", "{images}", "--split", "val", "--out", "out"], "one of --images"),
        (["--trial", "nowhere/xyz", "--images", "{images}", "--out", "out"], "no such trial"),
        (["--trial", "{trial}", "--images", "nowhere", "--out", "out"], "no such folder"),
        (
            ["--trial", "{trial}", "--images", "{images}", "--out", "out", "--checkpoint", "x.pt"],
            "it has checkpoint-000003.pt",
        ),
        (["--gallery", "{images}"], "no frames"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(trial_folder, images, capsys, arguments, words):
    filled = [each.format(trial=trial_folder, images=images) for each in arguments]
    assert main(filled) == 2
    assert words in capsys.readouterr().err


def test_unreadable_and_ambiguous_images_are_named(images, trial_folder, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(images / "a.jpg")
    with pytest.raises(UserError, match="two files are called a"):
        folder_images(images)
    (images / "a.jpg").write_bytes(b"no image")
    (images / "a.png").unlink()
    assert main(["--trial", str(trial_folder), "--images", str(images), "--out", str(tmp_path / "o")]) == 2
    assert "a.jpg is not an image that can be read" in capsys.readouterr().err


def test_both_ways_to_name_a_trial(trial_folder):
    short = trial_folder.parents[1] / trial_folder.name
    assert trial_store(str(short)).local_path == trial_folder
    assert trial_store(str(trial_folder)).local_path == trial_folder


def test_the_checkpoint_decides_the_config(trial_folder):
    trial = load_trial(trial_folder)
    assert trial.config.model == "fcn8s"
    assert list(trial.tasks) == ["semseg", "parts"]
    assert not trial.model.training
    json.dumps(trial.config.to_dict())


@pytest.fixture
def own_data(tmp_path):
    """Six images of one's own with a test split; class 0 is no background."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name in "abcdef":
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(root / "images" / f"{name}.png")
        label = rng.integers(0, 3, (40, 48), np.uint8)
        label[:4] = 255
        Image.fromarray(label).save(root / "labels" / f"{name}.png")
    for split, names in (("train", "ab"), ("val", "cd"), ("test", "ef")):
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
    (root / "dataset.toml").write_text(
        'name = "mine"\nimages = "images"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        'test = "test.txt"\n[tasks.semseg]\nlabels = "labels"\nclasses = ["road", "car", "tree"]\n'
    )
    return root


def test_the_test_split_needs_no_data_root_and_is_scored(own_data, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SEGSTRAT_DATA", raising=False)
    tasks = {"semseg": Task("semseg", ["road", "car", "tree"])}
    config = TrialConfig(data="folder", model="fcn32s", width=0.125, crop_size=32)
    torch.manual_seed(0)
    model = build_model(config, tasks)
    state = {
        "config": config.to_dict(),
        "tasks": {"semseg": ["road", "car", "tree"]},
        "model": model.state_dict(),
    }
    study = tmp_path / "results" / "study"
    save_checkpoint(Store(study / "trials" / "abc"), 1, state, best_epoch=1)
    manifest = {"schema": 1, "study": "study", "space": "mine", "trials": []}
    manifest |= {"data": {"name": "folder", "root": str(own_data)}}
    (study / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "out"
    arguments = ["--trial", str(study / "abc"), "--split", "test", "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    folder = out / "folder" / "semseg"
    assert f"label maps of semseg: {folder}" in printed
    assert f"overlays of semseg: {out}/overlays/semseg" in printed

    hits, union = np.zeros(3), np.zeros(3)
    for sample in map(build_protocol("folder", own_data).test.read, range(2)):
        label = sample.labels["semseg"]
        found = np.asarray(Image.open(folder / f"{sample.id}.png"))[label != 255]
        label = label[label != 255]
        for k in range(3):
            hits[k] += ((found == k) & (label == k)).sum()
            union[k] += ((found == k) | (label == k)).sum()
    score = float(re.search(r"semseg: mIoU (\d\.\d+)", printed)[1])
    assert score == pytest.approx((hits / union).mean(), abs=5e-5)


def test_class_0_is_tinted_where_it_is_no_background(tmp_path):
    image, zeros = np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8), np.uint8)
    files = MapFiles(tmp_path, "comp6")
    overlays = {}
    for name, classes in (("plain", ["background", "cat"]), ("tinted", ["road", "car"])):
        files.write(name, image, {"semseg": zeros}, {"semseg": Task("semseg", classes)})
        overlays[name] = np.asarray(Image.open(files.overlays("semseg") / f"{name}.jpg")).astype(int)
    assert abs(overlays["plain"] - 200).max() <= 2
    assert abs(overlays["tinted"] - 200).max() > 50


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (None, [[0, 1]]),
        ((0, 255), [[0, 255]]),
        ((7, 1000), [[7, 1000]]),
        (((128, 64, 128), (0, 0, 9)), [[[128, 64, 128], [0, 0, 9]]]),
    ],
)
def test_own_data_gets_its_own_values_in_a_folder_of_its_name(tmp_path, values, stored):
    files = MapFiles(tmp_path, "comp6", data="my data/2024")
    task = Task("semseg", ["no", "yes"], values=values)
    files.write(
        "a", np.zeros((1, 2, 3), np.uint8), {"semseg": np.array([[0, 1]], np.uint8)}, {"semseg": task}
    )
    assert files.maps("semseg") == tmp_path / "my-data-2024" / "semseg"
    with Image.open(files.maps("semseg") / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), stored)


def test_swaps_and_values_are_in_the_checkpoint(tmp_path):
    tasks = {"semseg": Task("semseg", ["a", "l", "r"], swap=[("l", "r")], values=[0, 10, 20])}
    config = TrialConfig(data="folder", model="fcn32s", width=0.125, crop_size=32)
    state = {
        "config": config.to_dict(),
        "tasks": {"semseg": ["a", "l", "r"]},
        "labels": {"semseg": {"swap": tasks["semseg"].swap, "values": tasks["semseg"].values}},
        "model": build_model(config, tasks).state_dict(),
    }
    save_checkpoint(Store(tmp_path), 1, state, best_epoch=1)
    assert load_trial(tmp_path).tasks == tasks


def test_images_to_predict_are_read_as_those_to_train(tmp_path):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
    Image.fromarray(deep).save(tmp_path / "a.png")
    picture = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "b.jpg", exif=exif)
    pixels = dict(read_images(folder_images(tmp_path), 4032))
    assert pixels["a"].max() == 255
    assert len(np.unique(pixels["a"])) == 64
    assert pixels["b"].shape == (8, 4, 3)


def test_a_task_without_labels_has_no_score():
    scores = SplitScores(TASKS)
    scores.add({"semseg": np.ones((2, 2)), "parts": np.ones((2, 2))}, {"semseg": np.ones((2, 2))})
    (line,) = scores.lines()
    assert line.startswith("semseg: mIoU 1.0000")


def test_the_study_of_a_trial(trial_folder):
    study = study_of(Store(trial_folder))
    assert study is not None
    assert study.local_path == trial_folder.parents[1]
    assert study_of(Store(trial_folder.parents[1])) is None


@pytest.mark.parametrize("arguments", [[], ["--trial", "a", "--gallery", "b"], ["--tial", "x"]])
def test_a_wrong_command_line_prints_one_sentence_and_no_usage(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.gpu
def test_a_gpu_predicts_what_the_cpu_does(trial_folder):
    """Shows that no tensor of a prediction stays on the other device, and that rounding alone differs."""
    image = np.random.default_rng(0).integers(0, 255, (70, 91, 3), dtype=np.uint8)
    on_cpu, on_gpu = (
        predict(load_trial(trial_folder, device), image, scales=(0.75, 1.0), flip=True)
        for device in ("cpu", "cuda")
    )
    for task, labels in on_cpu.items():
        assert (labels == on_gpu[task]).mean() > 0.99
