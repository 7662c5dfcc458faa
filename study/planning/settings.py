"""`StudySettings`: what decides a study's trials. The only reader and writer of the manifest's options."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segstrat.config import Numerics
from study.cli import Flags

# Not among the manifest's options: where a study is stored may change.
PLACE = ("name", "storage")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Everything that decides the trials of a study and how they are computed.

    Args:
        storage: folder or URI of all studies; `name` is the study's folder in it.
        data_root: as the user gave it; '' for `$SEGSTRAT_DATA`.
        weights: of the pre-trained arm: `imagenet`, a path, or '' where the project trains them.
        pretrain_on: classification folder on which it trains them; '' for `figures`.
        pretrain_epochs: passes over that folder; 0 for the recipe's.
        seeds: each cell is trained once per seed.
        budget: factor on every trial's epochs.
        confirm: folder of the study whose best cells are trained again, '' for any other study.
        top: candidates of each arm in the answering stage; 0 for those of the design.
        keep_checkpoints: of ended trials: `all`, `last` or `none`.
        max_seeds: seeds of the answering stage, at most; 0 for a study of one stage.
        overrides: axes that replace those of the space, as `FIELD=VALUE,VALUE`.
    """

    name: str
    storage: str
    space: str
    seeds: tuple[int, ...]
    data: str = "figures"
    data_root: str = ""
    weights: str = ""
    pretrain_on: str = ""
    pretrain_epochs: int = 0
    scheduler: str = "asha"
    budget: float = 1.0
    numerics: Numerics = field(default_factory=Numerics)
    confirm: str = ""
    top: int = 0
    keep_checkpoints: str = "all"
    max_seeds: int = 0
    overrides: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored under `options` in the manifest."""
        values = {name: getattr(self, name) for name in option_names()}
        lists = {"seeds": list(self.seeds), "overrides": list(self.overrides)}
        return values | lists | {"numerics": self.numerics.numerics()}


def make_settings(flags: Flags, begun: Mapping[str, Any], defaults: Mapping[str, Any]) -> StudySettings:
    """The settings of a study: the given flags, else the settings it was started with, else defaults.

    Args:
        begun: the options in the manifest of a study that is resumed; empty for a new one.
        defaults: what a new study takes from its space, or from the study that it confirms; its name, unless
            it is among the flags.
    """
    values: dict[str, Any] = {"storage": flags.storage, **defaults, **begun}
    numerics = {**values.get("numerics", {}), **flags.numerics}
    given = {name: getattr(flags, name) for name in (*option_names(), "name") if name != "numerics"}
    values |= {name: value for name, value in given.items() if value is not None}
    # A resumed study may be given the other one of the two, with --accept-changes.
    if flags.weights is not None:
        values |= {"pretrain_on": "", "pretrain_epochs": 0}
    if flags.pretrain_on is not None:
        values |= {"weights": "", "pretrain_epochs": flags.pretrain_epochs or 0}
    values |= {name: tuple(values.get(name, ())) for name in ("seeds", "overrides")}
    values |= {"numerics": Numerics(**numerics)}
    return StudySettings(**values)


def option_names() -> tuple[str, ...]:
    """Names of the settings stored under `options` in the manifest."""
    return tuple(each.name for each in dataclasses.fields(StudySettings) if each.name not in PLACE)
