"""The command line: which study, which data, which machine, resume. No flag changes the science.

`StudySettings` is also what the manifest stores under `options`; nothing else reads or writes that part.
"""

import argparse
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segstrat.commands import StrictParser
from segstrat.config import Numerics
from segstrat.errors import UserError

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Everything that decides the trials of a study and how they are computed.

    Args:
        storage: folder or URI of all studies; `name` is the study's folder in it.
        data_root: as the user gave it; '' for `$SEGSTRAT_DATA`.
        weights: of the pre-trained arm: `imagenet`, a path, or '' where the project trains them.
        pretrain_on: classification folder on which it trains them; '' for `figures`.
        pretrain_self: folder of images that self-supervision learns from besides the study's own training
            images; '' for those alone.
        pretrain_epochs: passes over the images of each pre-training; 0 for the recipe's.
        seeds: each cell is trained once per seed.
        budget: factor on every trial's epochs.
        confirm: folder of the study whose best cells are trained again, '' for any other study.
        top: candidates of each arm in the answering stage; 0 for those of the design.
        keep_checkpoints: of ended trials: `all`, `last` or `none`.
        max_seeds: seeds of the answering stage, at most; 0 for a study of one stage.
        overrides: axes that replace those of the space, as `FIELD=VALUE,VALUE`.
        quick: the study is a rehearsal, see `REHEARSAL`; its report says so.
    """

    name: str
    storage: str = "results"
    space: str
    seeds: tuple[int, ...]
    data: str = "figures"
    data_root: str = ""
    weights: str = ""
    pretrain_on: str = ""
    pretrain_self: str = ""
    pretrain_epochs: int = 0
    scheduler: str = "asha"
    budget: float = 1.0
    numerics: Numerics = field(default_factory=Numerics)
    confirm: str = ""
    top: int = 0
    keep_checkpoints: str = "last"
    max_seeds: int = 0
    overrides: tuple[str, ...] = ()
    quick: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored under `options` in the manifest."""
        # Where a study is stored may change.
        values = {name: getattr(self, name) for name in SETTINGS if name not in ("name", "storage")}
        lists = {"seeds": list(self.seeds), "overrides": list(self.overrides)}
        return values | lists | {"numerics": self.numerics.numerics()}


SETTINGS = tuple(each.name for each in dataclasses.fields(StudySettings))
# What `--quick` stands for; other flags may replace it. `study.planning.space.rehearsal_overrides` leaves few
# values of each axis. Three seeds are the fewest that give an interval.
REHEARSAL: Mapping[str, Any] = {
    "space": "wd_grid",
    "seeds": (0, 1, 2),
    "scheduler": "none",
    "budget": 1 / 12,
    "pretrain_epochs": 1,
}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of `study/run.py`, checked one by one.

    Args:
        settings: those fields of `StudySettings` that were given, and of its `numerics` those that were.
        gpus_per_trial: a number, or `auto`.
    """

    settings: Mapping[str, Any]
    new_space: str | None = None
    list: bool = False
    dry_run: bool = False
    status: str | None = None
    gpus_per_trial: float | str | None = None
    cpus_per_trial: int | None = None
    max_concurrent: int | None = None
    address: str | None = None
    resume: bool = False
    accept_changes: bool = False
    no_cache: bool = False
    dashboard: bool = False
    track: str | None = None
    verbose: bool = False

    @property
    def storage(self) -> str:
        """Folder or URI of all studies."""
        return self.settings.get("storage", StudySettings.storage)


def make_settings(flags: Flags, begun: Mapping[str, Any], defaults: Mapping[str, Any]) -> StudySettings:
    """The settings of a study: the given flags, else the settings it was started with, else defaults.

    Args:
        begun: the options in the manifest of a study that is resumed; empty for a new one.
        defaults: what a new study takes from its space, or from the study that it confirms; its name, unless
            it is among the flags.
    """
    given = flags.settings
    values: dict[str, Any] = {**defaults, **begun, **given}
    # A resumed study may be given the other one of the two, with --accept-changes.
    if "weights" in given:
        values |= {"pretrain_on": "", "pretrain_epochs": given.get("pretrain_epochs", 0)}
    if "pretrain_on" in given:
        values |= {"weights": "", "pretrain_epochs": given.get("pretrain_epochs", 0)}
    numerics = {**defaults.get("numerics", {}), **begun.get("numerics", {}), **given.get("numerics", {})}
    values |= {name: tuple(values.get(name, ())) for name in ("seeds", "overrides")}
    values |= {"numerics": Numerics(**numerics)}
    return StudySettings(**values)


def parse(arguments: Sequence[str] | None = None) -> Flags:
    """Reads and checks the command line.

    Raises:
        UserError: for an unknown flag or a value that a flag cannot have.
    """
    namespace = make_parser().parse_strictly(arguments)
    # `ray job submit` and `ray start` set this variable to the cluster that a driver belongs to.
    namespace.address = namespace.address or os.environ.get("RAY_ADDRESS") or None
    given = {name: value for name, value in vars(namespace).items() if value is not None}
    if given.get("space", "").endswith(".py"):
        # A resumed study finds it from any working directory.
        given["space"] = str(Path(given["space"]).expanduser().absolute())
    for name in ("pretrain_on", "pretrain_self"):
        if name in given:
            given[name] = str(Path(given[name]).expanduser().absolute())
    if "overrides" in given:
        given["overrides"] = tuple(given["overrides"])
    if given.get("quick") and not given.get("resume"):
        given = rehearsal(given)
    if numerics := {name: given.pop(name) for name in Numerics().numerics() if name in given}:
        given["numerics"] = numerics
    for name, value in given.items():
        if value == "":
            # Otherwise a variable of the shell that is not set would start another experiment.
            raise UserError(f"--{name.replace('_', '-')} is empty; give a value, or leave the flag out")
    settings = {name: given.pop(name) for name in SETTINGS if name in given}
    flags = Flags(**given, settings=settings)
    refuse_contradictions(flags)
    return flags


def rehearsal(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that `--quick` stands for, and those that were given.

    Raises:
        UserError: with a flag for which a rehearsal makes no sense.
    """
    for name in ("confirm", "max_seeds", "top"):
        if name in given:
            raise UserError(
                f"--quick trains every cell to its end on few seeds; leave out --{name.replace('_', '-')}"
            )
    values = {**REHEARSAL, **given}
    if "weights" in given:
        del values["pretrain_epochs"]
    space = Path(values["space"]).stem
    return {"name": f"quick-{space}-{values.get('data', StudySettings.data)}", **values}


