"""From the command line to a planned study: its name, folder, settings, space, trials and manifest."""

import os
import platform
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from segstrat.config import OWN_DATA, SELF
from segstrat.data.readers.folder import ImageFacts
from segstrat.errors import UserError, unknown_name
from segstrat.records import Stage
from segstrat.scores import Metric
from segstrat.store import StorageError, Store, data_root
from study.analysis.answering.design import AnsweringDesign
from study.cli import Flags, StudySettings, make_settings
from study.driver.confirm import defaults_from_parent, parent_of, refuse_another_recipe, screened_states
from study.driver.stages import (
    answering_design,
    as_screening,
    contexts_to_answer,
    first_proposals,
    stage_defaults,
    study_facts,
    two_stage_search,
)
from study.frame import read_manifest
from study.planning.resources import Node
from study.planning.space import Space, fit_recipe, load_space, rehearsal_overrides
from study.planning.space_files import space_label
from study.planning.trials import TO_BE_MADE, PlannedTrial, plan
from study.search.base import FixedPlan, History, Search
from study.search.two_stage import BetterHalf, split_by_seed
from study.state.changes import (
    accepted_changes,
    answered_plans,
    changes,
    refuse_changes,
    refuse_mixture,
)
from study.state.halving import HalvingRule
from study.state.manifest import contains_study, new_manifest, read_study_manifest


@dataclass(frozen=True, kw_only=True)
class OpenedStudy:
    """A study that is about to run.

    Args:
        design: of the answering stage; None for a study of one stage.
        recorded: the manifest of a study that is resumed; empty for a new one.
        images: of a folder of one's own; None for every other protocol.
    """

    study: Store
    settings: StudySettings
    space: Space
    design: AnsweringDesign | None
    recorded: Mapping[str, Any]
    images: ImageFacts | None = None


def open_study(flags: Flags) -> OpenedStudy:
    """Finds a study's folder and determines its settings.

    Where no flag is given, a new study takes defaults and a resumed one the settings it was started with.

    Raises:
        UserError: if the name is taken, if there is nothing to resume, for an unknown space or protocol, or
            for storage that cannot be used.
    """
    # Imported here: `--list` and `--status` do without it.
    from segstrat.data.readers.folder import image_facts

    flags = _with_imported_data(flags)
    given = flags.settings
    defaults: dict[str, Any] = {}
    if "confirm" in given and not (flags.resume and "name" in given):
        defaults = defaults_from_parent(flags)
    begun: Mapping[str, Any] = {}
    recorded: Mapping[str, Any] = {}
    label = space_label(given.get("space", ""))
    name = given.get("name") or defaults.get("name") or default_name(flags, label)
    study = Store(flags.storage) / name
    if flags.resume:
        recorded = read_resumed(study, flags, label)
        begun = recorded["options"]
        _refuse_another_parent(study, flags, begun)
    else:
        _refuse_existing(study, flags)
    known = {**defaults, **begun, **given}
    overrides = tuple(known.get("overrides", ()))
    if given.get("quick") and not flags.resume:
        overrides = rehearsal_overrides(load_space(known["space"], overrides), overrides)
        given = {**given, "overrides": overrides}
        flags = replace(flags, settings=given)
    if flags.resume and overrides != (before := tuple(begun.get("overrides", ()))):
        words = f"--set {' --set '.join(before)}" if before else "none"
        raise UserError(f"--set: {study.uri} was started with {words}; leave out --set")
    space = load_space(known["space"], overrides)
    data = known.get("data", StudySettings.data)
    images = image_facts(data, data_root(known.get("data_root") or None))
    space = fit_recipe(space, data, images)
    if not flags.resume and "confirm" not in given:
        defaults = stage_defaults(flags, space)
    settings = make_settings(flags, begun, {**defaults, "name": name})
    design = answering_design(flags, settings, space, recorded)
    return OpenedStudy(
        study=study,
        settings=settings,
        space=space,
        design=design,
        recorded=recorded,
        images=images,
    )


def with_classes(opened: OpenedStudy, data: Mapping[str, Any]) -> OpenedStudy:
    """The study with the class that its score is about, now that the classes of the data are known.

    Args:
        data: as from `check_data`.

    Raises:
        UserError: if the score is that of a class that the task does not have.
    """
    metric = Metric.parse(opened.space.metric.name, data["classes"])
    return replace(opened, space=replace(opened.space, metric=metric))


