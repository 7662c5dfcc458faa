"""What learns most from images without labels: patches, turns, both, noise, or agreement of views.

    uv run python benchmarks/self_supervision.py --data figures
    uv run python benchmarks/self_supervision.py --data folder --data-root DIR --probe DIR

Each method trains the backbone of study/pretrain.py --self with its recipe on one core, from the same initial
values. It prints a row per method: the squared error of masked patches in held-out images as a share of that
of the image's mean color, the accuracy of a linear probe of the features, and seconds. Only the first one,
masked reconstruction with turns, is part of the package; docs/models.md has what was measured.
"""

import argparse
import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segstrat.machine import Machine
from segstrat.models.initialize import initialize
from segstrat.pretraining.images import Images, open_classification
from segstrat.pretraining.job import SelfSource, open_figures
from segstrat.pretraining.loop import to_the_end, train_one_epoch
from segstrat.pretraining.masked import (
    TURNS,
    MaskedLearner,
    build_masked,
    calibrate,
    linear_probe,
    turned,
)
from segstrat.pretraining.recipe import Recipe
from segstrat.store import cache_dir

NOISE, TEMPERATURE, PROJECTION = 0.8, 0.2, 64


class Method(MaskedLearner, ABC):
    """A method beside that of the package."""

    @abstractmethod
    def objective(self, images_BCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The loss of standardized images."""

    def loss(
        self,
        images_BCHW: torch.Tensor,
        labels_B: torch.Tensor,  # noqa: ARG002
        recipe: Recipe,
        machine: Machine,
        place: tuple[int, int],
    ) -> torch.Tensor:
        """That of the method."""
        rng = np.random.default_rng([recipe.seed, 7, *place, 1])
        return self.objective(self.standardized(images_BCHW, machine.torch_device), rng)


class Turner(Method):
    """Turns of all images of a batch, without reconstruction."""

    def objective(self, images_BCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Cross-entropy of turns."""
        turns_B = torch.from_numpy(rng.integers(0, TURNS, len(images_BCHW)))
        maps = self.backbone(turned(images_BCHW, turns_B))
        return F.cross_entropy(self.turn(maps[-1].mean((2, 3))), turns_B)


class Denoiser(Method):
    """Every pixel gets noise, and the decoder removes it."""

    def objective(self, images_BCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Mean squared error of all pixels."""
        noise = rng.normal(0, NOISE, images_BCHW.shape)
        noisy_BCHW = images_BCHW + torch.from_numpy(noise.astype(np.float32))
        nothing = torch.zeros_like(images_BCHW[:, :1], dtype=torch.bool)
        return F.mse_loss(self(noisy_BCHW, nothing), images_BCHW)


class Agreement(Method):
    """Two views of an image agree more than those of different ones (Chen et al. 2020, arXiv:2002.05709)."""

    def __init__(self, backbone: Any, channels: int) -> None:
        super().__init__(backbone, channels)
        width = backbone.channels[-1]
        self.project = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, PROJECTION))

    def objective(self, images_BCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Cross-entropy of finding the other view (NT-Xent)."""
        views = torch.cat([_view(images_BCHW, rng) for _ in range(2)])
        codes = F.normalize(self.project(self.backbone(views)[-1].mean((2, 3))), dim=1)
        similar = (codes @ codes.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        count = len(images_BCHW)
        others = torch.arange(2 * count).roll(count)
        return F.cross_entropy(similar, others)


def _view(images_BCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A crop of each image, mirrored at random, with other brightness, contrast and balance of colors."""
    count, _, height, width = images_BCHW.shape
    scale = rng.uniform(0.5, 1.0, count)
    mirror = rng.choice([-1.0, 1.0], count)
    shift = rng.uniform(-1, 1, (2, count)) * (1 - scale)
    zero = np.zeros(count)
    grids = np.stack([[scale * mirror, zero, shift[0]], [zero, scale, shift[1]]]).transpose(2, 0, 1)
    grid = F.affine_grid(torch.from_numpy(grids).float(), [count, 3, height, width], align_corners=False)
    crops = F.grid_sample(images_BCHW, grid, align_corners=False)
    gain, bias = rng.uniform(0.6, 1.4, (count, 3, 1, 1)), rng.normal(0, 0.4, (count, 3, 1, 1))
    return crops * torch.from_numpy(gain).float() + torch.from_numpy(bias).float()


# The learner, and what its recipe changes.
METHODS: dict[str, tuple[type[MaskedLearner], dict[str, Any]]] = {
    "patches and turns": (MaskedLearner, {}),
    "patches": (MaskedLearner, {"filled_share": 1.0}),
    "turns": (Turner, {}),
    "denoising": (Denoiser, {}),
    "agreement of views": (Agreement, {}),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Compares methods of self-supervision.")
    parser.add_argument("--data", default="figures", help="protocol whose training images are learned from")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--extra", default="", help="folder of more images")
    parser.add_argument(
        "--probe", default="", help="classification set of the probe (default: drawn objects)"
    )
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--methods", default=",".join(METHODS), help="names, separated by commas")
    options = parser.parse_args()
    source = SelfSource(
        protocol=options.data, root=options.data_root, folder=options.extra, epochs=options.epochs
    )
    data = source.open(cache_dir())
    probe = open_classification(Path(options.probe)) if options.probe else open_figures(cache_dir())
    recipe = source.recipe("resnet18", data, 0)
    machine = Machine(threads=1, precision="float32")
    machine.apply()
    print(f"{len(data.train)} images, {recipe.epochs} epochs, crops of {recipe.crop_size} pixels")

    def probed(model: MaskedLearner) -> float:
        to_the_end(calibrate(model, data.train, recipe, machine))
        return to_the_end(linear_probe(model, probe, recipe, machine))

    random = build_masked("resnet18", options.width, recipe)
    print(f"{'random features':24}{'':18}probe {probed(random):.3f}", flush=True)
    print(f"{'nearest patch':24}error {random._copying_error(data.val, recipe, machine):.3f}", flush=True)
    for name in options.methods.split(","):
        learner, changes = METHODS[name]
        model = learner(random.backbone, recipe.decoder_channels)
        initialize(model, recipe.seed)
        seconds, error = train(model, data.train, data.val, dataclasses.replace(recipe, **changes), machine)
        print(f"{name:24}error {error:.3f}       probe {probed(model):.3f}   {seconds:.0f} s", flush=True)


def train(
    model: MaskedLearner, images: Images, held_out: Images, recipe: Recipe, machine: Machine
) -> tuple[float, float]:
    """Seconds of training, and the error on held-out images."""
    optimizer = model.optimizer(recipe)
    start = time.process_time()
    for epoch in range(recipe.epochs):
        to_the_end(train_one_epoch(model, optimizer, images, recipe, machine, epoch))
    seconds = time.process_time() - start
    scored: Generator[None, None, dict[str, float]] = model.evaluate(held_out, recipe, machine)
    return seconds, to_the_end(scored)["error"]


if __name__ == "__main__":
    main()