def command_line(settings: Mapping[str, Any]) -> list[str]:
    """The flags that `parse` reads as these settings."""
    words: list[str] = []
    for name, value in {**settings, **settings.get("numerics", {})}.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "overrides":
            words += [word for text in value for word in ("--set", text)]
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name != "numerics":
            words += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


def refuse_contradictions(flags: Flags) -> None:
    """Raises a UserError for flags that do not go together."""
    given = flags.settings
    if "name" in given and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{,199}", given["name"]):
        raise UserError(
            f"--name {given['name']!r} is not a valid folder name; use letters, digits, '.', '_', '+' and "
            "'-', at most 200"
        )
    if flags.new_space is not None:
        return
    named = given.get("space") or given.get("confirm") or (flags.resume and given.get("name"))
    if not (flags.list or flags.status or named):
        raise UserError(
            "no study given: pass --space NAME (see --list), --space FILE, or --resume --name NAME"
        )
    if "confirm" in given and "space" in given:
        raise UserError("--confirm takes the space from the study that it confirms; leave out --space")
    if {"confirm", "overrides"} <= set(given):
        raise UserError("--confirm takes the axes from the study that it confirms; leave out --set")
    if "confirm" in given and given.get("scheduler") == "asha":
        raise UserError("--confirm trains every cell to its end; leave out --scheduler asha")
    if {"confirm", "seeds", "max_seeds"} <= set(given):
        raise UserError("--confirm: give --seeds or --max-seeds, not both; --seeds are all trained")
    if "pretrain_on" in given and "weights" in given:
        raise UserError("give --weights or --pretrain-on, not both: the weights are given, or trained here")
    if "pretrain_epochs" in given and not {"pretrain_on", "pretrain_self", "quick"} & set(given):
        raise UserError(
            "--pretrain-epochs needs --pretrain-on DIR or --pretrain-self DIR, whose images are trained on"
        )
    if "@" in flags.storage.partition("://")[2].partition("/")[0]:
        raise UserError(
            "--storage: the address contains keys, which would end up in logs and manifests; put them into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every node"
        )
    if flags.accept_changes and not flags.resume:
        raise UserError("--accept-changes needs --resume; a new study has nothing to differ from")


