import json

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.checkpoint import save_checkpoint
from segstrat.config import TrialConfig
from segstrat.data.palette import voc_palette
from segstrat.errors import UserError
from segstrat.models import build_model
from segstrat.predict import load_trial, predict
from segstrat.prediction_files import folder_images, trial_store
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
            assert index.getpalette()[:9] == voc_palette()[:3].ravel().tolist()
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
    assert "a.jpg cannot be read" in capsys.readouterr().err


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
