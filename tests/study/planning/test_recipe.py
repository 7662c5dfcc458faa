"""Which recipe a data set gets, and what is said when it does not fit."""

import dataclasses

import pytest

from search_spaces import recipes
from segstrat.config import TrialConfig
from segstrat.data.readers.folder import ImageFacts
from study.driver.dry_run import recipe_warnings
from study.planning.space import fit_recipe, load_space
from study.planning.trials import plan


def facts(images: int, short_side: int = 256) -> ImageFacts:
    return ImageFacts(train_images=images, short_side=short_side)


def configs(data: str, images: ImageFacts | None, space: str = "wd_grid") -> list[TrialConfig]:
    fitted = fit_recipe(load_space(space), data, images)
    return [trial.config for trial in plan(fitted, data, weights="w")]


@pytest.mark.parametrize(("data", "images"), [("d1", None), ("folder", facts(1500)), ("folder", None)])
def test_many_images_are_trained_as_in_the_thesis(data, images):
    for config in configs(data, images):
        assert (config.epochs, config.crop_size) == (100 if config.pretrained else 300, 512)
    assert fit_recipe(load_space("wd_grid"), data, images).recipe_name.startswith("thesis")


@pytest.mark.parametrize(
    ("images", "side", "epochs", "crop", "batch"),
    [
        (20, 128, 300, 128, 4),
        (100, 255, 300, 224, 8),
        (101, 256, 200, 256, 8),
        (800, 600, 120, 512, 8),
        (1499, 20, 80, 32, 8),
    ],
)
def test_few_images_get_a_recipe_of_their_size(images, side, epochs, crop, batch):
    for config in configs("folder", facts(images, side)):
        assert (config.epochs, config.crop_size, config.batch_size) == (epochs, crop, batch)
    name = fit_recipe(load_space("wd_grid"), "folder", facts(images, side)).recipe_name
    assert name.startswith("small")
    assert f"{images:,} of {side} pixels" in name


def test_a_few_more_images_change_no_trial():
    def ids(images: int) -> set[str]:
        return {config.digest() for config in configs("folder", facts(images, 250))}

    assert ids(201) == ids(209)
    assert ids(299) != ids(301)


def test_updates_stay_within_what_the_docstring_says():
    for images in range(80, recipes.SMALL_IMAGES):
        fields = recipes.small(images, 256)
        assert 2_500 <= images * fields["epochs"] / fields["batch_size"] <= 15_000


def test_the_width_of_the_shared_recipe_is_not_for_timms_networks():
    base = {"model": "fcn8s", "backbone": "timm/tf_efficientnet_lite0"}
    space = dataclasses.replace(load_space("wd_grid"), base=base)
    for fitted in (space, fit_recipe(space, "figures", None)):
        assert {trial.config.width for trial in plan(fitted, "figures", weights="w")} == {1.0}
    assert {trial.config.width for trial in plan(load_space("wd_grid"), "figures", weights="w")} == {0.25}


def test_a_recipe_of_the_spaces_own_is_the_only_one():
    fitted = fit_recipe(load_space("wd_squeezenet"), "folder", facts(50))
    assert fitted.recipe_name == "of wd_squeezenet.py itself"
    assert fitted.recipe("folder", "fcn16s", pretrained=True)["crop_size"] == 96


def test_a_recipe_of_the_spaces_own_may_ask_for_the_images():
    def recipe(data, model, *, pretrained, images):
        return {"epochs": images}

    space = dataclasses.replace(load_space("wd_grid"), recipe=recipe)
    assert fit_recipe(space, "folder", facts(50)).recipe("folder", "fcn32s", pretrained=False) == {
        "epochs": 50
    }


def test_the_thesis_recipe_on_few_small_images_is_warned_of():
    thesis = configs("folder", None)
    warnings = recipe_warnings(thesis, facts(214, 128))
    assert any("crops of 512 pixels on images of 128" in text for text in warnings)
    assert any("300 epochs of 512 pixels" in text and "214" in text for text in warnings)
    assert recipe_warnings(thesis, facts(5000, 500)) == []
    assert recipe_warnings(thesis, None) == []


def test_a_high_rate_without_batch_norm_is_warned_of():
    own = dataclasses.replace(load_space("wd_grid"), base={"model": "fcn8s", "backbone": "squeezenet1_1"})
    fitted = fit_recipe(own, "folder", facts(200))
    trials = [trial.config for trial in plan(fitted, "folder", weights="w")]
    assert any(
        "one without it may predict background" in text for text in recipe_warnings(trials, facts(200))
    )


def test_a_coarse_map_is_warned_of():
    (text,) = recipe_warnings(configs("folder", facts(214, 128)), facts(214, 128))
    assert "4 × 4 cells" in text
    fine = [dataclasses.replace(config, model="fcn8s") for config in configs("folder", facts(214, 128))]
    assert recipe_warnings(fine, facts(214, 128)) == []