def make_parser() -> StrictParser:
    """The command line; frozen, because scripts depend on it."""
    parser = StrictParser(
        prog="study/run.py",
        description="Runs a search space on a data protocol under Ray Tune and writes results/<study>/.",
        allow_abbrev=False,
    )
    add = parser.add_argument_group("which study").add_argument
    add("--space", metavar="NAME|FILE", help="search space: a name of --list, or a Python file of your own")
    add("--new-space", metavar="NAME", help="write the commented template NAME.py of a space of your own")
    add("--list", action="store_true", help="list the spaces with their question and size")
    add("--quick", action="store_true", default=None, help="rehearse: fewer values, short trials, minutes")
    add("--dry-run", action="store_true", help="show trials, budget and a data check; start nothing")
    add("--status", metavar="DIR", help="show the table of a running or ended study, such as results/NAME")
    add("--seeds", type=_seeds, metavar="0,1,2", help="replicates of every cell (default: the space's)")
    add("--set", action="append", dest="overrides", metavar="FIELD=V1,V2", help="replace or add an axis")
    add("--scheduler", choices=("asha", "none"), help="stop weak trials early, arm by arm (default: asha)")
    add("--confirm", metavar="DIR", help="train the best cells of a study again, to the end, on new seeds")
    add("--top", type=_count, metavar="K", help="candidates of each arm that are trained on fresh seeds")
    add("--max-seeds", type=_count, metavar="N", help="fresh seeds at most; more than before with --resume")
    add("--budget", type=_positive, metavar="F", help="factor on every trial's epochs (default: 1)")
    add("--name", help="name of the study (default: SPACE-DATA)")
    add("--resume", action="store_true", help="continue a study that was interrupted")
    add(
        "--accept-changes",
        action="store_true",
        help="with --resume: continue although code, space or data changed",
    )
    add = parser.add_argument_group("which data").add_argument
    add(
        "--data",
        metavar="NAME",
        help="data protocol (default: figures, drawn by this project), folder for images of your own, or the "
        "format of an export: coco, labelme, masks … (docs/data.md)",
    )
    add("--data-root", metavar="DIR", help="folder of the data sets or export (default: $SEGSTRAT_DATA)")
    add("--weights", metavar="PATH|imagenet", help="weights of the pre-trained arm")
    add("--pretrain-on", metavar="DIR", help="pre-train on train/<class>/<image> in DIR, once per seed")
    add(
        "--pretrain-self",
        metavar="DIR",
        help="more images, without labels, for self-supervision (default: the study's training images alone)",
    )
    add("--pretrain-epochs", type=_count, metavar="N", help="passes over DIR (default: the recipe's)")
    add("--no-cache", action="store_true", help="decode images on the fly instead of once")
    add = parser.add_argument_group("which machine").add_argument
    add("--gpus-per-trial", type=_gpus, metavar="F|auto", help="default: 1 where there are GPUs")
    add("--cpus-per-trial", type=_count, metavar="N", help="default: an equal share of the cores")
    add("--max-concurrent", type=_count, metavar="N", help="trials at the same time (default: what fits)")
    add(
        "--address",
        metavar="ADDR",
        help="join a running Ray cluster: HOST:PORT, or auto (default: $RAY_ADDRESS)",
    )
    add("--storage", metavar="URI", help="folder or s3://… of all studies")
    add(
        "--keep-checkpoints",
        choices=("all", "last", "none"),
        help="of ended trials; all are the two newest and the best (default: last, for predictions)",
    )
    add("--precision", choices=("float32", "bfloat16", "auto"), help="of matrix products (default: auto)")
    add("--deterministic", action="store_true", default=None, help="deterministic CUDA algorithms")
    either = argparse.BooleanOptionalAction
    add("--compile", action=either, help="torch.compile for training steps (default: long trials on GPUs)")
    add("--device-cache", action=either, help="keep and augment the images on the GPU (default: if they fit)")
    add("--dashboard", action="store_true", help="serve Ray's dashboard on this machine only")
    add("--track", choices=("mlflow", "wandb"), help="also record trials and verdict in MLflow or W&B")
    add("--verbose", action="store_true", help="show Ray's own messages; --dry-run and --status: all trials")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2") from None
    return seeds


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


# Longer numbers are no counts; as fractions they would overflow.
MOST_DIGITS = 9


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _gpus(text: str) -> float | str:
    if text == AUTO:
        return AUTO
    value = 0.0 if text in ("0", "0.0") else _positive(text)
    if value > 1 and value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r}: above one GPU a trial takes a whole number of them")
    return value
