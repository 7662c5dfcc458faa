"""`TrialConfig`: all that decides what a training run learns. `Numerics`: how it computes. Loads no torch.

The names of all backbones, models and tasks are here too.
"""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from segstrat.errors import UserError, unknown_name

BACKBONES = {
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "vgg16": "vgg",
    "vgg16_bn": "vgg",
    "alexnet": "alexnet",
    "squeezenet1_1": "squeezenet",
    "sunet64": "sunet",
    "sunet128": "sunet",
    "sunet7128": "sunet",
}
"""Family of each backbone; `segstrat.models.FAMILIES` has its class."""

FCN_STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
"""Stride of the finest map that an FCN head uses."""

SUNETS = tuple(name for name, family in BACKBONES.items() if family == "sunet")
"""A SUNet is a model and its own backbone."""

FCN_BACKBONES = tuple(name for name in BACKBONES if name not in SUNETS)
MODELS = (*FCN_STRIDES, *SUNETS)

WITHOUT_BATCH_NORM = ("vgg16", "alexnet", "squeezenet1_1")
"""They need smaller learning rates, and are the only ones that several processes train on CPUs."""

TASKS = ("semseg", "parts", "boundaries")

OWN_DATA = "folder"
"""The protocol of a user's own images."""


@dataclass(frozen=True)
class Limit:
    """Values that a field may have, and what an error message says of them."""

    expected: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Limit("a whole number ≥ 1", lambda value: value >= 1)]
PositiveShare = Annotated[float, Limit("a number in (0, 1]", lambda value: 0 < value <= 1)]
Probability = Annotated[float, Limit("a number in [0, 1)", lambda value: 0 <= value < 1)]

