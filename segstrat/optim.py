"""Parameter groups and the two update rules: one summed step, or one step per group (asynchronous)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.distributed import OverlappedSum, sum_gradients
from segstrat.models.segmenter import Segmenter

COMMON = "common"
ADAM_BETA2 = 0.999


@dataclass
class ParameterGroup:
    """Parameters that are updated together by one optimizer: the shared backbone, or one head.

    Args:
        name: `common`, or the head's task.
        initial_lr: learning rate at the start of the budget.
        images_per_step: images of the group whose gradients make one asynchronous update.
        total_images: images of the group over the whole budget, the horizon of its cosine.
        images_seen: images of the group so far.
        pending: images of the group since its last update.
        overlapped: sums the gradients over several processes during the backward pass; otherwise after it.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    initial_lr: float
    images_per_step: int
    total_images: int
    images_seen: int = 0
    pending: int = 0
    steps: int = 0
    overlapped: OverlappedSum | None = None

    def sum_gradients(self) -> None:
        """Replaces the gradients by their sums over all processes that train the trial."""
        if self.overlapped is not None:
            self.overlapped.finish()
        else:
            sum_gradients(self.parameters)


def split_parameters(model: Segmenter) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by group: `common` (the backbone) and each head by its task.

    Raises:
        ValueError: if a parameter is in no group or in several.
    """
    groups = {COMMON: _trainable(model.backbone)}
    for task, head in model.heads.items():
        groups[task] = _trainable(head)
    placed = [id(parameter) for parameters in groups.values() for parameter in parameters]
    named = model.named_parameters()
    everything = {id(parameter): name for name, parameter in named if parameter.requires_grad}
    repeated = sorted({everything[key] for key in placed if placed.count(key) > 1})
    missing = sorted(name for key, name in everything.items() if key not in set(placed))
    if repeated or missing:
        raise ValueError(f"parameters in several groups: {repeated}; in none: {missing}")
    return groups


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def make_parameter_groups(
    model: Segmenter, config: TrialConfig, images_per_epoch: Mapping[str, int], *, fused: bool | None = None
) -> list[ParameterGroup]:
    """One group with its own optimizer for the backbone and for each head.

    Args:
        images_per_epoch: training images by group name: of each task, and of any task under `common`.
        fused: as in `torch.optim.SGD` and `torch.optim.AdamW`.
    """
    groups = []
    for name, parameters in split_parameters(model).items():
        factor = config.pretrained_lr_factor if name == COMMON and config.pretrained else 1.0
        lr = config.learning_rate * factor
        groups.append(
            ParameterGroup(
                name=name,
                parameters=parameters,
                optimizer=_make_optimizer(parameters, config, lr, fused=fused),
                initial_lr=lr,
                images_per_step=config.common_batch if name == COMMON else config.head_batch,
                total_images=images_per_epoch[name] * config.epochs,
            )
        )
    return groups


def _make_optimizer(
    parameters: list[nn.Parameter], config: TrialConfig, lr: float, *, fused: bool | None
) -> torch.optim.Optimizer:
    decay = config.weight_decay
    if config.optimizer == "adamw":
        betas = (config.momentum, ADAM_BETA2)
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=decay, fused=fused)
    return torch.optim.SGD(parameters, lr=lr, momentum=config.momentum, weight_decay=decay, fused=fused)


def warmup(progress: float, share: float) -> float:
    """Share of the scheduled learning rate at `progress` in (0, 1] of the budget, the step itself included.

    It rises linearly and is 1 from `share` of the budget on (Goyal et al. 2017, arXiv:1706.02677, §2.2).
    """
    return min(1.0, progress / share) if share > 0 else 1.0


def cosine(progress: float) -> float:
    """Share of the initial learning rate at `progress` in [0, 1] of the budget: 1 down to 0.

    Half a cosine, ½(1 + cos(π·progress)). Thesis Eq. 6.3 writes a recursion; its code is this closed form,
    evaluated once per iteration.
    """
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def _step(group: ParameterGroup, rate: float) -> None:
    """Updates a group at a share of its initial learning rate."""
    for options in group.optimizer.param_groups:
        options["lr"] = group.initial_lr * rate
    group.optimizer.step()
    # None, not zero: SGD decays a weight whose gradient is zero, and skips one whose gradient is None.
    group.optimizer.zero_grad(set_to_none=True)
    group.steps += 1


@dataclass
class SummedUpdate:
    """Every group steps after every (accumulated) batch; the losses of all tasks are summed.

    Args:
        warmup: share of the budget over which the learning rate rises.
        clip: largest norm of the gradient of all groups that step together; 0 does not clip.
    """

    groups: list[ParameterGroup]
    total_steps: int
    steps: int = 0
    warmup: float = 0.0
    clip: float = 0.0

    def after_backward(self, images: Mapping[str, int]) -> None:
        """Updates the model; the gradients are those of the whole batch.

        Args:
            images: images of this batch by group name; a head without any is not updated.
        """
        stepping = [group for group in self.groups if images.get(group.name, 0)]
        _clip(stepping, self.clip)
        rate = cosine(self.steps / self.total_steps)
        rate *= warmup((self.steps + 1) / self.total_steps, self.warmup)
        for group in stepping:
            group.images_seen += images[group.name]
            _step(group, rate)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to resume."""
        return {"steps": self.steps, "groups": {group.name: _group_state(group) for group in self.groups}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from `state_dict`."""
        self.steps = state["steps"]
        _load_groups(self.groups, state["groups"])


@dataclass
class AsynchronousUpdate:
    """Each group steps when its own image counter is full (UberNet, arXiv:1609.02132, Table 3).

    Gradients of per-image losses accumulate over batches. After a batch, a group whose counter has reached
    its effective batch size divides its gradient by the counter, steps, and starts again from zero. Batches
    are not split at a full counter, so that batch norm sees whole (mixed) batches; a step may then average
    over a few images more than the effective batch.

    Args:
        warmup: share of a group's images over which its learning rate rises.
        clip: largest norm of the gradient of a group; 0 does not clip.
    """

    groups: list[ParameterGroup] = field(default_factory=list)
    warmup: float = 0.0
    clip: float = 0.0

    def after_backward(self, images: Mapping[str, int]) -> None:
        """Counts the batch's images and updates the groups whose counter is full.

        Args:
            images: images of this batch by group name: `common` counts every image, a head its own.
        """
        for group in self.groups:
            group.images_seen += images.get(group.name, 0)
            group.pending += images.get(group.name, 0)
            if group.pending >= group.images_per_step:
                for parameter in group.parameters:
                    if parameter.grad is not None:
                        parameter.grad.div_(group.pending)
                _clip([group], self.clip)
                rate = cosine((group.images_seen - group.pending) / group.total_images)
                _step(group, rate * warmup(group.images_seen / group.total_images, self.warmup))
                group.pending = 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to resume, gradients of unfinished counters included."""
        state = {group.name: _group_state(group) for group in self.groups}
        for group in self.groups:
            state[group.name]["gradients"] = [parameter.grad for parameter in group.parameters]
        return {"groups": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from `state_dict`."""
        _load_groups(self.groups, state["groups"])
        for group in self.groups:
            gradients = state["groups"][group.name]["gradients"]
            for parameter, gradient in zip(group.parameters, gradients, strict=True):
                parameter.grad = None if gradient is None else gradient.to(parameter.device).clone()


def _clip(groups: Iterable[ParameterGroup], largest: float) -> None:
    """Scales the gradients of some groups, so that their common norm is at most `largest`; 0 does not."""
    if largest:
        parameters = [parameter for group in groups for parameter in group.parameters]
        nn.utils.clip_grad_norm_(parameters, largest)


Update = SummedUpdate | AsynchronousUpdate


def make_update(groups: list[ParameterGroup], config: TrialConfig, steps_per_epoch: int) -> Update:
    """The update rule of a config."""
    options = {"warmup": config.warmup_epochs / config.epochs, "clip": config.clip_gradient}
    if config.asynchronous:
        return AsynchronousUpdate(groups, **options)
    return SummedUpdate(groups, total_steps=steps_per_epoch * config.epochs, **options)


def _group_state(group: ParameterGroup) -> dict[str, Any]:
    return {
        "optimizer": group.optimizer.state_dict(),
        "images_seen": group.images_seen,
        "pending": group.pending,
        "steps": group.steps,
    }


def _load_groups(groups: Iterable[ParameterGroup], state: Mapping[str, Any]) -> None:
    for group in groups:
        saved = state[group.name]
        group.optimizer.load_state_dict(saved["optimizer"])
        group.images_seen, group.pending, group.steps = saved["images_seen"], saved["pending"], saved["steps"]
