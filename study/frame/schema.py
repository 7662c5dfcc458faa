"""The form of a manifest: what is in it, and of which type.

A manifest of this version has all of it, one of an earlier version less, and later versions may add keys; of
what is there, all must have its type. Checked wherever a manifest is read, so that no reader needs to.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segstrat.store import DamagedFileError

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    # Further keys are not copied: only the check is wanted, of tens of thousands of trials.
    model_config = ConfigDict(strict=True, extra="ignore")


class _Config(_Part):
    tasks: Annotated[list[str], Field(min_length=1)]
    epochs: Annotated[int, Field(ge=1)]
    seed: Count
    model: str
    backbone: str | None = None
    pretrained: bool
    initialization: str = ""
    weight_decay: float = 0.0
    dropout: float = 0.0
    label_fraction: float = 1.0


class _Trial(_Part):
    trial_id: Name
    order: Count
    arm: str
    axes: dict[str, Any]
    config: _Config
    context: str = ""
    reference: bool = False
    stage: Literal["screening", "answering"] = "answering"
    exempt: bool = False
    tuned: list[str] = []


class _Scheduler(_Part):
    name: Literal["asha", "none"] = "none"
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    rung_fractions: list[float] = []
    min_competitors: Count = 2
    least_shares: list[float] = []


class _Design(_Part):
    max_seeds: Annotated[int, Field(ge=1)] = 1
    looks: list[int] = []
    margin: float = 0.01
    error: float = 0.05
    spending: Literal["power", "obrien-fleming"] = "power"
    exponent: Annotated[float, Field(gt=0)] = 2.0
    first_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    trails: float = 0.01
    drop_t: float = 1.5
    drop_slope: float = 0.5
    widen: float = 0.5
    futility: float = 0.3
    hopeless: float = 0.02
    screening_seeds: Count = 0
    raw_candidates: Count = 1
    pretrained_candidates: Count = 1
    reference_values: Count = 1
    extended_from: list[int] = []


class _Data(_Part):
    name: str = ""
    title: str | None = None
    digest: str = ""
    synthetic: bool = False
    classes: dict[str, list[str]] = {}
    train_images: int | None = None
    val_images: int | None = None
    test_images: int | None = None
    root: str | None = None


class _Weights(_Part):
    source: str | None = None
    per_seed: bool = False
    files: dict[str, str] = {}


class _Options(_Part):
    space: str = ""
    data: str = ""
    data_root: str | None = None
    weights: str | None = None
    seeds: list[int] = []
    budget: float = 1.0
    confirm: str | None = None
    scheduler: str | None = None
    top: int | None = None
    max_seeds: int | None = None
    keep_checkpoints: str | None = None
    pretrain_on: str | None = None
    pretrain_self: str | None = None
    pretrain_epochs: int | None = None
    quick: bool = False
    overrides: list[str] = []
    numerics: dict[str, Any] = {}


class _Manifest(_Part):
    study: str
    space: str
    trials: list[_Trial]
    space_source: str | None = None
    question: str = ""
    recipe: str | None = None
    command: str | None = None
    created: str | None = None
    commit: str | None = None
    code: str | None = None
    dirty: bool | None = None
    versions: dict[str, str | None] | None = None
    hardware: dict[str, Any] | None = None
    precision: str | None = None
    precision_seconds: list[dict[str, Any]] = []
    data: _Data | None = None
    seeds: list[int] = []
    extended_from: list[Count] = []
    roles: dict[str, Literal["arm", "treatment", "nuisance", "tuned", "seed"]] | None = None
    metric: str | None = None
    claims: bool = False
    search: str | None = None
    budget: float = 1.0
    scheduler: _Scheduler | None = None
    weights: _Weights | None = None
    design: _Design | None = None
    options: _Options = _Options()
    parent: dict[str, Any] | None = None
    answering: dict[str, dict[str, Any]] | None = None
    accepted: list[dict[str, Any]] | None = None


def check_manifest(content: dict[str, Any]) -> None:
    """Raises a DamagedFileError that names the first part of a manifest that is not of its type."""
    try:
        _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"][:1].lower() + first["msg"][1:]
        found = "" if first["type"] == "missing" else f" ({str(first['input'])[:40]!r} is there)"
        raise DamagedFileError(f"manifest.json: {place}: {message}{found}") from error
