"""Pre-training of backbones: learning, exact resume, and the file that it leaves."""

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.models import build_backbone
from segstrat.models.weights import load_backbone_weights
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.job import PretrainReport
from segstrat.pretraining.loop import (
    build_classifier,
    pretrain,
    pretrain_steps,
    run_key,
    state_store,
    to_the_end,
)
from segstrat.pretraining.recipe import Recipe
from segstrat.store import Store

TINY = Recipe(
    epochs=3, batch_size=8, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)
WIDTH = 0.125


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ClassificationData:
    """Noise in one channel, which is the class: 24 + 12 images of 32 pixels, three classes."""
    root = tmp_path_factory.mktemp("tints")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] = rng.integers(50, 256, (32, 32))
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_classification(root)


def run(
    data: ClassificationData,
    out: Path,
    *,
    recipe: Recipe = TINY,
    epochs: int | None = None,
    resume: bool = False,
) -> list[PretrainReport]:
    model = build_classifier("resnet18", WIDTH, len(data.classes), recipe)
    return list(islice(pretrain(model, data, recipe, out, resume=resume), epochs))


def states(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(reports: list[PretrainReport]) -> list[PretrainReport]:
    return [dataclasses.replace(report, seconds=0) for report in reports]


def test_it_learns_and_its_file_loads_into_a_backbone(data: ClassificationData, tmp_path: Path) -> None:
    # Enough steps that 16 other seeds, in float32 and in bfloat16, classified every image as well.
    recipe = dataclasses.replace(TINY, epochs=40)
    reports = run(data, tmp_path / "w.pth", recipe=recipe)
    assert [report.epoch for report in reports] == list(range(1, 41))
    assert reports[-1].train_loss < reports[0].train_loss - 0.2
    assert reports[-1].top1 == 1.0
    assert reports[-1].top5 == 1.0
    backbone = build_backbone("resnet18", WIDTH)
    load_backbone_weights(backbone, str(tmp_path / "w.pth"))
    assert same(dict(backbone.state_dict()), states(tmp_path / "w.pth"))
    assert not same(dict(build_backbone("resnet18", WIDTH).state_dict()), states(tmp_path / "w.pth"))
    about = torch.load(tmp_path / "w.pth", weights_only=True)["about"]
    assert about["data_digest"] == data.digest
    assert about["recipe"] == dataclasses.asdict(recipe)
    assert about["top1"] == reports[-1].top1
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_run_ends_bit_identical(data: ClassificationData, tmp_path: Path, done: int) -> None:
    whole = run(data, tmp_path / "whole.pth")
    first = run(data, tmp_path / "cut.pth", epochs=done)
    assert not (tmp_path / "cut.pth").exists()
    rest = run(data, tmp_path / "cut.pth", resume=True)
    assert without_time(first + rest) == without_time(whole)
    assert same(states(tmp_path / "cut.pth"), states(tmp_path / "whole.pth"))
    assert not state_store(tmp_path / "cut.pth").exists()


def test_a_run_that_is_ended_within_an_epoch_continues_at_its_beginning(
    data: ClassificationData, tmp_path: Path
) -> None:
    whole = run(data, tmp_path / "whole.pth")
    model = build_classifier("resnet18", WIDTH, len(data.classes), TINY)
    out, elsewhere = tmp_path / "cut.pth", Store(tmp_path / "shared" / "cut.pth.state")
    steps = pretrain_steps(model, data, TINY, out, states=elsewhere)
    seen = list(islice(steps, 7))
    # Three training batches and two of validation, then the report.
    assert seen[:5] == [None] * 5
    assert without_time([seen[5]]) == without_time(whole[:1])
    steps.close()
    model = build_classifier("resnet18", WIDTH, len(data.classes), TINY)
    rest = [each for each in pretrain_steps(model, data, TINY, out, resume=True, states=elsewhere) if each]
    assert without_time(rest) == without_time(whole[1:])
    assert same(states(out), states(tmp_path / "whole.pth"))
    assert not elsewhere.exists()
    assert not state_store(out).exists()


def test_a_damaged_state_costs_one_epoch(data: ClassificationData, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "whole.pth")
    run(data, tmp_path / "cut.pth", epochs=2)
    newest = state_store(tmp_path / "cut.pth").local_path / "checkpoint-000002.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    rest = run(data, tmp_path / "cut.pth", resume=True)
    assert without_time(rest) == without_time(whole[1:])
    assert same(states(tmp_path / "cut.pth"), states(tmp_path / "whole.pth"))


def test_the_state_of_another_run_is_refused(data: ClassificationData, tmp_path: Path) -> None:
    run(data, tmp_path / "w.pth", epochs=1)
    other = dataclasses.replace(TINY, weight_decay=1e-3)
    with pytest.raises(UserError, match="another backbone, width, data set, recipe or code"):
        run(data, tmp_path / "w.pth", recipe=other, resume=True)


CHANGES = {
    "epochs": 2, "batch_size": 6, "learning_rate": 0.02, "warmup_epochs": 0, "crop_size": 48,
    "smallest_crop": 0.2, "momentum": 0.5, "weight_decay": 0.1, "label_smoothing": 0.0, "seed": 1,
}  # fmt: skip


def test_every_field_of_the_recipe_changes_the_weights(data: ClassificationData, tmp_path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    # `resize` changes the evaluation alone, and `dropout` only backbones that have some inside.
    assert fields == CHANGES.keys() | {"resize", "dropout"}
    plain = dataclasses.replace(TINY, epochs=1, resize=48)
    run(data, tmp_path / "plain.pth", recipe=plain)
    before = states(tmp_path / "plain.pth")
    model = build_classifier("resnet18", WIDTH, 3, plain)
    for name, value in CHANGES.items():
        recipe = dataclasses.replace(plain, **{name: value})
        run(data, tmp_path / f"{name}.pth", recipe=recipe)
        assert not same(states(tmp_path / f"{name}.pth"), before), name
        assert run_key(model, data, recipe) != run_key(model, data, plain), name


def test_resize_changes_what_is_evaluated(data: ClassificationData) -> None:
    model = build_classifier("resnet18", WIDTH, 3, TINY)
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for resize in (32, 64):
        resized = dataclasses.replace(TINY, resize=resize, batch_size=12)
        to_the_end(model.evaluate(data.val, resized, Machine()))
    whole, middle = seen
    assert whole.shape == middle.shape == (12, 3, 32, 32)
    # At twice the size the middle half of the image is seen: smooth where the whole one is noise.
    assert middle.diff(dim=3).abs().mean() < 0.7 * whole.diff(dim=3).abs().mean()


def test_dropout_is_built_where_the_backbone_has_some() -> None:
    model = build_classifier("sunet64", WIDTH, 3, dataclasses.replace(TINY, dropout=0.3))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


def test_width_changes_the_network_and_the_key(data: ClassificationData) -> None:
    small, large = (build_classifier("resnet18", width, 3, TINY) for width in (0.1, 0.2))
    assert large.linear.in_features > small.linear.in_features
    assert run_key(small, data, TINY) != run_key(large, data, TINY)


@pytest.mark.parametrize("width", [0.0, -1.0, 5.0, float("nan")])
def test_a_width_out_of_range_is_named(width: float) -> None:
    with pytest.raises(UserError, match=r"width .*: expected a number in \(0, 4\]"):
        build_classifier("resnet18", width, 3, TINY)


def test_a_diverging_run_ends_with_the_epoch_and_what_to_do(data: ClassificationData, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(UserError, match=r"resnet18 diverged in epoch 1: .*lower its learning rate"):
        run(data, tmp_path / "w.pth", recipe=recipe)
    assert not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize("backbone", ["sunet64", "squeezenet1_1", "alexnet", "vgg16_bn", "resnet50"])
def test_every_family_of_backbones_is_trained(
    backbone: str, data: ClassificationData, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(TINY, epochs=1, learning_rate=1e-3, crop_size=64, resize=64)
    model = build_classifier(backbone, WIDTH, len(data.classes), recipe)
    before = {name: value.clone() for name, value in model.backbone.named_parameters()}
    list(pretrain(model, data, recipe, tmp_path / "w.pth"))
    after = states(tmp_path / "w.pth")
    still = [name for name, value in before.items() if value.dim() > 1 and torch.equal(value, after[name])]
    assert not still
    load_backbone_weights(build_backbone(backbone, WIDTH), str(tmp_path / "w.pth"))


def test_images_that_are_too_small_for_a_backbone_are_named(data: ClassificationData, tmp_path: Path) -> None:
    model = build_classifier("alexnet", WIDTH, 3, TINY)
    with pytest.raises(
        UserError, match=f"crops of 32 pixels .* alexnet, which needs {model.backbone.min_size}"
    ):
        list(pretrain(model, data, TINY, tmp_path / "w.pth"))
