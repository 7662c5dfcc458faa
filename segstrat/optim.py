"""Parameter groups and the two update rules: one summed step, or one step per part (asynchronous)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.models.segmenter import Segmenter
from segstrat.schedules import cosine

COMMON = "common"


@dataclass
class Part:
    """A part of the model that is updated together: the shared backbone, or one head.

    Args:
        name: `common`, or the head's task.
        initial_lr: learning rate at the start of the budget.
        images_per_step: images of its own whose gradients make one update.
        total_images: images of its own over the whole budget, the horizon of its cosine.
        images_seen: images of its own so far.
        pending: images of its own since its last update.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.SGD
    initial_lr: float
    images_per_step: int
    total_images: int
    images_seen: int = 0
    pending: int = 0
    steps: int = 0


def split_parameters(model: Segmenter) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by part: `common` (the backbone) and each head by its task.

    Raises:
        ValueError: if a parameter is in no part or in several.
    """
    parts = {COMMON: _trainable(model.backbone)}
    for task, head in model.heads.items():
        parts[task] = _trainable(head)
    placed = [id(parameter) for parameters in parts.values() for parameter in parameters]
    named = model.named_parameters()
    everything = {id(parameter): name for name, parameter in named if parameter.requires_grad}
    twice = sorted({everything[key] for key in placed if placed.count(key) > 1})
    nowhere = sorted(name for key, name in everything.items() if key not in set(placed))
    if twice or nowhere:
        raise ValueError(f"parameters in several parts: {twice}; in none: {nowhere}")
    return parts


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def make_parts(
    model: Segmenter, config: TrialConfig, images_per_epoch: Mapping[str, int], *, fused: bool | None = None
) -> list[Part]:
    """One part with an SGD of its own for the backbone and for each head.

    Args:
        images_per_epoch: training images by part name: of each task, and of any task under `common`.
        fused: as in `torch.optim.SGD`.
    """
    parts = []
    for name, parameters in split_parameters(model).items():
        factor = config.pretrained_lr_factor if name == COMMON and config.pretrained else 1.0
        lr = config.learning_rate * factor
        sgd = torch.optim.SGD(
            parameters, lr=lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
        parts.append(
            Part(
                name=name,
                parameters=parameters,
                optimizer=sgd,
                initial_lr=lr,
                images_per_step=config.common_batch if name == COMMON else config.head_batch,
                total_images=images_per_epoch[name] * config.epochs,
            )
        )
    return parts


def _step(part: Part, progress: float) -> None:
    for group in part.optimizer.param_groups:
        group["lr"] = part.initial_lr * cosine(progress)
    part.optimizer.step()
    # None, not zero: SGD decays a weight whose gradient is zero, and skips one whose gradient is None.
    part.optimizer.zero_grad(set_to_none=True)
    part.steps += 1


@dataclass
class SummedUpdate:
    """Every part steps after every (accumulated) batch; the losses of all tasks are summed."""

    parts: list[Part]
    total_steps: int
    steps: int = 0

    def after_backward(self, images: Mapping[str, int]) -> None:
        """Updates the model; the gradients are those of the whole batch.

        Args:
            images: images of this batch by part name; a head without any is left alone.
        """
        for part in self.parts:
            part.images_seen += images.get(part.name, 0)
            if images.get(part.name, 0):
                _step(part, self.steps / self.total_steps)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"steps": self.steps, "parts": {part.name: _part_state(part) for part in self.parts}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.steps = state["steps"]
        _load_parts(self.parts, state["parts"])


@dataclass
class AsynchronousUpdate:
    """Each part steps when its own image counter is full (UberNet, arXiv:1609.02132, Table 3).

    Gradients of per-image losses accumulate over batches. After a batch, a part whose counter has reached
    its effective batch size divides its gradient by the counter, steps, and starts again from zero. Batches
    are not cut at a full counter, so that batch norm sees whole (mixed) batches; a step may then average
    over a few images more than the effective batch.
    """

    parts: list[Part] = field(default_factory=list)

    def after_backward(self, images: Mapping[str, int]) -> None:
        """Counts the batch's images and updates the parts whose counter is full.

        Args:
            images: images of this batch by part name: `common` counts every image, a head its own.
        """
        for part in self.parts:
            part.images_seen += images.get(part.name, 0)
            part.pending += images.get(part.name, 0)
            if part.pending >= part.images_per_step:
                for parameter in part.parameters:
                    if parameter.grad is not None:
                        parameter.grad.div_(part.pending)
                _step(part, (part.images_seen - part.pending) / part.total_images)
                part.pending = 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on, gradients of unfinished counters included."""
        state = {part.name: _part_state(part) for part in self.parts}
        for part in self.parts:
            state[part.name]["gradients"] = [parameter.grad for parameter in part.parameters]
        return {"parts": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        _load_parts(self.parts, state["parts"])
        for part in self.parts:
            gradients = state["parts"][part.name]["gradients"]
            for parameter, gradient in zip(part.parameters, gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device).clone()


def _part_state(part: Part) -> dict[str, Any]:
    return {
        "optimizer": part.optimizer.state_dict(),
        "images_seen": part.images_seen,
        "pending": part.pending,
        "steps": part.steps,
    }


def _load_parts(parts: Iterable[Part], state: Mapping[str, Any]) -> None:
    for part in parts:
        saved = state[part.name]
        part.optimizer.load_state_dict(saved["optimizer"])
        part.images_seen, part.pending, part.steps = saved["images_seen"], saved["pending"], saved["steps"]
