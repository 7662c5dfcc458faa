"""`TrialConfig`: all that decides what a training run learns. `Numerics`: how it computes. Loads no torch.

The names of all backbones, models and tasks are here too.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from segstrat.errors import UserError, listed, unknown_name

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

TIMM_PREFIX = "timm/"
"""Begins the names of timm's networks, which are backbones of FCNs where timm is installed."""

MODELS = (*FCN_STRIDES, *SUNETS)

WITHOUT_BATCH_NORM = ("vgg16", "alexnet", "squeezenet1_1")
"""They need smaller learning rates, and are the only ones that several processes train on CPUs."""

TASKS = ("semseg", "parts", "boundaries")

OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("cross_entropy", "dice", "focal", "ohem")
CLASS_WEIGHTS = ("none", "inverse_frequency", "effective_number")
# Losses that are no sums over pixels: those of a part of a batch do not add up to that of the batch.
_WHOLE_BATCH_LOSSES = ("dice", "ohem")
# Losses whose target label smoothing changes.
_SMOOTHED_LOSSES = ("cross_entropy", "ohem")

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
NotNegative = Annotated[float, Limit("a number ≥ 0", lambda value: 0 <= value < math.inf)]

# See `TrialConfig.digest`.
YOUNGER_FIELDS = (
    *("loss", "class_weights", "optimizer", "warmup_epochs", "clip_gradient"),
    *("boundary_tolerance", "initialization"),
)

RAW, SELF, GIVEN = "raw", "self", "given"
INITIALIZATIONS = (RAW, SELF, GIVEN)
"""From what a backbone starts: nothing, self-supervision on the study's own images, or other weights."""

