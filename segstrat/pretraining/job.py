"""`PretrainJob`: one run of pre-training as a plain value, so that another process can do it."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segstrat.atomic import only_builder
from segstrat.machine import Machine
from segstrat.pretraining.classifier import build_classifier
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.loop import PretrainReport, pretrain, run_key
from segstrat.pretraining.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PretrainJob:
    """What is trained, on what, how, and where the weights go.

    Args:
        data_root: folder with `train/` and `val/`.
        data_name: name of the data set.
        data_digest: digest of its content.
        out: file of the weights.
    """

    backbone: str
    width: float
    recipe: Recipe
    data_root: Path
    data_name: str
    data_digest: str
    out: Path

    @classmethod
    def make(
        cls, backbone: str, width: float, recipe: Recipe, data: ClassificationData, out: Path
    ) -> "PretrainJob":
        """A job on data that is open already."""
        return cls(
            backbone=backbone,
            width=width,
            recipe=recipe,
            data_root=data.train.folder.parent,
            data_name=data.name,
            data_digest=data.digest,
            out=out,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        return values | {"data_root": str(self.data_root), "out": str(self.out)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PretrainJob":
        """The inverse of `to_dict`."""
        paths = {"data_root": Path(values["data_root"]), "out": Path(values["out"])}
        return cls(**values | paths | {"recipe": Recipe(**values["recipe"])})

    def run(self, machine: Machine, *, resume: bool = True) -> Iterator[PretrainReport]:
        """Trains, or does nothing where `out` exists; of several processes one trains while the others wait.

        Raises:
            UserError: see `segstrat.pretraining.loop.pretrain`.
        """
        data = open_classification(self.data_root, name=self.data_name, digest=self.data_digest)
        with only_builder(self.out.with_suffix(".lock")):
            if self.out.is_file():
                return
            model = build_classifier(self.backbone, self.width, len(data.classes), self.recipe)
            yield from pretrain(model, data, self.recipe, self.out, machine=machine, resume=resume)


def weights_name(backbone: str, width: float, data: ClassificationData, recipe: Recipe) -> str:
    """File name that tells apart all weights that can differ: by backbone, width, data, recipe and code."""
    model = build_classifier(backbone, width, len(data.classes), recipe)
    return f"{backbone}-{width:g}-{data.name}-seed{recipe.seed}-{run_key(model, data, recipe)[:10]}.pth"
