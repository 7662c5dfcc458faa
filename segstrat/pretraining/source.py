"""The images that weights are pre-trained on: `figures`, or a classification folder."""

import json
from dataclasses import dataclass
from pathlib import Path

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
