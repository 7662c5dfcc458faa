"""The recipe of pre-training: everything that determines the weights besides backbone and data."""

import dataclasses
from dataclasses import dataclass

from segstrat.config import TIMM_PREFIX, WITHOUT_BATCH_NORM


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with momentum, linear warm-up, then a half cosine per step.

    Args:
        warmup_epochs: epochs over which the learning rate rises linearly to its full value.
        crop_size: side of the square crops, in pixels.
        resize: short side of an evaluated image before its center crop.
        smallest_crop: smallest share of an image's area that a training crop covers.
        dropout: inside the backbone, for VGG, AlexNet and SUNet.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float
    crop_size: int
    resize: int
    smallest_crop: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_size > self.resize:
            raise ValueError(f"crop_size {self.crop_size} is larger than the resized image, {self.resize}")


# `folder` is the usual ImageNet recipe (He et al. 2016; label smoothing: Szegedy et al. 2016), with crops
# scaled down by `fitted` where images are small; `figures` takes one or two minutes on two cores.
RECIPES = {
    "figures": Recipe(
        epochs=10, batch_size=64, learning_rate=0.1, warmup_epochs=1, crop_size=80, resize=80,
        smallest_crop=0.8,
    ),
    "folder": Recipe(
        epochs=90, batch_size=256, learning_rate=0.1, warmup_epochs=5, crop_size=224, resize=256,
        smallest_crop=0.08,
    ),
}  # fmt: skip
# As published, after fc6 and fc7.
DROPOUT = {"vgg16": 0.5, "alexnet": 0.5}


def recipe_for(backbone: str, data: str, *, epochs: int | None = None, seed: int = 0) -> Recipe:
    """The recipe of a backbone on `figures` or on a folder; `epochs` replaces the recipe's number."""
    recipe = RECIPES["figures" if data == "figures" else "folder"]
    if _has_no_batch_norm(backbone):
        # Without batch norm they need a tenth of the rate.
        rate = recipe.learning_rate / 10
        recipe = dataclasses.replace(recipe, learning_rate=rate, dropout=DROPOUT.get(backbone, 0.0))
    return dataclasses.replace(recipe, epochs=epochs or recipe.epochs, seed=seed)


def _has_no_batch_norm(backbone: str) -> bool:
    if not backbone.startswith(TIMM_PREFIX):
        return backbone in WITHOUT_BATCH_NORM
    # Only the network itself tells; timm and torch are loaded for it alone.
    from segstrat.models.timm_backbone import has_batch_norm

    return not has_batch_norm(backbone)


def fitted(recipe: Recipe, short_side: int) -> Recipe:
    """The recipe with crops no larger than the images: enlarging costs time and adds no information.

    Args:
        short_side: usual length of the shorter side of an image, in pixels.
    """
    if short_side >= recipe.resize:
        return recipe
    crop_size = max(32, round(recipe.crop_size * short_side / recipe.resize))
    return dataclasses.replace(recipe, resize=max(32, short_side), crop_size=crop_size)


@dataclass(frozen=True, kw_only=True)
class MaskedRecipe(Recipe):
    """AdamW with the same schedule; `momentum` is its β₁, and there is no label to smooth.

    Args:
        filled_share: share of a batch whose patches are filled in; the rest is turned.
        mask_share: share of an image's patches that are masked.
        patch: side of a patch, in pixels.
        decoder_channels: of the decoder's maps.
        turn_weight: of the cross-entropy of turns, beside the error of reconstruction.
    """

    filled_share: float = 0.25
    mask_share: float = 0.6
    patch: int = 16
    decoder_channels: int = 64
    turn_weight: float = 1.0
    label_smoothing: float = 0.0


# An image is seen at least and at most so often; in between, so many crops are seen in all.
CROPS_SEEN = 30_000
EPOCHS = (30, 400)


def masked_recipe_for(
    backbone: str, images: int, short_side: int, *, epochs: int | None = None, seed: int = 0
) -> MaskedRecipe:
    """The recipe of masked reconstruction for so many images.

    Args:
        short_side: usual length of the shorter side of an image, in pixels: crops are no larger.
        epochs: replace those that follow from the number of images.
    """
    size = max(32, min(224, short_side) // 16 * 16)
    # Without batch norm, backbones need smaller steps.
    rate = 5e-4 if _has_no_batch_norm(backbone) else 2e-3
    return MaskedRecipe(
        epochs=epochs or min(EPOCHS[1], max(EPOCHS[0], round(CROPS_SEEN / images))),
        batch_size=min(32 if size < 128 else 64, max(2, images // 2)),
        learning_rate=rate,
        warmup_epochs=1,
        crop_size=size,
        resize=size,
        smallest_crop=0.3,
        weight_decay=0.05,
        patch=16 if size >= 96 else 8,
        seed=seed,
    )
