"""Builds a study's data once before anything starts, so that missing data is found here."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.store import cache_dir, data_root
from study.planning.settings import StudySettings
from study.planning.trials import PlannedTrial


def check_data(settings: StudySettings, trials: Sequence[PlannedTrial], *, cache: bool) -> dict[str, Any]:
    """Builds the data of all trials, audits it, and describes it for the manifest.

    Args:
        cache: also decode the images into this node's cache.

    Raises:
        UserError: for data that is missing or incomplete, or that lacks the labels of a task.
    """
    from segstrat.data import build_protocol
    from segstrat.data.audit.checks import audit

    tasks = list(dict.fromkeys(task for trial in trials for task in trial.config.tasks))
    root = data_root(settings.data_root or None)
    protocol = build_protocol(
        settings.data, root, tasks=tasks, cache_dir=cache_dir() if cache else None, progress=cache
    )
    report = audit(protocol, cache_dir=cache_dir())
    report.check()
    for warning in report.warnings:
        Console(stderr=True, highlight=False).print(Text(f"warning: {warning}", style="yellow"))
    return {
        "name": settings.data,
        # Of a user's own images, as their `dataset.toml` names them.
        "title": protocol.name,
        "digest": protocol.digest,
        "synthetic": protocol.synthetic,
        "train_images": len(protocol.train),
        "val_images": len(protocol.val),
        "classes": {name: list(task.classes) for name, task in protocol.tasks.items()},
        "root": str(root) if root else "",
        "audit": "full" if report.full else "quick",
        "warnings": report.warnings,
    }
