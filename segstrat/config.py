"""`TrialConfig`: everything that decides what a training run learns, and nothing about the machine."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segstrat.errors import UserError, unknown_name

MODELS = ("fcn32s", "fcn16s", "fcn8s", "sunet64", "sunet128", "sunet7128")
BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "resnet101"),
    *("vgg16", "vgg16_bn", "alexnet", "squeezenet1_1"),
)
TASKS = ("semseg", "parts", "boundaries")


# Fields whose value 0 means: no such regularization.
REGULARIZERS = ("weight_decay", "dropout", "label_smoothing", "stochastic_depth")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run: data, model, regularizers, optimization, seed.

    Defaults are the thesis's first series on D1 (Table 6.1, raw arm) unless stated. Every field changes
    the run; `tests/test_config.py` varies each one and looks for the change. What only changes the speed
    (device, precision, threads) is in `segstrat.machine.Machine`.
    """

    data: str = "d1"
    """Name of a data protocol, see `segstrat.data.PROTOCOLS`."""
    tasks: tuple[str, ...] = ("semseg",)
    """Tasks that are learnt together, each with a head of its own (thesis Fig. 4.4)."""
    label_fraction: float = 1.0
    """Share of the training images that is used, in (0, 1]: seeded, nested subsets."""

    model: str = "fcn32s"
    """Architecture; one of `MODELS`."""
    backbone: str | None = None
    """Backbone of an FCN, one of `BACKBONES` (`resnet18` if not given); a SUNet is its own backbone."""
    width: float = 1.0
    """Multiplier on every channel count of the backbone; 1 is the published network."""
    output_stride: int | None = None
    """SUNet only: input pixels per feature pixel, 8, 16 (as published) or 32."""
    pretrained: bool = False
    """Start the backbone from `weights`, and train it at `pretrained_lr_factor` of the learning rate."""
    weights: str | None = None
    """`imagenet`, or a path of a checkpoint; read only where `pretrained` is true."""
    freeze_batch_norm: bool = False
    """Keep the backbone's batch-norm statistics and affine parameters as they start."""

    weight_decay: float = 5e-4
    """L2 penalty of SGD, on every parameter as in the thesis."""
    dropout: float = 0.0
    """Drop probability; where it acts is stated per model in docs/models.md. 0 builds no dropout."""
    stochastic_depth: float = 0.0
    """Drop probability of the deepest residual branch, growing linearly from 0 (Huang et al. 2016)."""
    label_smoothing: float = 0.0
    """Weight of the uniform distribution in the cross-entropy target."""
    augmentation: float = 1.0
    """Strength: scale in [2^-s, 2^s], rotation within ±10·s degrees, flip at p = s/2 (at most ½)."""
    crop_size: int = 512
    """Side of the square training crop, in pixels."""

    epochs: int = 300
    """Passes over the training images: the trial's whole budget."""
    batch_size: int = 10
    """Images per forward pass."""
    accumulation_steps: int = 1
    """Forward passes whose gradients make one update."""
    learning_rate: float = 5e-3
    """Initial rate of the new part; decays by a half cosine to 0 over the budget (thesis Eq. 6.3)."""
    pretrained_lr_factor: float = 0.1
    """Rate of the pre-trained part, as a share of `learning_rate`."""
    momentum: float = 0.9
    """Momentum of SGD."""
    asynchronous: bool = False
    """Update each part of the model by its own image count (UberNet, arXiv:1609.02132, Table 3)."""
    common_batch: int = 20
    """Asynchronous only: images per update of the shared backbone."""
    head_batch: int = 10
    """Asynchronous only: images of its own task per update of a head."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""

    seed: int = 0
    """Of initialization, data order, augmentation, dropout and the label subset."""

    def __post_init__(self) -> None:
        _check_types(self)
        if self.model not in MODELS:
            raise unknown_name("model", self.model, MODELS)
        if self.model.startswith("sunet"):
            if self.backbone not in (None, self.model):
                raise UserError(
                    f"model {self.model} is its own backbone; backbone={self.backbone!r} must be left out"
                )
            object.__setattr__(self, "backbone", self.model)
        else:
            if self.backbone is None:
                object.__setattr__(self, "backbone", "resnet18")
            if self.backbone not in BACKBONES:
                raise unknown_name("backbone", self.backbone, BACKBONES)
            if self.output_stride is not None:
                raise UserError(
                    f"output_stride={self.output_stride}: {self.model} has a fixed one; leave it out "
                    "or choose fcn16s / fcn8s for finer maps"
                )
        _check_ranges(self)
        for task in self.tasks:
            if task not in TASKS:
                raise unknown_name("task", task, TASKS)
        if len(set(self.tasks)) != len(self.tasks):
            raise UserError(f"tasks={self.tasks}: each task may stand there once")

    @property
    def multi_task(self) -> bool:
        """Whether several tasks share the backbone."""
        return len(self.tasks) > 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Builds a config from plain values; lists stand for tuples, as JSON has none.

        Raises:
            UserError: for an unknown field (with the nearest valid name) or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(
                    f"unknown TrialConfig field {name!r}: {hint}Valid fields: {', '.join(sorted(known))}."
                )
        values = dict(values)
        if isinstance(values.get("tasks"), list):
            values["tasks"] = tuple(values["tasks"])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` is the inverse."""
        values = dataclasses.asdict(self)
        values["tasks"] = list(self.tasks)
        return values

    def digest(self) -> str:
        """Ten hex digits that name this config; the trial's id and folder.

        Where the weights lie is not part of it: their content is checked by its own digest.
        """
        values = self.to_dict() | {"weights": self.weights is not None}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def _check_types(config: TrialConfig) -> None:
    expected = {"str": str, "int": int, "bool": bool, "float": float, "tuple[str, ...]": tuple}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        kinds = [kind.strip() for kind in str(_annotation(field)).split("|")]
        if value is None and "None" in kinds:
            continue
        kind = kinds[0]
        # An int is a fine float, but a bool is no number and 10.0 is no batch size.
        fits = isinstance(value, expected[kind]) or (kind == "float" and isinstance(value, int))
        if (isinstance(value, bool) and kind != "bool") or not fits:
            raise UserError(
                f"TrialConfig.{field.name} must be {' or '.join(kinds)}, not {type(value).__name__} {value!r}"
            )
        if kind == "float":
            object.__setattr__(config, field.name, float(value))


