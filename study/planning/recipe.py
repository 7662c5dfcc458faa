"""The recipe of a space for the data at hand, and what speaks against it."""

import dataclasses
import functools
import inspect
from collections.abc import Sequence

from search_spaces import recipes
from segstrat.config import WITHOUT_BATCH_NORM, TrialConfig
from segstrat.data.readers.folder import ImageFacts
from study.planning.space import Space

# A crop that is so much larger than the images is mostly padding.
PADDED = 1.5
# At stride 32 a smaller crop has a map of a few cells.
SMALLEST_AT_32 = 224
LONG_EPOCHS = 100
HIGH_RATE = 1e-2


def fit_recipe(space: Space, data: str, images: ImageFacts | None) -> Space:
    """The space with its recipe chosen for the images, and the name of that recipe.

    A recipe of the space's own gets `images` and `short_side` if it has parameters of these names.
    """
    facts = {"images": images.train_images, "short_side": images.short_side} if images else {}
    own = space.recipe is not recipes.recipe
    name = f"of {space.name}.py itself" if own else recipes.recipe_name(data, **facts)
    accepted = inspect.signature(space.recipe).parameters
    wanted = {key: value for key, value in facts.items() if key in accepted}
    return dataclasses.replace(space, recipe=functools.partial(space.recipe, **wanted), recipe_name=name)


def recipe_warnings(configs: Sequence[TrialConfig], images: ImageFacts | None) -> list[str]:
    """What looks like a mistake in the trials of a folder of one's own."""
    if images is None or not images.short_side:
        return []
    side, count = images.short_side, images.train_images
    found = []
    crop = max(config.crop_size for config in configs)
    epochs = max(config.epochs for config in configs)
    if crop >= PADDED * side:
        found.append(
            f"crops of {crop} pixels on images of {side} are mostly padding; leave crop_size to the recipe"
        )
    if count < recipes.SMALL_IMAGES and crop == 512 and epochs >= LONG_EPOCHS:
        found.append(
            f"{epochs} epochs of 512 pixels are the thesis's recipe for thousands of images; here are {count}"
        )
    rate = max(
        (config.learning_rate for config in configs if config.backbone in WITHOUT_BATCH_NORM), default=0.0
    )
    if rate > HIGH_RATE:
        found.append(
            f"a learning rate of {rate:g} suits backbones with batch norm; at this rate one without it may "
            "predict background everywhere (docs/models.md)"
        )
    coarse = [config.crop_size for config in configs if config.model == "fcn32s"]
    if coarse and min(coarse) < SMALLEST_AT_32:
        cells = -(-min(coarse) // 32)
        found.append(
            f"fcn32s sees a crop of {min(coarse)} pixels as {cells} × {cells} cells; "
            "fcn8s has 16 times as many (BASE or ON of the space)"
        )
    return found