def plan_study(opened: OpenedStudy) -> list[PlannedTrial]:
    """The trials of a study that are known before it runs.

    A resumed study keeps the trials that a search had proposed.

    Raises:
        UserError: for a trial that cannot be built, or seeds that do not fit.
    """
    if opened.settings.confirm:
        return _plan_confirmation(opened)
    settings, space = opened.settings, opened.space
    if space.search == "tpe":
        _refuse_unsearchable(opened)
    trials = plan(
        space,
        settings.data,
        seeds=settings.seeds,
        budget=settings.budget,
        weights=planned_weights(settings),
    )
    if settings.pretrain_self and not any(trial.config.start == SELF for trial in trials):
        raise UserError(
            f"--pretrain-self {settings.pretrain_self}: no trial of space {space.name} starts from "
            "self-supervision; leave it out, or add --set initialization=raw,self"
        )
    if opened.design is not None:
        trials = as_screening(trials)
        if _halves_over_seeds(opened):
            trials, _ = split_by_seed(trials)
    return _with_recorded(trials, opened.recorded)


def make_search(
    opened: OpenedStudy, trials: Sequence[PlannedTrial], manifest: Mapping[str, Any] | None = None
) -> Search:
    """Where a study's further trials come from.

    Args:
        trials: those that are known.
        manifest: of the study, once there is one.
    """
    settings, space, design = opened.settings, opened.space, opened.design
    weights = planned_weights(settings)
    if settings.confirm and manifest is None:
        # Its classes, of which a score may be.
        manifest = {"data": read_manifest(Store(settings.confirm)).get("data")}
    facts = study_facts(space, design, manifest)
    history, recorded = History(opened.study, facts), facts.get("answering")
    if settings.confirm and design is not None:
        screened = screened_states(settings)
        return two_stage_search(
            settings,
            space,
            design,
            [state.trial for state in screened],
            history=history,
            weights=weights,
            recorded=recorded,
            screened=(screened, History(Store(settings.confirm), facts)),
        )
    screening: Search = FixedPlan()
    if space.search == "tpe":
        # Imported here: only a search needs Optuna.
        from study.search.optuna import OptunaSearch

        screening = OptunaSearch(space, settings.budget)
    if design is None:
        return screening
    if _halves_over_seeds(opened):
        planned = plan(space, settings.data, seeds=settings.seeds, budget=settings.budget, weights=weights)
        _, later = split_by_seed(as_screening(planned))
        screening = BetterHalf(contexts_to_answer(history, planned), history, later)
    return two_stage_search(
        settings,
        space,
        design,
        trials,
        history=history,
        weights=weights,
        screening=screening,
        recorded=recorded,
    )


def stopping_rule(opened: OpenedStudy) -> HalvingRule:
    """The rule of early stopping; a resumed study keeps that of the version that started it."""
    rule = HalvingRule.of(opened.settings.scheduler)
    recorded = opened.recorded.get("scheduler")
    if recorded and recorded["name"] == rule.to_dict()["name"]:
        return HalvingRule.from_dict(recorded)
    return rule


def stopping_words(rule: HalvingRule, trials: Sequence[PlannedTrial]) -> str:
    """What early stopping may do to the trials of a study."""
    stoppable = [trial for trial in trials if not trial.reference and trial.stage is not Stage.ANSWERING]
    words = rule.words(ranked=any(not trial.exempt for trial in stoppable)) if stoppable else "none"
    return f"{words}; every trial is trained to its end" if words == "none" else words


def _halves_over_seeds(opened: OpenedStudy) -> bool:
    """Whether screening trains all cells on the first of several seeds and fewer on the others."""
    return opened.space.search != "tpe" and len(opened.settings.seeds) > 1


def planned_weights(settings: StudySettings) -> str | None:
    """The weights' source in the config of a planned pre-trained trial."""
    made_here = settings.data == "figures" or settings.pretrain_on
    return settings.weights or (TO_BE_MADE if made_here else None)


