"""What is pre-trained, on which images, and what it reports: plain values that load no torch."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segstrat.data.figures import ensure_figures
from segstrat.errors import UserError
from segstrat.pretraining.images import (
    ClassificationData,
    UnlabelledData,
    open_classification,
    open_unlabelled,
)
from segstrat.pretraining.recipe import MaskedRecipe, Recipe, fitted, masked_recipe_for, recipe_for
from segstrat.store import data_root

PretrainData = ClassificationData | UnlabelledData

FIGURES = "figures"


@dataclass(frozen=True, kw_only=True)
class PretrainSource:
    """Where the images are, and for how long a backbone is trained on them.

    Args:
        name: `figures`, or a folder with `train/<class>/<image>` and `val/<class>/<image>`.
        epochs: None for those of the recipe.
    """

    name: str = FIGURES
    epochs: int | None = None

    def open(self, cache: Path | None = None) -> ClassificationData:
        """The images; `figures` is drawn into the cache on first use.

        Raises:
            UserError: for a folder that is missing or not laid out as a classification data set.
        """
        if self.name == FIGURES:
            return open_figures(cache)
        folder = Path(self.name).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"{self.name} is not a folder; give one with train/<class>/<image> and val/<class>/<image>"
            )
        return open_classification(folder)

    def recipe(self, backbone: str, data: ClassificationData, seed: int) -> Recipe:
        """The recipe of a backbone, with crops that fit the images."""
        recipe = recipe_for(backbone, self.name, epochs=self.epochs, seed=seed)
        return recipe if self.name == FIGURES else fitted(recipe, data.train.short_side())

    def __str__(self) -> str:
        return f"on {Path(self.name).name}"


@dataclass(frozen=True, kw_only=True)
class SelfSource:
    """Images without labels, of which a backbone learns to fill in masked patches.

    Args:
        protocol: data protocol whose training images they are; '' for those of `folder` alone.
        root: data root of the protocol as the user gave it; '' for `$SEGSTRAT_DATA`.
        folder: further images; '' for none.
        epochs: None for those of the recipe.
    """

    protocol: str = ""
    root: str = ""
    folder: str = ""
    epochs: int | None = None

    @property
    def name(self) -> str:
        """Where the images are from, in words."""
        return "+".join(filter(None, [self.protocol, Path(self.folder).name]))

    def open(self, cache: Path | None = None) -> UnlabelledData:
        """The images; no label, validation image or test image is opened.

        Raises:
            UserError: see `open_unlabelled`.
        """
        folder = Path(self.folder).expanduser() if self.folder else None
        data = open_unlabelled(self.protocol, data_root(self.root or None), folder, cache)
        if self.protocol == FIGURES and data.probe is None:
            return dataclasses.replace(data, probe=open_figures(cache))
        return data

    def recipe(self, backbone: str, data: UnlabelledData, seed: int) -> MaskedRecipe:
        """The recipe of a backbone, for the number and size of the images."""
        return masked_recipe_for(
            backbone, len(data.train), data.train.short_side(), epochs=self.epochs, seed=seed
        )

    def __str__(self) -> str:
        return f"without labels on {self.name}"


def open_figures(cache: Path | None = None) -> ClassificationData:
    """The classification split of `figures`, drawn on first use."""
    root = ensure_figures(cache)
    facts = json.loads((root / "figures.json").read_text(encoding="utf-8"))
    return open_classification(root / "Classification", name=FIGURES, digest=facts["digest"])


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One run of pre-training: the backbone, its width, the seed and the images."""

    backbone: str
    width: float = 1.0
    seed: int = 0
    source: PretrainSource | SelfSource = dataclasses.field(default_factory=PretrainSource)

    def __str__(self) -> str:
        width = f", width {self.width:g}" if self.width != 1 else ""
        return f"{self.backbone}{width}, seed {self.seed} {self.source}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Pretraining":
        """The inverse of `to_dict`."""
        kind = SelfSource if "protocol" in values["source"] else PretrainSource
        return cls(**{**values, "source": kind(**values["source"])})

    def recipe(self, data: PretrainData) -> Recipe:
        """Its recipe on the images of its source."""
        return self.source.recipe(self.backbone, data, self.seed)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """One epoch: mean training loss (with label smoothing), and scores on the validation split.

    Args:
        top1: share of images that are classified correctly; None without classes.
        top5: share of images whose class is among the five likeliest.
        error: of masked reconstruction, as a share of that of the image's mean color; None with classes.
    """

    epoch: int
    epochs: int
    train_loss: float
    top1: float | None = None
    top5: float | None = None
    error: float | None = None
    seconds: float

    @property
    def scores(self) -> dict[str, float]:
        """Those that it has, by name."""
        values = {name: getattr(self, name) for name in ("top1", "top5", "error")}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        if self.error is not None:
            return f"reconstruction error {self.error:.3f}"
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}"


def probe_words(about: Mapping[str, Any]) -> str:
    """The linear probe of a file of weights in words; '' if there was none."""
    if "probe" not in about:
        return ""
    return f"linear probe {about['probe']:.1%} (random features {about['probe_of_random_features']:.1%})"