# Fields whose value 0 means: no such regularization.
REGULARIZERS = ("weight_decay", "dropout", "label_smoothing", "stochastic_depth")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run: data, model, regularizers, optimization, seed.

    Defaults are the thesis's first series on D1 (Table 6.1, raw arm) unless stated. Every field changes
    the run; `tests/test_train.py` varies each one and checks the change. What only changes the speed
    (device, precision, threads) is in `segstrat.machine.Machine`.
    """

    data: str = "d1"
    """Name of a data protocol, see `segstrat.data.PROTOCOLS`."""
    tasks: Annotated[tuple[str, ...], Limit("at least one task", bool)] = ("semseg",)
    """Tasks that are learned together, each with its own head (thesis Fig. 4.4)."""
    label_fraction: PositiveShare = 1.0
    """Share of the training images that is used: seeded, nested subsets."""

    model: str = "fcn32s"
    """Architecture; one of `MODELS`."""
    backbone: str | None = None
    """Backbone of an FCN, one of `FCN_BACKBONES` (`resnet18` by default); a SUNet is its own backbone."""
    width: Annotated[float, Limit("a number in (0, 4]", lambda value: 0 < value <= 4)] = 1.0
    """Multiplier on every channel count of the backbone; 1 is the published network."""
    output_stride: Annotated[int | None, Limit("8, 16 or 32", lambda value: value in (8, 16, 32))] = None
    """SUNet only: input pixels per feature pixel; 16 as published."""
    pretrained: bool = False
    """Start the backbone from `weights`, and train it at `pretrained_lr_factor` of the learning rate."""
    weights: str | None = None
    """`imagenet`, or a path of a checkpoint; read only where `pretrained` is true."""
    freeze_batch_norm: bool = False
    """Keep the backbone's batch-norm statistics and affine parameters at their initial values."""

    weight_decay: Annotated[float, Limit("a number ≥ 0", lambda value: 0 <= value < math.inf)] = 5e-4
    """L2 penalty of SGD, on every parameter as in the thesis."""
    dropout: Probability = 0.0
    """Drop probability; docs/models.md says where it is applied in each model. 0 builds no dropout."""
    stochastic_depth: Probability = 0.0
    """Drop probability of the deepest residual branch, growing linearly from 0 (Huang et al. 2016)."""
    label_smoothing: Probability = 0.0
    """Weight of the uniform distribution in the cross-entropy target."""
    augmentation: Annotated[float, Limit("a number in [0, 2]", lambda value: 0 <= value <= 2)] = 1.0
    """Strength: scale in [2^-s, 2^s], rotation within ±10·s degrees, flip at p = s/2 (at most ½)."""
    crop_size: Annotated[int, Limit("at least 32 pixels", lambda value: value >= 32)] = 512
    """Side of the square training crop, in pixels."""

    epochs: Count = 300
    """Passes over the training images: the trial's whole budget."""
    batch_size: Count = 10
    """Images per forward pass."""
    accumulation_steps: Count = 1
    """Forward passes whose gradients make one update."""
    learning_rate: Annotated[float, Limit("a number > 0", lambda value: 0 < value < math.inf)] = 5e-3
    """Initial rate of heads and raw backbones; falls to 0 by a half cosine (thesis Eq. 6.3)."""
    pretrained_lr_factor: PositiveShare = 0.1
    """Rate of a pre-trained backbone, as a share of `learning_rate`."""
    momentum: Probability = 0.9
    """Momentum of SGD."""
    asynchronous: bool = False
    """Update backbone and heads each by its own image count (UberNet, arXiv:1609.02132, Table 3)."""
    common_batch: Count = 20
    """Asynchronous only: images per update of the shared backbone."""
    head_batch: Count = 10
    """Asynchronous only: images of its own task per update of a head."""
    validate_every: Count = 1
    """Epochs between validations; the last epoch is always validated."""

    seed: Annotated[int, Limit("a whole number ≥ 0", lambda value: value >= 0)] = 0
    """Of initialization, data order, augmentation, dropout and the label subset."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(self, field)
        _check_model(self)
        for task in self.tasks:
            if task not in TASKS:
                raise unknown_name("task", task, TASKS)
        if len(set(self.tasks)) != len(self.tasks):
            raise UserError(f"TrialConfig.tasks={self.tasks}: expected each task once")
        if self.pretrained and self.weights is None:
            raise UserError(
                "TrialConfig.pretrained=True: expected `weights` as well (imagenet, or a path); give a study "
                "--weights, or let it train them on a classification folder with --pretrain-on DIR"
            )
        if self.asynchronous and self.accumulation_steps > 1:
            raise UserError(
                f"TrialConfig.accumulation_steps={self.accumulation_steps}: expected 1 with asynchronous "
                "updates, whose counters already accumulate"
            )

    @property
    def multi_task(self) -> bool:
        """Whether several tasks share the backbone."""
        return len(self.tasks) > 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Builds a config from plain values; lists become tuples, which JSON does not have.

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

    def needs_one_process(self) -> str:
        """Why several processes cannot train this configuration, '' if they can."""
        if self.asynchronous:
            return "its parameter groups update asynchronously, in one process"
        if self.accumulation_steps > 1:
            # Processes might cut their shares into different numbers of micro-batches.
            return "it accumulates gradients; set batch_size to the whole batch instead"
        return ""

    def digest(self) -> str:
        """Ten hex digits that name this config; the trial's id and folder.

        The path of the weights is not part of it: their content is checked by its own digest.
        """
        values = self.to_dict() | {"weights": self.weights is not None}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


PrecisionOption = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What changes a run's speed, and its results by rounding only.

    Args:
        precision: type of the matrix products; weights, losses and scores stay float32. `auto` takes the
            type that the device's hardware multiplies fastest. Torch's default on CUDA stands: float32
            convolutions are computed in TensorFloat-32, with 10 bits of mantissa.
        deterministic: deterministic CUDA algorithms, so that a resumed trial ends bit-identical.
        compile: run training steps through `torch.compile`, on CUDA as CUDA graphs. `auto` does so on CUDA
            where the trial is long enough to repay the start, has one process, and finds a C compiler.
        device_cache: keep the whole decoded training set on the device and augment there. `auto` does so on
            CUDA where it fits, unless `deterministic`: whether it fits may change between two runs.
    """

    precision: PrecisionOption = "auto"
    deterministic: bool = False
    compile: bool | Literal["auto"] = "auto"
    device_cache: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in get_args(PrecisionOption):
            raise unknown_name("precision", self.precision, get_args(PrecisionOption))

    def numerics(self) -> dict[str, Any]:
        """These settings alone, as plain values; `Numerics(**values)` is the inverse."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Numerics)}


def _check_field(config: TrialConfig, field: dataclasses.Field) -> None:
    """Checks the type of a field and its limit; an int becomes a float where the field is one."""
    value = getattr(config, field.name)
    kind, *limits = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
    allowed = [get_origin(option) or option for option in _options(kind)]
    # An int is a valid float, but a bool is not a number and 10.0 is not a batch size.
    fits = isinstance(value, tuple(allowed)) or (float in allowed and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in allowed):
        expected = " or ".join("None" if option is type(None) else option.__name__ for option in allowed)
        raise UserError(f"TrialConfig.{field.name} must be {expected}, not {type(value).__name__} {value!r}")
    if float in allowed:
        value = float(value)
        object.__setattr__(config, field.name, value)
    for limit in limits:
        if value is not None and not limit.holds(value):
            raise UserError(f"TrialConfig.{field.name}={value!r}: expected {limit.expected}")


def _options(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of any other annotation, itself."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _check_model(config: TrialConfig) -> None:
    """Checks that model and backbone fit each other, and fills in the backbone."""
    if config.model not in MODELS:
        raise unknown_name("model", config.model, MODELS)
    if config.model in SUNETS:
        if config.backbone not in (None, config.model):
            raise UserError(
                f"model {config.model} is its own backbone; backbone={config.backbone!r} must be left out"
            )
        object.__setattr__(config, "backbone", config.model)
        return
    if config.backbone is None:
        object.__setattr__(config, "backbone", "resnet18")
    if config.backbone not in FCN_BACKBONES:
        raise unknown_name("backbone", config.backbone, FCN_BACKBONES)
    if config.output_stride is not None:
        raise UserError(
            f"output_stride={config.output_stride}: {config.model} has a fixed one; leave it out or choose "
            "fcn16s / fcn8s for finer maps"
        )