def _plan_confirmation(opened: OpenedStudy) -> list[PlannedTrial]:
    """The trials of the first look, or those on record."""
    if opened.recorded:
        return [PlannedTrial.from_dict(trial) for trial in opened.recorded["trials"]]
    refuse_another_recipe(opened.settings, opened.space, screened_states(opened.settings))
    trials = first_proposals(make_search(opened, []))
    if not trials:
        raise UserError(
            f"{opened.settings.confirm}: nothing to confirm; a context needs a reference, and a raw and a "
            "pre-trained cell with a score"
        )
    return trials


def _with_recorded(trials: list[PlannedTrial], recorded: Mapping[str, Any]) -> list[PlannedTrial]:
    """The planned trials at their recorded positions, new ones after them, and all that a search proposed."""
    if not recorded:
        return trials
    known = {trial["trial_id"]: PlannedTrial.from_dict(trial) for trial in recorded["trials"]}
    planned = {trial.trial_id for trial in trials}
    last = max(trial.order for trial in known.values())
    # Their configs differ in the path of the weights alone, which is known once they have started.
    kept = [
        replace(trial, order=known[trial.trial_id].order, config=known[trial.trial_id].config)
        for trial in trials
        if trial.trial_id in known
    ]
    new = [trial for trial in trials if trial.trial_id not in known]
    added = [replace(trial, order=last + 1 + index) for index, trial in enumerate(new)]
    proposed = [trial for trial_id, trial in known.items() if trial_id not in planned]
    return sorted([*kept, *added, *proposed], key=lambda trial: trial.order)


def _with_imported_data(flags: Flags) -> Flags:
    """The flags with the folder that the export of an annotation tool is converted into.

    Raises:
        UserError: for an unknown protocol, or an export that cannot be converted.
    """
    from segstrat.data import PROTOCOLS

    data = flags.settings.get("data")
    if data is None or data in PROTOCOLS:
        return flags
    # Imported here: only exports need its libraries.
    from segstrat.data.convert import FORMATS, imported

    if data not in FORMATS:
        raise unknown_name("data protocol or format", data, [*PROTOCOLS, *FORMATS])
    root = data_root(flags.settings.get("data_root"))
    if root is None:
        raise UserError(f"--data {data}: give the folder of the export with --data-root DIR")
    folder = imported(data, root, Console(highlight=False))
    return replace(flags, settings={**flags.settings, "data": OWN_DATA, "data_root": str(folder)})


def _refuse_another_parent(study: Store, flags: Flags, begun: Mapping[str, Any]) -> None:
    for flag in ("confirm", "top"):
        given = flags.settings.get(flag)
        if given is not None and given != begun.get(flag):
            before = begun.get(flag) or "none"
            raise UserError(f"--{flag} {given}: {study.uri} was started with {before}; leave out --{flag}")


def _refuse_existing(study: Store, flags: Flags) -> None:
    if Path(flags.storage).is_file():
        raise UserError(f"--storage {flags.storage}: that is a file; give a folder or a URI such as s3://…")
    try:
        exists = contains_study(study)
    except StorageError as error:
        raise UserError(f"--storage: {error}") from error
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
            "give one with --seeds"
        )


MOST_NAMES = 5


def read_resumed(study: Store, flags: Flags, space: str) -> Mapping[str, Any]:
    """The manifest of the study that is resumed.

    Args:
        space: name of the space; '' if the study was named by `--name` alone.

    Raises:
        UserError: if there is none; it names the studies that could be meant.
    """
    if contains_study(study):
        return read_study_manifest(study)
    names = studies_of(Store(flags.storage), space)
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    what = f"of space {space}" if space else "in that folder"
    if names:
        raise UserError(
            f"--resume: {study.uri} contains no study; {what} there are: {shown}; name one with --name"
        )
    raise UserError(
        f"--resume: {study.uri} contains no study, and there is none {what} in {flags.storage}; leave out "
        "--resume to start one, or give the --storage that it was started with"
    )


def studies_of(storage: Store, space: str, data: str = "") -> list[str]:
    """Names of the studies in a folder; of one space and one data protocol, unless their name is ''."""
    found = []
    for name in storage.names():
        try:
            manifest = read_manifest(storage / name)
        except (UserError, OSError):
            continue
        if manifest and space in ("", manifest.get("space")) and data in ("", _data(manifest)):
            found.append(name)
    return found


