"""Pre-training of a backbone: `pretrain()`, a generator of one report per epoch; the classifier."""

import dataclasses
import hashlib
import json
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from segstrat import atomic
from segstrat.checkpoint import load_checkpoint, save_checkpoint, state_digest
from segstrat.data.loading.batch import IMAGENET, normalize
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.models import build_backbone
from segstrat.models.backbone import Backbone
from segstrat.models.initialize import initialize
from segstrat.models.weights import save_backbone
from segstrat.optim import cosine
from segstrat.pretraining.batches import eval_batches, train_batches
from segstrat.pretraining.images import Images
from segstrat.pretraining.job import PretrainData, PretrainReport
from segstrat.pretraining.recipe import Recipe
from segstrat.store import Store

T = TypeVar("T")

VERSION = 2
"""Raised whenever this package gives different weights for the same recipe."""


class Learner(nn.Module, ABC):
    """A backbone and what it is trained under."""

    backbone: Backbone

    @abstractmethod
    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """Of all parameters."""

    @abstractmethod
    def loss(
        self,
        images_BCHW: torch.Tensor,
        labels_B: torch.Tensor,
        recipe: Recipe,
        machine: Machine,
        place: tuple[int, int],
    ) -> torch.Tensor:
        """Mean loss of a batch.

        Args:
            images_BCHW: uint8, in host memory.
            place: epoch and step; every draw is a function of the recipe's seed and it.
        """

    @abstractmethod
    def evaluate(
        self, images: Images, recipe: Recipe, machine: Machine
    ) -> Generator[None, None, dict[str, float]]:
        """Yields after each batch, and returns scores of the validation images, named as in a report."""

    def finish(
        self,
        data: PretrainData,  # noqa: ARG002
        recipe: Recipe,  # noqa: ARG002
        machine: Machine,  # noqa: ARG002
        reports: Sequence[PretrainReport],  # noqa: ARG002
    ) -> Generator[None, None, dict[str, Any]]:
        """What follows the last epoch, before the backbone is written; returns what its file tells of it."""
        yield
        return {}

    def standardized(self, images_BCHW: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Images on the device, with the backbone's mean and deviation."""
        standardization = self.backbone.standardization
        return normalize(images_BCHW.to(device, non_blocking=True), standardization=standardization)


class Classifier(Learner):
    """A backbone, the mean over its coarsest map, and a linear layer."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = nn.Linear(backbone.channels[-1], num_classes)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes)."""
        return self.linear(self.backbone(self.backbone.padded(images_BCHW))[-1].mean((2, 3)))

    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(
            self.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )

    def loss(
        self,
        images_BCHW: torch.Tensor,
        labels_B: torch.Tensor,
        recipe: Recipe,
        machine: Machine,
        place: tuple[int, int] = (0, 0),  # noqa: ARG002
    ) -> torch.Tensor:
        """Cross-entropy with label smoothing."""
        device = machine.torch_device
        with machine.autocast():
            logits = self(self.standardized(images_BCHW, device))
        return F.cross_entropy(
            logits.float(), labels_B.to(device, non_blocking=True), label_smoothing=recipe.label_smoothing
        )

    @torch.inference_mode()
    def evaluate(
        self, images: Images, recipe: Recipe, machine: Machine
    ) -> Generator[None, None, dict[str, float]]:
        """Top-1 and top-5 accuracy on the center crop of every image."""
        self.eval()
        device = machine.torch_device
        hits = torch.zeros(2, dtype=torch.int64, device=device)
        for images_BCHW, labels_B in center_batches(images, recipe, machine):
            with machine.autocast():
                logits = self(self.standardized(images_BCHW, device))
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            found = best == labels_B.to(device, non_blocking=True)[:, None]
            hits += torch.stack([found[:, 0].sum(), found.sum()])
            yield
        top1, top5 = (hits.double() / len(images)).tolist()
        return {"top1": top1, "top5": top5}


def build_classifier(backbone: str, width: float, num_classes: int, recipe: Recipe) -> Classifier:
    """A classifier; each parameter is initialized from (recipe.seed, its name); see `new_backbone`."""
    model = Classifier(new_backbone(backbone, width, recipe), num_classes)
    initialize(model.linear, recipe.seed, prefix="linear")
    return model


def new_backbone(backbone: str, width: float, recipe: Recipe) -> Backbone:
    """A freshly initialized backbone.

    A SUNet is trained at output stride 32, without dilation, as published; its weights are valid for every
    stride.

    Raises:
        UserError: for an unknown backbone, or a width out of range.
    """
    if not 0 < width <= 4:
        raise UserError(f"width {width:g}: expected a number in (0, 4]; 1 is the published network")
    stride = 32 if backbone.startswith("sunet") else None
    return build_backbone(backbone, width, dropout=recipe.dropout, output_stride=stride, seed=recipe.seed)


def run_key(model: Learner, data: PretrainData, recipe: Recipe) -> str:
    """Hex digest of all that decides the weights: initial model, data, recipe, version of this code."""
    network = [model.backbone.name, model.backbone.width, state_digest(model)]
    if model.backbone.standardization != IMAGENET:
        network.append(model.backbone.standardization.to_dict())
    parts = [VERSION, network, data.digest, list(data.classes), dataclasses.asdict(recipe)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def pretrain(
    model: Learner,
    data: PretrainData,
    recipe: Recipe,
    out: Path,
    *,
    machine: Machine | None = None,
    resume: bool = False,
) -> Iterator[PretrainReport]:
    """Trains a freshly built classifier, yields a report per epoch, and finally writes its backbone to `out`.

    The state is saved in the folder `<out>.state` after every epoch. With `resume` the run continues from
    there; on the CPU it ends bit-identical to one without interruption, because every random draw is a
    function of (seed, epoch, index). `out` is written atomically, then the folder is removed.

    Raises:
        UserError: for images that are too small for the backbone, the state of another run, an image that
            cannot be decoded, or a loss that is not finite.
    """
    steps = pretrain_steps(model, data, recipe, out, machine=machine, resume=resume)
    return (report for report in steps if report is not None)


def pretrain_steps(
    model: Learner,
    data: PretrainData,
    recipe: Recipe,
    out: Path,
    *,
    machine: Machine | None = None,
    resume: bool = False,
    states: Store | None = None,
) -> Iterator[PretrainReport | None]:
    """As `pretrain`, and yields None after every step of an epoch, so that a caller can end it at any time.

    Args:
        states: folder of the state after every epoch, where other machines must be able to continue.
    """
    check_crop(model.backbone, recipe)
    machine = machine or Machine()
    machine.apply()
    check_writable(out)
    key = run_key(model, data, recipe)
    model.to(machine.torch_device).to(memory_format=torch.channels_last)
    optimizer = model.optimizer(recipe)
    states = states or state_store(out)
    reports = _restore(states, key, model, optimizer) if resume else []
    for epoch in range(len(reports), recipe.epochs):
        start = time.perf_counter()
        loss = yield from train_one_epoch(model, optimizer, data.train, recipe, machine, epoch)
        scores = yield from model.evaluate(data.val, recipe, machine)
        seconds = time.perf_counter() - start
        report = PretrainReport(
            epoch=epoch + 1, epochs=recipe.epochs, train_loss=loss, seconds=seconds, **scores
        )
        reports.append(report)
        state = {
            "key": key,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "reports": [dataclasses.asdict(item) for item in reports],
        }
        with _writing(states.uri):
            save_checkpoint(states, epoch + 1, state, best_epoch=None)
        yield report
    found = yield from model.finish(data, recipe, machine, reports)
    about = {
        "data": data.name,
        "data_digest": data.digest,
        "key": key,
        "recipe": dataclasses.asdict(recipe),
        **reports[-1].scores,
        **found,
    }
    with _writing(out), atomic.replacing(out) as temporary:
        save_backbone(temporary, model.backbone, about)
    remove_state(states)


def to_the_end(steps: Generator[None, None, T]) -> T:
    """What the steps of an epoch return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def check_crop(backbone: Backbone, recipe: Recipe) -> None:
    """Raises a UserError if the recipe's crops are too small for a backbone."""
    if recipe.crop_size < backbone.min_size:
        raise UserError(
            f"crops of {recipe.crop_size} pixels are too small for {backbone.name}, which needs "
            f"{backbone.min_size}; choose larger images or another backbone"
        )


def state_store(out: Path) -> Store:
    """Folder of an unfinished run's state, next to its result."""
    return Store(out.with_name(f"{out.name}.state"))


def remove_state(states: Store) -> None:
    """Deletes the state of a run, if there is any."""
    for name in states.names():
        states.delete(name)
    if states.is_local and states.exists():
        states.local_path.rmdir()


def recipe_batches(
    images: Images, recipe: Recipe, machine: Machine, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The training crops of an epoch, as a recipe has them, on the device."""
    return train_batches(
        images,
        batch_size=recipe.batch_size,
        crop_size=recipe.crop_size,
        smallest_crop=recipe.smallest_crop,
        seed=recipe.seed,
        epoch=epoch,
        threads=machine.threads,
        device=machine.torch_device,
    )


def train_one_epoch(
    model: Learner,
    optimizer: torch.optim.Optimizer,
    images: Images,
    recipe: Recipe,
    machine: Machine,
    epoch: int,
) -> Generator[None, None, float]:
    """One pass over the training images; yields after each step, and returns the mean loss."""
    model.train()
    # Dropout is the only draw from torch's generator: seeded per epoch, it needs no place in the state.
    torch.manual_seed(recipe.seed * 100_003 + epoch)
    batches = recipe_batches(images, recipe, machine, epoch)
    steps_per_epoch = -(-len(images) // recipe.batch_size)
    loss_sum = torch.zeros((), dtype=torch.float64, device=machine.torch_device)
    seen = 0
    for step, (images_BCHW, labels_B) in enumerate(batches):
        position = epoch + step / steps_per_epoch
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, position)
        loss = model.loss(images_BCHW, labels_B, recipe, machine, (epoch, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(labels_B)
        seen += len(labels_B)
        yield
    mean = float(loss_sum) / max(seen, 1)
    if not torch.isfinite(loss_sum):
        raise UserError(
            f"{model.backbone.name} diverged in epoch {epoch + 1}: the loss is {mean}; lower "
            "its learning rate in segstrat/pretraining/recipe.py"
        )
    return mean


def learning_rate(recipe: Recipe, position: float) -> float:
    """Rate at `position` epochs: a linear rise over the warm-up times a half cosine over the whole run."""
    rise = min(1.0, (position + 1e-3) / recipe.warmup_epochs) if recipe.warmup_epochs > 0 else 1.0
    return recipe.learning_rate * rise * cosine(position / recipe.epochs)


def center_batches(
    images: Images, recipe: Recipe, machine: Machine
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The center crop of every image once, in order."""
    return eval_batches(
        images,
        batch_size=recipe.batch_size,
        crop_size=recipe.crop_size,
        resize=recipe.resize,
        threads=machine.threads,
        device=machine.torch_device,
    )


def _restore(
    states: Store, key: str, model: Learner, optimizer: torch.optim.Optimizer
) -> list[PretrainReport]:
    state: dict[str, Any] | None = load_checkpoint(states)
    if state is None:
        return []
    if state["key"] != key:
        raise UserError(
            f"{states.uri} has the state of a run with another backbone, width, data set, recipe or code; "
            "delete that folder, or choose another --out"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return [PretrainReport(**report) for report in state["reports"]]


def check_writable(out: Path) -> None:
    """Creates the folder of `out`, so that a wrong path is noticed before anything is trained.

    Raises:
        UserError: if it cannot be created or written.
    """
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass


@contextmanager
def _writing(out: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
