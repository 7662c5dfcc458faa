"""Everything that can be wrong before a trial starts: space, data, weights, storage, name."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError, unknown_name
from segstrat.paths import cache_dir, data_root
from segstrat.store import Store
from study.cli import Options
from study.frame import MANIFEST
from study.planning.space import Space, load_space
from study.planning.trials import PlannedTrial, plan
from study.state.halving import HalvingRule
from study.state.manifest import read_study_manifest

DEFAULTS: dict[str, Any] = {
    "data": "figures",
    "scheduler": "asha",
    "budget": 1.0,
    "precision": "float32",
    "deterministic": False,
    "compile": False,
    "device_cache": False,
}
# What a confirming study takes over from the study it confirms.
CONFIRMED_FIELDS = (
    *("space", "data", "data_root", "weights", "budget"),
    *("precision", "deterministic", "compile", "device_cache"),
)
CONFIRM_SEEDS = 3
CONFIRM_TOP = 3
TO_BE_MADE = "pre-trained by study/pretrain.py"


def open_study(options: Options) -> tuple[Store, Options]:
    """The study's folder and the options with everything filled in.

    A new study takes defaults for what was not given, a resumed one what it was begun with.

    Raises:
        UserError: if the name is taken, if there is nothing to resume, or for storage that cannot be used.
    """
    if options.confirm is not None:
        options = _confirming(options) if not options.resume else _named_after_parent(options)
    name = options.name or f"{options.space}-{options.data or DEFAULTS['data']}"
    study = Store(options.storage) / name
    try:
        exists = study.exists(MANIFEST)
    except OSError as error:
        raise UserError(f"--storage {options.storage} cannot be reached: {error}") from error
    if options.resume:
        recorded = read_study_manifest(study)["options"]
        for flag in ("confirm", "top"):
            given = getattr(options, flag)
            if given is not None and given != recorded.get(flag):
                raise UserError(
                    f"--{flag} {given}: {study.uri} was begun with {recorded.get(flag)}; leave --{flag} away"
                )
        options = options.completed_by(recorded)
    elif exists:
        raise UserError(
            f"study {study.uri} exists already; go on with it by --resume, or give this one another --name"
        )
    return study, dataclasses.replace(options, name=name).completed_by(DEFAULTS)


def _named_after_parent(options: Options) -> Options:
    assert options.confirm is not None
    if options.name is not None:
        return options
    parent = read_study_manifest(Store(options.confirm))
    return dataclasses.replace(options, name=f"{parent['study']}-confirm")


def _confirming(options: Options) -> Options:
    """Options of a study that confirms another one: what is not given is taken from that one."""
    assert options.confirm is not None
    parent = read_study_manifest(Store(options.confirm))
    recorded = {key: parent["options"].get(key) for key in CONFIRMED_FIELDS}
    used = parent["seeds"]
    if options.seeds is None:
        options = dataclasses.replace(options, seeds=tuple(max(used) + 1 + i for i in range(CONFIRM_SEEDS)))
    elif again := sorted(set(used).intersection(options.seeds or ())):
        raise UserError(
            f"--seeds {again[0]}: the cells of {parent['study']} were chosen on seeds {used}; confirm them "
            "on others"
        )
    options = dataclasses.replace(options, scheduler="none", top=options.top or CONFIRM_TOP)
    return _named_after_parent(options).completed_by(recorded)


def plan_study(study: Store, options: Options) -> tuple[Space, list[PlannedTrial], Options]:
    """Loads the space and plans its trials.

    A study that is resumed keeps the trials that a search had proposed, and the cells it was to confirm.

    Returns:
        the options with the seeds that were chosen.

    Raises:
        UserError: for an unknown space or protocol, a trial that cannot be, or seeds that do not fit.
    """
    assert options.space is not None
    assert options.data is not None
    assert options.budget is not None
    from segstrat.data import PROTOCOLS

    space = load_space(options.space)
    if options.data not in PROTOCOLS:
        raise unknown_name("data protocol", options.data, PROTOCOLS)
    seeds = options.seeds if options.seeds is not None else space.seeds
    weights = options.weights or (TO_BE_MADE if options.data == "figures" else None)
    plan_cells = functools.partial(plan, space, options.data, budget=options.budget, weights=weights)
    recorded = read_study_manifest(study) if options.resume else {}
    if options.confirm is not None:
        cells = recorded["parent"]["cells"] if options.resume else cells_to_confirm(options, plan_cells)
        trials = plan_cells(seeds=seeds, cells=cells)
    else:
        if space.search == "tpe" and not study.is_local:
            raise UserError(
                f"--storage {study.uri}: a search keeps its database in the study's folder, which must be on "
                "a file system; give a folder, or take the quasi-random space sobol_wd_dropout"
            )
        if space.search == "tpe" and len(seeds) > 1:
            raise UserError(
                f"space {space.name} is searched with one seed, not {len(seeds)}; give one by --seeds, and "
                "train the best cells again on others by --confirm"
            )
        trials = plan_cells(seeds=seeds)
        proposed = recorded.get("trials", [])[len(trials) :] if space.search == "tpe" else []
        trials += [PlannedTrial.from_dict(each) for each in proposed]
    return space, trials, dataclasses.replace(options, seeds=tuple(seeds))


def cells_to_confirm(options: Options, plan_cells: Callable[..., list[PlannedTrial]]) -> list[dict[str, Any]]:
    """The points of the space that `--confirm` trains again, see `study.analysis.confirm`.

    Args:
        plan_cells: plans the trials of given `seeds` and `cells`.

    Raises:
        UserError: if the confirmed study has no best cells, or was run with another recipe.
    """
    from study.analysis.confirm import confirm_cells
    from study.analysis.study import Study

    assert options.confirm is not None
    parent = Study.open(options.confirm)
    cells = [cell.axes for arm in confirm_cells(parent, options.top or CONFIRM_TOP).values() for cell in arm]
    then = {trial["trial_id"] for trial in parent.manifest["trials"]}
    same_budget = parent.manifest["options"]["budget"] == options.budget
    for axes in cells if same_budget else ():
        seed = parent.manifest["seeds"][0]
        now = plan_cells(seeds=[seed], cells=[axes])[0]
        if now.trial_id not in then:
            commit = (parent.manifest.get("commit") or "unknown")[:10]
            raise UserError(
                f"{options.confirm}: the recipe of space {options.space} has changed since ({now.label} is "
                f"another training now); go back to commit {commit}, or run the space again"
            )
    return sorted(cells, key=_in_order)


def parent_of(options: Options, trials: Sequence[PlannedTrial]) -> dict[str, Any] | None:
    """What the manifest says of the study that this one confirms; None for any other."""
    if options.confirm is None:
        return None
    parent = read_study_manifest(Store(options.confirm))
    cells = [{name: value for name, value in trial.axes.items() if name != "seed"} for trial in trials]
    return {
        "study": parent["study"],
        "folder": options.confirm,
        "commit": parent.get("commit"),
        "top": options.top,
        # In the order of `cells_to_confirm`, so that a resumed study plans its trials in the same one.
        "cells": sorted((cell for i, cell in enumerate(cells) if cell not in cells[:i]), key=_in_order),
    }


def _in_order(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def halving_rule(options: Options) -> HalvingRule:
    """The rule of `--scheduler`."""
    return HalvingRule() if options.scheduler == "asha" else HalvingRule(fractions=())


def check_data(options: Options, trials: Sequence[PlannedTrial], *, cache: bool) -> dict[str, Any]:
    """Builds the data of all trials once, so that what is missing is missed here, and describes it.

    Args:
        cache: also decode the images into this node's cache.

    Raises:
        UserError: for data that is missing or incomplete, or that has not the labels of a task.
    """
    assert options.data is not None
    from segstrat.data import build_protocol
    from segstrat.data.audit.checks import audit

    tasks = list(dict.fromkeys(task for trial in trials for task in trial.config.tasks))
    root = data_root(options.data_root)
    protocol = build_protocol(
        options.data, root, tasks=tasks, cache_dir=cache_dir() if cache else None, progress=cache
    )
    report = audit(protocol, cache_dir=cache_dir())
    report.check()
    for warning in report.warnings:
        Console(stderr=True, highlight=False).print(Text(f"warning: {warning}", style="yellow"))
    return {
        "name": options.data,
        "digest": protocol.digest,
        "synthetic": protocol.synthetic,
        "train_images": len(protocol.train),
        "val_images": len(protocol.val),
        "classes": {name: list(task.classes) for name, task in protocol.tasks.items()},
        "root": str(root) if root else "",
        "audit": "full" if report.full else "quick",
        "warnings": report.warnings,
    }


def provide_weights(
    options: Options, trials: Sequence[PlannedTrial]
) -> tuple[list[PlannedTrial], dict[str, str]]:
    """Gives every pre-trained trial the file of its backbone's weights, which are made if need be.

    Returns:
        the trials, and the weights' source and digest.

    Raises:
        UserError: if a file is missing.
    """
    pretrained = [trial for trial in trials if trial.config.pretrained]
    if not pretrained or options.weights == "imagenet":
        return list(trials), {"source": options.weights or "", "digest": ""}
    if options.weights is not None:
        path = Path(options.weights).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"--weights {options.weights}: there is no such file")
        files = {trial.trial_id: path for trial in pretrained}
    else:
        from study.pretrain import ensure_pretrained

        made: dict[tuple, Path] = {}
        for trial in pretrained:
            config = trial.config
            key = (config.backbone, config.width)
            if key not in made:
                made[key] = ensure_pretrained(config, cache_dir())
        files = {trial.trial_id: made[trial.config.backbone, trial.config.width] for trial in pretrained}
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(set(files.values()))}
    placed = [_with_weights(trial, files.get(trial.trial_id)) for trial in trials]
    return placed, {"source": options.weights or "figures", "digest": " ".join(digests.values())}


def _with_weights(trial: PlannedTrial, path: Path | None) -> PlannedTrial:
    if path is None:
        return trial
    return dataclasses.replace(trial, config=dataclasses.replace(trial.config, weights=str(path)))
