"""What is pre-trained, on which images, and what it reports: plain values that load no torch."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segstrat.data.figures import ensure_figures
from segstrat.errors import UserError
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.recipe import Recipe, fitted, recipe_for

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
        return recipe if self.name == FIGURES else fitted(recipe, data.short_side())


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
    source: PretrainSource = dataclasses.field(default_factory=PretrainSource)

    def __str__(self) -> str:
        width = f", width {self.width:g}" if self.width != 1 else ""
        return f"{self.backbone}{width}, seed {self.seed} on {Path(self.source.name).name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Pretraining":
        """The inverse of `to_dict`."""
        return cls(**{**values, "source": PretrainSource(**values["source"])})

    def recipe(self, data: ClassificationData) -> Recipe:
        """Its recipe on the images of its source."""
        return self.source.recipe(self.backbone, data, self.seed)


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """One epoch: mean training loss (with label smoothing), and accuracies on the validation split.

    `top5` is the share of images whose class is among the five likeliest.
    """

    epoch: int
    epochs: int
    train_loss: float
    top1: float
    top5: float
    seconds: float
