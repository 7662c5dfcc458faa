"""The recipe of pre-training: everything that determines the weights besides backbone and data."""

from dataclasses import dataclass

from segstrat.schedules import cosine


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


def learning_rate(recipe: Recipe, position: float) -> float:
    """Rate at `position` epochs: a linear rise over the warm-up times a half cosine over the whole run."""
    rise = min(1.0, (position + 1e-3) / recipe.warmup_epochs) if recipe.warmup_epochs > 0 else 1.0
    return recipe.learning_rate * rise * cosine(position / recipe.epochs)