def _annotation(field: dataclasses.Field) -> str:
    kind = field.type
    return kind.__name__ if isinstance(kind, type) and "[" not in str(kind) else str(kind)


def _check_ranges(config: TrialConfig) -> None:
    def require(condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise UserError(f"TrialConfig.{name}={getattr(config, name)!r}: expected {expected}")

    require(len(config.tasks) > 0, "tasks", "at least one task")
    for name in ("label_fraction", "pretrained_lr_factor"):
        require(0 < getattr(config, name) <= 1, name, "a number in (0, 1]")
    for name in ("dropout", "stochastic_depth", "label_smoothing", "momentum"):
        require(0 <= getattr(config, name) < 1, name, "a number in [0, 1)")
    require(0 <= config.weight_decay < float("inf"), "weight_decay", "a number ≥ 0")
    require(0 < config.learning_rate < float("inf"), "learning_rate", "a number > 0")
    require(0 < config.width <= 4, "width", "a number in (0, 4]")
    require(0 <= config.augmentation <= 2, "augmentation", "a number in [0, 2]")
    for name in (
        "epochs",
        "batch_size",
        "accumulation_steps",
        "common_batch",
        "head_batch",
        "validate_every",
    ):
        require(getattr(config, name) >= 1, name, "a whole number ≥ 1")
    require(config.crop_size >= 32, "crop_size", "at least 32 pixels")
    require(config.seed >= 0, "seed", "a whole number ≥ 0")
    require(config.output_stride in (None, 8, 16, 32), "output_stride", "8, 16 or 32")
    require(
        not config.pretrained or config.weights is not None,
        "pretrained",
        "`weights` beside it (imagenet, or a path)",
    )
    require(
        not (config.asynchronous and config.accumulation_steps > 1),
        "accumulation_steps",
        "1 with asynchronous updates, whose counters already accumulate",
    )
