"""Masked reconstruction: what is masked, what it learns, exact resume, and the file that it leaves."""

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
from segstrat.models.weights import load_backbone_weights, read_about
from segstrat.pretraining.batches import train_batches
from segstrat.pretraining.images import UnlabelledData
from segstrat.pretraining.job import PretrainReport, SelfSource, probe_words
from segstrat.pretraining.loop import pretrain, pretrain_steps, run_key, state_store, to_the_end
from segstrat.pretraining.masked import (
    build_masked,
    calibrate,
    draw_masks,
    linear_probe,
    mean_color,
    nearest_patch,
)
from segstrat.pretraining.recipe import EPOCHS, MaskedRecipe, masked_recipe_for

TINY = MaskedRecipe(
    epochs=3,
    batch_size=8,
    learning_rate=2e-3,
    warmup_epochs=1,
    crop_size=32,
    resize=32,
    smallest_crop=0.5,
    weight_decay=0.05,
    patch=8,
    decoder_channels=8,
)
WIDTH = 0.125
# As studies pre-train on every CPU.
ONE_CORE = Machine(threads=1, precision="float32")


def write_ramps(folder: Path, count: int, size: int = 40) -> Path:
    """Images whose brightness rises linearly in a random direction: each pixel follows from any others."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    for number in range(count):
        a, b = rng.uniform(-60, 60, 2)
        grey = (128 + a * x + b * y).astype(np.uint8)
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> UnlabelledData:
    return SelfSource(folder=str(write_ramps(tmp_path_factory.mktemp("images") / "ramps", 30))).open()


def run(
    data: UnlabelledData,
    out: Path,
    *,
    recipe: MaskedRecipe = TINY,
    epochs: int | None = None,
    resume: bool = False,
) -> list[PretrainReport]:
    model = build_masked("resnet18", WIDTH, recipe)
    return list(islice(pretrain(model, data, recipe, out, machine=ONE_CORE, resume=resume), epochs))


def states(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(reports: list[PretrainReport]) -> list[PretrainReport]:
    return [dataclasses.replace(report, seconds=0) for report in reports]


def test_masks_are_whole_patches_equally_many_in_every_image() -> None:
    masks = draw_masks(np.random.default_rng(0), 5, 20, 8, 0.6)
    assert masks.shape == (5, 1, 20, 20)
    assert masks.dtype == torch.bool
    corners = masks[:, 0, ::8, ::8]
    assert corners.sum((1, 2)).tolist() == [5] * 5, "round(0.6 × 9)"
    whole = corners.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :20, :20]
    assert torch.equal(masks[:, 0], whole)
    assert len({tuple(corner.flatten().tolist()) for corner in corners}) > 1
    assert torch.equal(masks, draw_masks(np.random.default_rng(0), 5, 20, 8, 0.6))


def test_the_simple_fillings_are_the_mean_color_and_the_nearest_patch() -> None:
    image = torch.arange(4.0).repeat_interleave(2).repeat(1, 3, 2, 1)  # columns 0 0 1 1 2 2 3 3
    mask = torch.zeros(1, 1, 2, 8, dtype=torch.bool)
    mask[..., 2:6] = True
    assert mean_color(image, mask)[0, 0, 0].tolist() == [0, 0, 1.5, 1.5, 1.5, 1.5, 3, 3]
    square = torch.zeros(1, 3, 8, 8)
    square[..., :2, :2], square[..., 6:, 6:] = 1.0, 2.0
    hidden = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    hidden[..., :2, :2] = hidden[..., 6:, 6:] = False
    filled = nearest_patch(square, hidden, 2)[0, 0, ::2, ::2]
    assert filled.tolist() == [[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 2, 2], [1, 2, 2, 2]]


def test_it_fills_in_better_than_the_mean_color_and_the_nearest_patch(
    data: UnlabelledData, tmp_path: Path
) -> None:
    # With half of four patches hidden, copying is worse than the mean color.
    recipe = dataclasses.replace(
        TINY, epochs=40, decoder_channels=32, patch=16, mask_share=0.5, filled_share=1.0
    )
    reports = run(data, tmp_path / "w.pth", recipe=recipe)
    about = read_about(tmp_path / "w.pth")
    assert reports[-1].error is not None
    assert reports[-1].error < 0.9 * min(1.0, about["nearest_patch_error"])
    assert reports[-1].train_loss < 0.5 * reports[0].train_loss
    assert about["error"] == reports[-1].error
    assert str(reports[-1]) == f"reconstruction error {reports[-1].error:.3f}"
    assert reports[-1].scores.keys() == {"error"}
    backbone = build_backbone("resnet18", WIDTH)
    load_backbone_weights(backbone, str(tmp_path / "w.pth"))
    assert same(dict(backbone.state_dict()), states(tmp_path / "w.pth"))


def test_turns_are_found_where_images_have_an_upper_side(tmp_path: Path) -> None:
    folder = tmp_path / "skies"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        rows = np.linspace(255, 0, 40)[:, None, None] + rng.normal(0, 20, (40, 40, 3))
        Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    opened = SelfSource(folder=str(folder)).open()
    for weight, enough in ((1.0, True), (0.0, False)):
        out = tmp_path / f"{weight}.pth"
        run(opened, out, recipe=dataclasses.replace(TINY, epochs=12, turn_weight=weight))
        assert (read_about(out)["turns_found"] > 0.9) == enough


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_run_ends_bit_identical(data: UnlabelledData, tmp_path: Path, done: int) -> None:
    whole = run(data, tmp_path / "whole.pth")
    first = run(data, tmp_path / "cut.pth", epochs=done)
    assert not (tmp_path / "cut.pth").exists()
    torch.manual_seed(99)
    rest = run(data, tmp_path / "cut.pth", resume=True)
    assert without_time(first + rest) == without_time(whole)
    assert same(states(tmp_path / "cut.pth"), states(tmp_path / "whole.pth"))
    assert read_about(tmp_path / "cut.pth") == read_about(tmp_path / "whole.pth")
    assert not state_store(tmp_path / "cut.pth").exists()


@pytest.mark.parametrize("steps", [2, 9, -1])
def test_a_run_that_is_killed_within_an_epoch_or_at_its_end_ends_bit_identical(
    data: UnlabelledData, tmp_path: Path, steps: int
) -> None:
    run(data, tmp_path / "whole.pth")
    out = tmp_path / "cut.pth"

    def begin(*, resume: bool) -> list[PretrainReport | None]:
        model = build_masked("resnet18", WIDTH, TINY)
        return pretrain_steps(model, data, TINY, out, machine=ONE_CORE, resume=resume)

    total = len(list(begin(resume=False)))
    out.unlink()
    seen = begin(resume=False)
    list(islice(seen, steps % total))
    seen.close()
    assert not out.exists()
    list(begin(resume=True))
    assert same(states(out), states(tmp_path / "whole.pth"))


CHANGES = {
    "epochs": 2, "batch_size": 6, "learning_rate": 0.02, "warmup_epochs": 0, "crop_size": 40,
    "smallest_crop": 0.2, "momentum": 0.5, "weight_decay": 0.9, "seed": 1, "mask_share": 0.3, "patch": 4,
    "decoder_channels": 4, "turn_weight": 0.0, "filled_share": 0.75,
}  # fmt: skip


def test_every_field_of_the_recipe_changes_the_weights(data: UnlabelledData, tmp_path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(MaskedRecipe)}
    # `resize` changes the evaluation alone, `dropout` only backbones with some; no label can be smoothed.
    assert fields == CHANGES.keys() | {"resize", "dropout", "label_smoothing"}
    plain = dataclasses.replace(TINY, epochs=1, resize=40)
    run(data, tmp_path / "plain.pth", recipe=plain)
    before = states(tmp_path / "plain.pth")
    for name, value in CHANGES.items():
        recipe = dataclasses.replace(plain, **{name: value})
        run(data, tmp_path / f"{name}.pth", recipe=recipe)
        assert not same(states(tmp_path / f"{name}.pth"), before), name
        models = [build_masked("resnet18", WIDTH, each) for each in (plain, recipe)]
        assert run_key(models[0], data, plain) != run_key(models[1], data, recipe), name


def test_batch_norms_have_the_statistics_of_whole_images(data: UnlabelledData) -> None:
    model = build_masked("resnet18", WIDTH, TINY)
    momentum = model.backbone.bn1.momentum
    to_the_end(calibrate(model, data.train, TINY, ONE_CORE))
    batches = train_batches(
        data.train, batch_size=8, crop_size=32, smallest_crop=0.5, seed=0, epoch=3, threads=1
    )
    with torch.no_grad():
        means = [
            model.backbone.conv1(model.standardized(images, torch.device("cpu"))).mean((0, 2, 3))
            for images, _ in batches
        ]
    torch.testing.assert_close(model.backbone.bn1.running_mean, torch.stack(means).mean(0))
    assert model.backbone.bn1.momentum == momentum


def test_a_linear_probe_finds_classes_that_features_tell_apart(tmp_path: Path) -> None:
    root = tmp_path / "tints"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for channel, name in enumerate(("red", "green")):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = np.zeros((32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] = rng.integers(50, 256, (32, 32))
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    source = SelfSource(folder=str(root), epochs=1)
    opened = source.open()
    assert len(opened.train) + len(opened.val) == 16, "those of val/ are not learned from"
    assert opened.probe is not None
    accuracy = to_the_end(linear_probe(build_masked("resnet18", WIDTH, TINY), opened.probe, TINY, ONE_CORE))
    assert accuracy > 0.9
    run(opened, tmp_path / "w.pth", recipe=dataclasses.replace(TINY, epochs=1))
    about = read_about(tmp_path / "w.pth")
    assert probe_words(about).startswith("linear probe ")
    assert 0 <= about["probe_of_random_features"] <= 1


@pytest.mark.parametrize("backbone", ["sunet64", "squeezenet1_1", "alexnet", "vgg16_bn", "resnet50"])
def test_every_family_of_backbones_is_trained(backbone: str, data: UnlabelledData, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, epochs=1, learning_rate=1e-3, crop_size=64, resize=64, batch_size=16)
    model = build_masked(backbone, WIDTH, recipe)
    before = {name: value.clone() for name, value in model.backbone.named_parameters()}
    few = dataclasses.replace(data, train=data.train.first(16), val=data.val.first(2))
    list(pretrain(model, few, recipe, tmp_path / "w.pth", machine=ONE_CORE))
    after = states(tmp_path / "w.pth")
    still = [name for name, value in before.items() if value.dim() > 1 and torch.equal(value, after[name])]
    assert not still
    load_backbone_weights(build_backbone(backbone, WIDTH), str(tmp_path / "w.pth"))


def test_the_recipe_follows_the_number_and_the_size_of_the_images() -> None:
    few, some, many = (masked_recipe_for("resnet18", count, 80) for count in (20, 1000, 50_000))
    assert (few.epochs, some.epochs, many.epochs) == (EPOCHS[1], 30, EPOCHS[0])
    assert (some.crop_size, some.patch) == (80, 8)
    large = masked_recipe_for("resnet18", 1000, 500, epochs=7, seed=3)
    assert (large.crop_size, large.patch, large.epochs, large.seed) == (224, 16, 7, 3)
    assert masked_recipe_for("vgg16", 1000, 80).learning_rate < some.learning_rate
    assert masked_recipe_for("resnet18", 8, 33).batch_size == 4


def test_images_that_are_too_small_for_a_backbone_are_named(data: UnlabelledData, tmp_path: Path) -> None:
    model = build_masked("alexnet", WIDTH, TINY)
    with pytest.raises(
        UserError, match=f"crops of 32 pixels .* alexnet, which needs {model.backbone.min_size}"
    ):
        list(pretrain(model, data, TINY, tmp_path / "w.pth"))
