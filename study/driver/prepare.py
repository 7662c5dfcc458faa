"""From the command line to planned trials: a study's folder, its settings, its space and its trials."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segstrat.errors import UserError, unknown_name
from segstrat.store import Store
from study.cli import Flags
from study.driver.confirm import cells_to_confirm, defaults_from_parent
from study.planning.settings import StudySettings, make_settings
from study.planning.space import Space, load_space
from study.planning.space_files import space_label
from study.planning.trials import PlannedTrial, plan
from study.state.manifest import contains_study, read_study_manifest

# Stands for the weights' path in trials that are planned before the weights are made.
TO_BE_MADE = "pre-trained by study/pretrain.py"


@dataclass(frozen=True, kw_only=True)
class OpenedStudy:
    """A study that is about to run.

    Args:
        recorded: the manifest of a study that is resumed; empty for a new one.
    """

    study: Store
    settings: StudySettings
    space: Space
    recorded: Mapping[str, Any]


def open_study(flags: Flags) -> OpenedStudy:
    """Finds a study's folder and determines its settings.

    Where no flag is given, a new study takes defaults and a resumed one the settings it was started with.

    Raises:
        UserError: if the name is taken, if there is nothing to resume, for an unknown space, or for storage
            that cannot be used.
    """
    defaults: dict[str, Any] = {}
    if flags.confirm is not None and not (flags.resume and flags.name):
        defaults = defaults_from_parent(flags)
    begun: Mapping[str, Any] = {}
    recorded: Mapping[str, Any] = {}
    label = space_label(flags.space or "")
    name = flags.name or defaults.get("name") or f"{label}-{flags.data or StudySettings.data}"
    study = Store(flags.storage) / name
    if flags.resume:
        recorded = read_study_manifest(study)
        begun = recorded["options"]
        _refuse_another_parent(study, flags, begun)
    else:
        _refuse_existing(study, flags)
    space = load_space(flags.space or begun.get("space") or defaults["space"])
    settings = make_settings(flags, begun, {"seeds": space.seeds, **defaults, "name": name})
    return OpenedStudy(study=study, settings=settings, space=space, recorded=recorded)


def plan_study(opened: OpenedStudy) -> list[PlannedTrial]:
    """The trials of a study that are known before it runs.

    A resumed study keeps the trials that a search had proposed, and the cells that it confirms.

    Raises:
        UserError: for an unknown protocol, a trial that cannot be built, or seeds that do not fit.
    """
    from segstrat.data import PROTOCOLS

    settings, space, recorded = opened.settings, opened.space, opened.recorded
    if settings.data not in PROTOCOLS:
        raise unknown_name("data protocol", settings.data, PROTOCOLS)
    plan_cells = functools.partial(
        plan, space, settings.data, budget=settings.budget, weights=planned_weights(settings)
    )
    if settings.confirm:
        cells = recorded["parent"]["cells"] if recorded else cells_to_confirm(settings, plan_cells)
        return plan_cells(seeds=settings.seeds, cells=cells)
    if space.search == "tpe":
        _refuse_unsearchable(opened)
    trials = plan_cells(seeds=settings.seeds)
    proposed = recorded.get("trials", [])[len(trials) :] if space.search == "tpe" else []
    return trials + [PlannedTrial.from_dict(trial) for trial in proposed]


def planned_weights(settings: StudySettings) -> str | None:
    """The weights' source in the config of a planned pre-trained trial."""
    return settings.weights or (TO_BE_MADE if settings.data == "figures" else None)


def _refuse_another_parent(study: Store, flags: Flags, begun: Mapping[str, Any]) -> None:
    for flag in ("confirm", "top"):
        given = getattr(flags, flag)
        if given is not None and given != begun[flag]:
            raise UserError(
                f"--{flag} {given}: {study.uri} was started with {begun[flag] or 'none'}; leave out --{flag}"
            )


def _refuse_existing(study: Store, flags: Flags) -> None:
    try:
        exists = contains_study(study)
    except OSError as error:
        raise UserError(f"--storage {flags.storage} cannot be reached: {error}") from error
    if exists:
        raise UserError(
            f"study {study.uri} exists already; continue it with --resume, or give this one another --name"
        )


def _refuse_unsearchable(opened: OpenedStudy) -> None:
    if not opened.study.is_local:
        raise UserError(
            f"--storage {opened.study.uri}: a search keeps its database in the study's folder, which must "
            "be on a file system; give a folder, or use the quasi-random space sobol_wd_dropout"
        )
    if len(opened.settings.seeds) > 1:
        raise UserError(
            f"space {opened.space.name} is searched with one seed, not {len(opened.settings.seeds)}; "
            "give one with --seeds, and train the best cells again on others with --confirm"
        )