# Fields whose value 0 means: no such regularization.
REGULARIZERS = ("weight_decay", "dropout", "label_smoothing", "stochastic_depth")


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run: data, model, regularizers, optimization, seed.

    Defaults are the thesis's first series on D1 (Table 6.1, raw arm) unless stated. Every field changes
    the run or its scores; `tests/test_train.py` varies each one and checks the change. What only changes the
    speed (device, precision, threads) is in `segstrat.machine.Machine`.
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
    """Backbone of an FCN: one of `FCN_BACKBONES` (`resnet18` by default), or `timm/<name>`."""
    width: Annotated[float, Limit("a number in (0, 4]", lambda value: 0 < value <= 4)] = 1.0
    """Multiplier on every channel count of the backbone; 1 is the published network."""
    output_stride: Annotated[int | None, Limit("8, 16 or 32", lambda value: value in (8, 16, 32))] = None
    """SUNet only: input pixels per feature pixel; 16 as published."""
    pretrained: bool = False
    """Start the backbone from `weights`, and train it at `pretrained_lr_factor` of the learning rate."""
    weights: str | None = None
    """`imagenet`, or a path of a checkpoint; read only where `pretrained` is true."""
    initialization: str = ""
    """`raw`, `self` (self-supervised on the study's images) or `given`; decides `pretrained` unless ''."""
    freeze_batch_norm: bool = False
    """Keep the backbone's batch-norm statistics and affine parameters at their initial values."""

    weight_decay: NotNegative = 5e-4
    """L2 penalty of SGD, decoupled decay of AdamW; on every parameter as in the thesis."""
    dropout: Probability = 0.0
    """Drop probability; docs/models.md says where it is applied in each model. 0 builds no dropout."""
    stochastic_depth: Probability = 0.0
    """Drop probability of the deepest residual branch, growing linearly from 0 (Huang et al. 2016)."""
    label_smoothing: Probability = 0.0
    """Weight of the uniform distribution in the target of `cross_entropy` and `ohem`."""
    augmentation: Annotated[float, Limit("a number in [0, 2]", lambda value: 0 <= value <= 2)] = 1.0
    """Strength: scale in [2^-s, 2^s], rotation within ±10·s degrees, flip at p = s/2 (at most ½)."""
    crop_size: Annotated[int, Limit("32 to 8192 pixels", lambda value: 32 <= value <= 8192)] = 512
    """Side of the square training crop, in pixels."""

    epochs: Count = 300
    """Passes over the training images: the trial's whole budget."""
    batch_size: Count = 10
    """Images per forward pass."""
    accumulation_steps: Count = 1
    """Forward passes whose gradients make one update."""
    loss: str = "cross_entropy"
    """`cross_entropy`, `dice`, `focal`, `ohem`, or a sum of two as `cross_entropy+dice`; of every task."""
    class_weights: str | tuple[float, ...] = "none"
    """`none`, `inverse_frequency`, `effective_number`, or a list for the first task's classes."""
    optimizer: str = "sgd"
    """`sgd` with momentum, or `adamw`."""
    learning_rate: Annotated[float, Limit("a number > 0", lambda value: 0 < value < math.inf)] = 5e-3
    """Initial rate of heads and raw backbones; falls to 0 by a half cosine (thesis Eq. 6.3)."""
    warmup_epochs: NotNegative = 0.0
    """Epochs over which the rate rises linearly to the cosine's; a study scales them with the epochs."""
    clip_gradient: NotNegative = 0.0
    """Largest norm of the gradient of an update, over all its parameters; 0 does not clip."""
    pretrained_lr_factor: PositiveShare = 0.1
    """Rate of a pre-trained backbone, as a share of `learning_rate`."""
    momentum: Probability = 0.9
    """Momentum of SGD, β₁ of AdamW (β₂ is 0.999)."""
    asynchronous: bool = False
    """Update backbone and heads each by its own image count (UberNet, arXiv:1609.02132, Table 3)."""
    common_batch: Count = 20
    """Asynchronous only: images per update of the shared backbone."""
    head_batch: Count = 10
    """Asynchronous only: images of its own task per update of a head."""
    validate_every: Count = 1
    """Epochs between validations; the last epoch is always validated."""
    boundary_tolerance: NotNegative = 0.0
    """Distance within which boundaries agree, as a share of the image's diagonal; 0 does not score them."""

    seed: Annotated[int, Limit("a whole number from 0 to 2⁶³ − 1", lambda value: 0 <= value < 2**63)] = 0
    """Of initialization, data order, augmentation, dropout and the label subset."""

    def __post_init__(self) -> None:
        _check_fields(self)
        _check_model(self)
        for task in self.tasks:
            if task not in TASKS:
                raise unknown_name("task", task, TASKS)
        if len(set(self.tasks)) != len(self.tasks):
            raise UserError(f"TrialConfig.tasks={self.tasks}: expected each task once")
        _check_initialization(self)
        if self.pretrained and self.weights is None:
            rest = "initialization=raw,self" if self.initialization else "pretrained=no"
            raise UserError(
                "TrialConfig.pretrained=True: expected `weights` as well (imagenet, or a path); give a study "
                "--weights, let it train them on a classification folder with --pretrain-on DIR, or train "
                f"the other arms alone with --set {rest}"
            )
        _check_loss(self)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.warmup_epochs >= self.epochs:
            raise UserError(
                f"TrialConfig.warmup_epochs={self.warmup_epochs:g}: expected less than {self.epochs} epochs"
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

    @property
    def start(self) -> str:
        """From what the backbone starts, one of `INITIALIZATIONS`."""
        return start_of(self.initialization, pretrained=self.pretrained)

    @property
    def losses(self) -> tuple[str, ...]:
        """The terms of `loss`."""
        return tuple(self.loss.split("+"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Builds a config from plain values; lists become tuples, which JSON does not have.

        Without `pretrained`, `initialization` decides it.

        Raises:
            UserError: for an unknown field (with the nearest valid name) or a value out of range.
        """
        known = _fields()
        if not values.keys() <= known.keys():
            name = next(name for name in values if name not in known)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"unknown TrialConfig field {name!r}: {hint}Valid fields: {', '.join(sorted(known))}."
            )
        values = dict(values)
        if values.get("initialization"):
            values.setdefault("pretrained", values["initialization"] != RAW)
        for name in ("tasks", "class_weights"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` is the inverse."""
        # No value is more than a tuple of plain ones, so none has to be copied.
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }

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

        The path of the weights is not part of it: their content is checked by its own digest. A field that
        is younger than the first studies is part of it where it differs from its default, so that trials from
        before it keep their ids.
        """
        values = self.to_dict() | {"weights": self.weights is not None}
        for name in YOUNGER_FIELDS:
            # The default of a field is the class's attribute.
            if getattr(self, name) == getattr(TrialConfig, name):
                del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


PrecisionOption = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What changes a run's speed, and its results by rounding only.

    Args:
        precision: type of the matrix products; weights, losses and scores stay float32. `auto` takes the
            type that the device's hardware multiplies fastest; a study measures it, see docs/cluster.md.
            Torch's default on CUDA stands: float32 convolutions are computed in TensorFloat-32, with 10 bits
            of mantissa.
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


@functools.cache
def _fields() -> dict[str, tuple[tuple[type, ...], tuple[Limit, ...]]]:
    """The types and limits of each field; found once, as a large study has thousands of configs."""
    found = {}
    for field in dataclasses.fields(TrialConfig):
        kind, *limits = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
        found[field.name] = tuple(get_origin(option) or option for option in _options(kind)), tuple(limits)
    return found


def _check_fields(config: TrialConfig) -> None:
    """Checks the types and limits of all fields; an int becomes a float where the field is one."""
    for name, value in list(vars(config).items()):
        try:
            as_float = _is_float(name, value)
        except TypeError:  # a list, for example
            as_float = _is_float.__wrapped__(name, value)
        if as_float and type(value) is not float:
            object.__setattr__(config, name, float(value))


# A large study has thousands of configs, of few different values.
@functools.lru_cache(maxsize=4096, typed=True)
def _is_float(name: str, value: Any) -> bool:
    """Whether a value that is valid for a field is, or becomes, a float; raises a UserError for others."""
    allowed, limits = _fields()[name]
    # An int is a valid float, but a bool is not a number and 10.0 is not a batch size.
    fits = isinstance(value, allowed) or (float in allowed and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in allowed):
        expected = " or ".join("None" if option is type(None) else option.__name__ for option in allowed)
        raise UserError(f"TrialConfig.{name} must be {expected}, not {type(value).__name__} {value!r}")
    for limit in limits:
        if value is not None and not limit.holds(value):
            raise UserError(f"TrialConfig.{name}={value!r}: expected {limit.expected}")
    return float in allowed


def parse_field(name: str, text: str) -> Any:
    """The value of a field of `TrialConfig` as a command line states it: `1e-3`, `yes`, `semseg+parts`.

    Raises:
        UserError: for an unknown field, or text that is no value of its type. Limits are not checked.
    """
    fields = {field.name: field.type for field in dataclasses.fields(TrialConfig)}
    if name not in fields:
        raise unknown_name("field", name, sorted(fields))
    kind = fields[name]
    kinds = _options(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
    if type(None) in kinds and text == "none":
        return None
    for each in kinds:
        if (value := _parsed(each, text)) is not None:
            return value
    names = " or ".join(getattr(get_origin(each) or each, "__name__", str(each)) for each in kinds)
    raise UserError(f"{name}={text}: expected {names.replace('NoneType', 'none')}")


def _parsed(kind: Any, text: str) -> Any:
    """Text as a value of a type; None if it is none."""
    if kind is bool:
        return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower())
    if get_origin(kind) is tuple:
        parts = [_parsed(get_args(kind)[0], part) for part in text.split("+")]
        return None if None in parts else tuple(parts)
    if kind is str:
        # A list of numbers is the other form of class weights.
        return None if text == "" or re.fullmatch(r"[\d.]+(\+[\d.]+)+", text) else text
    try:
        return kind(text) if kind in (int, float) else None
    except ValueError:
        return None


def _options(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of any other annotation, itself."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def start_of(initialization: str | None, *, pretrained: bool) -> str:
    """What `TrialConfig.start` is, also of trials that were recorded before `initialization` existed."""
    return initialization or (GIVEN if pretrained else RAW)


def _check_initialization(config: TrialConfig) -> None:
    """Checks that `initialization` and `pretrained` say the same."""
    if not config.initialization:
        return
    if config.initialization not in INITIALIZATIONS:
        raise unknown_name("initialization", config.initialization, INITIALIZATIONS)
    if config.pretrained != (config.initialization != RAW):
        raise UserError(
            f"TrialConfig.initialization={config.initialization!r}: expected pretrained="
            f"{config.initialization != RAW}, not {config.pretrained}; leave out `pretrained`, which follows"
        )


def _check_loss(config: TrialConfig) -> None:
    """Checks the loss and the class weights; writes a sum of losses in one order, and weights as floats."""
    losses = config.losses
    for name in losses:
        if name not in LOSSES:
            raise unknown_name("loss", name, LOSSES)
    terms = tuple(name for name in LOSSES if name in losses)
    if len(losses) > 2 or len(terms) < len(losses):
        raise UserError(
            f"TrialConfig.loss={config.loss!r}: expected one loss, or a sum of two different ones"
        )
    object.__setattr__(config, "loss", "+".join(terms))
    if config.accumulation_steps > 1 and (whole := [name for name in terms if name in _WHOLE_BATCH_LOSSES]):
        raise UserError(
            f"TrialConfig.accumulation_steps={config.accumulation_steps}: expected 1 with loss {whole[0]!r}, "
            "which is no sum over the parts of a batch; set batch_size to the whole batch"
        )
    if config.label_smoothing and not set(terms) & set(_SMOOTHED_LOSSES):
        raise UserError(
            f"TrialConfig.label_smoothing={config.label_smoothing:g}: expected 0 with loss {config.loss!r}, "
            f"whose target is not smoothed; that of {' and '.join(_SMOOTHED_LOSSES)} is"
        )
    weights = config.class_weights
    if isinstance(weights, str):
        if weights not in CLASS_WEIGHTS:
            raise unknown_name("class_weights", weights, CLASS_WEIGHTS)
        return
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in weights)
    if not (numbers and all(0 <= value < math.inf for value in weights) and any(weights)):
        raise UserError(
            f"TrialConfig.class_weights=[{listed(weights, 12)}]: expected a number ≥ 0 for each class, "
            "not all 0"
        )
    object.__setattr__(config, "class_weights", tuple(float(value) for value in weights))


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
    # Only timm knows its names; loading it takes seconds.
    if config.backbone not in FCN_BACKBONES and not str(config.backbone).startswith(TIMM_PREFIX):
        raise unknown_name("backbone", config.backbone, (*FCN_BACKBONES, f"{TIMM_PREFIX}<name>"))
    if config.output_stride is not None:
        raise UserError(
            f"output_stride={config.output_stride}: {config.model} has a fixed one; leave it out or choose "
            "fcn16s / fcn8s for finer maps"
        )
