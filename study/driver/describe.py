"""The manifest of a study that is about to run: its settings, and what it runs on."""

import os
import platform
from collections.abc import Sequence
from typing import Any

from study.driver.confirm import parent_of
from study.driver.prepare import OpenedStudy
from study.planning.resources import Node
from study.planning.trials import PlannedTrial
from study.state.changes import accepted_changes, changes, refuse_changes
from study.state.halving import HalvingRule
from study.state.manifest import new_manifest


def describe_study(
    opened: OpenedStudy,
    trials: Sequence[PlannedTrial],
    *,
    data: dict[str, Any],
    weights: dict[str, str],
    nodes: Sequence[Node],
    precision: str,
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
            "data": data,
            "seeds": list(settings.seeds),
            "roles": space.roles,
            "metric": space.metric,
            "scheduler": HalvingRule.of(settings.scheduler).to_dict(),
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
    accepted = accepted_changes(opened.recorded, manifest, [change.words for change in found])
    kept = {key: opened.recorded[key] for key in ("created", "command", "parent")}
    # What was fixed before the first look stands.
    kept |= {"answering": opened.recorded["answering"]} if "answering" in opened.recorded else {}
    return manifest | kept | {"accepted": accepted}


def describe_hardware(nodes: Sequence[Node]) -> dict[str, Any]:
    """The machines that a study runs on."""
    return {
        "platform": platform.platform(),
        "nodes": [{"cpus": node.cpus, "gpus": node.gpus} for node in nodes],
        "cpus": sum(node.cpus for node in nodes),
        "gpus": sum(node.gpus for node in nodes),
        "driver_cpus": os.cpu_count(),
    }
