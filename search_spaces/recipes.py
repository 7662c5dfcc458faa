"""Epochs, learning rates, batch and crop of each arm on each data set: the one place for recipes.

A recipe gives fields of `TrialConfig` for (data, model, pretrained); a space's axes override it.
"""

from typing import Any

Fields = dict[str, Any]

# A folder with fewer training images gets the recipe `small`; the thesis trained on 1,695 and more.
SMALL_IMAGES = 1500
# At most so many images -> epochs.
SMALL_EPOCHS = ((100, 300), (300, 200), (800, 120), (SMALL_IMAGES, 80))
# Of each arm for short training, tuned by the space `photos_rates`.
PHOTOGRAPH_RATES = {"raw": 0.1, "pretrained": 0.03}


def thesis(model: str, *, pretrained: bool) -> Fields:
    """The thesis's own recipe (Tables 6.1, 6.2), for real images.

    For the raw SUNet arm, Table 6.2 says 300 epochs and the figures show 200; this is the table's value.
    """
    if model.startswith("sunet"):
        return {
            "epochs": 90 if pretrained else 300,
            "learning_rate": 2e-3,
            "batch_size": 10,
            "crop_size": 512,
        }
    return {"epochs": 100 if pretrained else 300, "learning_rate": 5e-3, "batch_size": 10, "crop_size": 512}


def figures(model: str, *, pretrained: bool) -> Fields:  # noqa: ARG001
    """A short recipe for the embedded scenes: a trial takes about ten seconds on one core.

    Validation runs after every third epoch only, which includes the rungs. Both arms have weaker augmentation
    than in the thesis, and the pre-trained part a higher learning rate, so that 120 scenes can be overfitted
    within 24 epochs as half of D1 is within 300.
    """
    return {
        "width": 0.25,
        "crop_size": 80,
        "batch_size": 8,
        "epochs": 24,
        "learning_rate": 0.05,
        "pretrained_lr_factor": 0.3,
        "augmentation": 0.25,
        "validate_every": 3,
    }


def photographs(*, pretrained: bool) -> Fields:
    """A recipe for a thousand small photographs on a CPU: a trial takes about a minute on one core.

    ResNet-18 at a quarter of its width; images have a short side of 128 pixels. The augmentation is that of
    the thesis. The rates are those that the space `photos_rates` found best for each arm. The whole network
    has one rate: after a short pre-training on small images, its features have far to go.
    """
    return {
        "width": 0.25,
        "crop_size": 96,
        "batch_size": 8,
        "epochs": 20,
        "learning_rate": PHOTOGRAPH_RATES["pretrained" if pretrained else "raw"],
        "pretrained_lr_factor": 1.0,
        "validate_every": 5,
    }


def overfitting(*, pretrained: bool, label_fraction: float = 1.0) -> Fields:
    """A recipe in which a raw ResNet-18 overfits a thousand small photographs, so that regularizers can help.

    Half of the thesis's epochs of the raw arm and a quarter of its augmentation: raw then ends 26 to 30
    points of mIoU higher on training than on validation images. Both arms train equally long and at one
    rate, unlike in the thesis, so that training scores say what pre-training does (H2). The rate is the best
    one of each arm in `photos_rates`, at a third of the epochs. Fewer labels get more epochs, and so equally
    many updates.
    """
    return photographs(pretrained=pretrained) | {
        "learning_rate": 0.1,
        "epochs": round(150 / label_fraction),
        "augmentation": 0.25,
        "weight_decay": 0.0,
        "validate_every": round(10 / label_fraction),
    }


def imagenet(*, pretrained: bool) -> Fields:
    """A recipe for a published network on small photographs: 60 epochs of both arms, weak augmentation.

    docs/findings.md says how the rates of EfficientNet-Lite0 were chosen.
    """
    same = {"width": 1.0, "epochs": 60, "validate_every": 10}
    return overfitting(pretrained=pretrained) | same | {"learning_rate": 0.003 if pretrained else 0.1}


def small(images: int, short_side: int) -> Fields:
    """A recipe for a small data set of one's own; the same for both arms, so that their budgets are equal.

    Crops are no larger than the images, and the fewer images there are, the more often each is seen; from 80
    images on there are 2,500 to 15,000 updates. Sizes are bands, so that a few more images change nothing.

    Args:
        images: training images, fewer than `SMALL_IMAGES`.
        short_side: median of their shorter sides, in pixels.
    """
    epochs = next(epochs for most, epochs in SMALL_EPOCHS if images <= most)
    return {
        "crop_size": min(512, max(32, short_side // 32 * 32)),
        "batch_size": 8 if images >= 32 else 4,
        "epochs": epochs,
        "learning_rate": 2e-2,
        "validate_every": 5,
    }


def recipe(
    data: str, model: str, *, pretrained: bool, images: int | None = None, short_side: int | None = None
) -> Fields:
    """Fields of the recipe for a protocol: real images are trained as in the thesis, few ones as in `small`.

    Args:
        images, short_side: of a folder of one's own, see `small`; None for every other protocol.
    """
    if data == "figures":
        return figures(model, pretrained=pretrained)
    if images is not None and short_side is not None and images < SMALL_IMAGES:
        return small(images, short_side)
    return thesis(model, pretrained=pretrained)


def recipe_name(data: str, images: int | None = None, short_side: int | None = None) -> str:
    """Which recipe that is, for the console, the manifest and the report."""
    if data == "figures":
        return "figures: short, for drawn scenes"
    if images is not None and short_side is not None and images < SMALL_IMAGES:
        return f"small: for fewer than {SMALL_IMAGES:,} images ({images:,} of {short_side} pixels here)"
    return "thesis: Tables 6.1 and 6.2"