def _data(manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data")
    return str(data.get("name")) if isinstance(data, Mapping) else ""


MOST_CHARACTERS = 60


def default_name(flags: Flags, space: str) -> str:
    """The name of a study without `--name`: `wd_grid-figures`, or `wd_grid-my-cats` on images of one's own.

    Args:
        space: label of its space.

    Raises:
        UserError: if images of one's own have no readable `dataset.toml`.
    """
    data = flags.settings.get("data", StudySettings.data)
    if data != OWN_DATA:
        return f"{space}-{data}"
    own_root = flags.settings.get("data_root")
    if flags.resume and own_root is None:
        # The manifest has the data root, so it need not be given again.
        found = studies_of(Store(flags.storage), space, OWN_DATA)
        if len(found) == 1:
            return found[0]
    root = data_root(own_root)
    if flags.resume and root is None:
        # No such study, or several: the message about it names them.
        return f"{space}-{OWN_DATA}"
    # Imported here: it needs Pillow and NumPy.
    from segstrat.data.readers import folder

    return f"{space}-{folder_name(folder.read(root).name)}"


def folder_name(title: str) -> str:
    """A data set's name as a part of a folder's name: lower case letters, digits, '-', '_' and '.'."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9._-]+", "-", plain)
    return words.strip("-_.")[:MOST_CHARACTERS].rstrip("-_.") or OWN_DATA


def describe_study(
    opened: OpenedStudy,
    trials: Sequence[PlannedTrial],
    *,
    data: dict[str, Any],
    weights: dict[str, str],
    nodes: Sequence[Node],
    precision: str,
    precision_seconds: Sequence[Mapping[str, Any]],
    accept_changes: bool,
) -> dict[str, Any]:
    """The manifest.

    Raises:
        UserError: if the study is resumed with other code, data or settings than it was started with, and
            these changes are not accepted.
    """
    settings, space = opened.settings, opened.space
    manifest = new_manifest(
        {
            "study": settings.name,
            "space": space.name,
            "space_source": space.source,
            "question": space.question,
            "recipe": space.recipe_name,
            "options": settings.to_dict(),
            "hardware": describe_hardware(nodes),
            "precision": precision,
            "precision_seconds": precision_seconds,
            "data": data,
            "seeds": list(settings.seeds),
            "roles": space.roles,
            "metric": space.metric.name,
            "claims": space.claims,
            "search": space.search,
            "scheduler": stopping_rule(opened).to_dict(),
            "budget": settings.budget,
            "weights": weights,
            "design": opened.design.to_dict() if opened.design else None,
            "trials": [trial.to_dict() for trial in trials],
            "parent": None if opened.recorded else parent_of(settings),
        }
    )
    if not opened.recorded:
        return manifest
    found = changes(opened.recorded, manifest)
    if not accept_changes:
        refuse_changes(opened.study, found)
    refuse_mixture(opened.study, opened.recorded, manifest)
    accepted = accepted_changes(opened.recorded, manifest, [change.words for change in found])
    kept = {key: opened.recorded[key] for key in ("created", "command", "parent")}
    kept |= {key: opened.recorded[key] for key in ("precision_seconds",) if key in opened.recorded}
    # What was fixed before the first look stands.
    kept |= {"answering": opened.recorded["answering"]} if "answering" in opened.recorded else {}
    plans = answered_plans(opened.study, opened.recorded, manifest)
    kept |= {"extended_from": plans} if plans else {}
    return manifest | kept | {"accepted": accepted}


def check_resumable(opened: OpenedStudy, trials: Sequence[PlannedTrial], *, accept_changes: bool) -> None:
    """Refuses what differs since a study's beginning, as far as it is known without data, weights and nodes.

    Raises:
        UserError: as `describe_study` does.
    """
    recorded = opened.recorded
    if recorded:
        describe_study(
            opened,
            trials,
            data=recorded["data"],
            weights=recorded.get("weights") or {},
            nodes=[],
            precision=recorded.get("precision") or "",
            precision_seconds=[],
            accept_changes=accept_changes,
        )


def describe_hardware(nodes: Sequence[Node]) -> dict[str, Any]:
    """The machines that a study runs on."""
    return {
        "platform": platform.platform(),
        "nodes": [{"cpus": node.cpus, "gpus": node.gpus} for node in nodes],
        "cpus": sum(node.cpus for node in nodes),
        "gpus": sum(node.gpus for node in nodes),
        "driver_cpus": os.cpu_count(),
    }
