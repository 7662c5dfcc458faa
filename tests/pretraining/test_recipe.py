"""Recipes of backbones and of data sets with small images."""

import dataclasses

import pytest

from segstrat.pretraining.loop import learning_rate
from segstrat.pretraining.recipe import RECIPES, fitted, recipe_for

FIGURES, FOLDER = RECIPES["figures"], RECIPES["folder"]


def test_recipes_of_backbones_without_batch_norm_are_gentler() -> None:
    assert recipe_for("vgg16", "figures").learning_rate == pytest.approx(FIGURES.learning_rate / 10)
    assert recipe_for("vgg16", "figures").dropout == 0.5
    assert recipe_for("vgg16_bn", "figures") == FIGURES
    assert recipe_for("squeezenet1_1", "anywhere", epochs=7).epochs == 7
    assert recipe_for("resnet18", "anywhere", seed=3) == dataclasses.replace(FOLDER, seed=3)


def test_crops_are_no_larger_than_the_images() -> None:
    usual = dataclasses.replace(FOLDER, crop_size=56, resize=64)
    assert fitted(usual, 64) == fitted(usual, 500) == usual
    # Half of 56 would be less than the smallest crop.
    small = fitted(usual, 32)
    assert (small.resize, small.crop_size) == (32, 32)
    middle = fitted(usual, 48)
    assert (middle.resize, middle.crop_size) == (48, 42)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="crop_size 257 is larger than the resized image, 256"):
        dataclasses.replace(FOLDER, crop_size=257)


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = dataclasses.replace(FIGURES, epochs=10, warmup_epochs=2, learning_rate=0.1)
    assert learning_rate(recipe, 0.0) < 1e-3
    assert learning_rate(recipe, 1.0) == pytest.approx(0.1 * 0.5 * 0.97553, rel=2e-3)
    assert learning_rate(recipe, 5.0) == pytest.approx(0.05)
    assert learning_rate(recipe, 10.0) == 0.0
