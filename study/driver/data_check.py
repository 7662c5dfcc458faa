"""Builds a study's data once before anything starts, so that missing data is found here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.pretraining.job import FIGURES
from segstrat.store import cache_dir, data_root
from study.analysis.caveats_and_notes import few_images, scored_images
from study.cli import StudySettings
from study.planning.trials import PlannedTrial

if TYPE_CHECKING:
    from segstrat.data.audit.headers import Needs


def needs_of(trials: Sequence[PlannedTrial]) -> "Needs":
    """What the trials ask of the images."""
    import torch

    from segstrat.data.audit.headers import Needs
    from segstrat.models import assemble_model
    from segstrat.tasks import Task

    networks = {
        (trial.config.model, trial.config.backbone, trial.config.output_stride): trial.config
        for trial in trials
    }
    with torch.device("meta"):
        strides = [
            assemble_model(config, {task: Task(task, 2) for task in config.tasks}).backbone.strides[-1]
            for config in networks.values()
        ]
    return Needs(
        stride=max(strides, default=1),
        smallest_crop=min((trial.config.crop_size for trial in trials), default=1),
        largest_crop=max((trial.config.crop_size for trial in trials), default=1),
    )


def check_data(settings: StudySettings, trials: Sequence[PlannedTrial], *, cache: bool) -> dict[str, Any]:
    """Builds the data of all trials, audits it, and describes it for the manifest.

    Args:
        cache: also decode the images into this node's cache.

    Raises:
        UserError: for data that is missing or incomplete, or that lacks the labels of a task.
    """
    from segstrat.data import build_protocol
    from segstrat.data.audit.checks import audit
    from segstrat.data.figures import ensure_figures

    if FIGURES in (settings.data, settings.pretrain_on) or not (settings.weights or settings.pretrain_on):
        ensure_figures(verify=True)
    tasks = list(dict.fromkeys(task for trial in trials for task in trial.config.tasks))
    root = data_root(settings.data_root or None)
    protocol = build_protocol(
        settings.data,
        root,
        tasks=tasks,
        cache_dir=cache_dir() if cache else None,
        progress=cache,
        verify=cache,
    )
    report = audit(protocol, needs=needs_of(trials), cache_dir=cache_dir(), progress=cache)
    sheet = ""
    if not cache:
        from segstrat.data.audit.sheet import SHEETS, write_sheet

        sheet = str(write_sheet(protocol, cache_dir() / SHEETS, [*report.errors, *report.warnings]))
    try:
        report.check()
    except UserError as error:
        raise UserError(f"{error}; {sheet} shows how the labels are read" if sheet else str(error)) from error
    facts = {"val_images": len(protocol.val), "test_images": len(protocol.test) if protocol.test else 0}
    few = few_images(*scored_images(facts))
    warnings = [*report.warnings, *([few] if few else [])]
    for warning in warnings:
        Console(stderr=True, highlight=False).print(
            Text(f"warning: {warning}", style="yellow"), soft_wrap=True
        )
    return {
        "name": settings.data,
        # Of a user's own images, as their `dataset.toml` names them.
        "title": protocol.name,
        "digest": protocol.digest,
        "synthetic": protocol.synthetic,
        "train_images": len(protocol.train),
        **facts,
        "classes": {name: list(task.classes) for name, task in protocol.tasks.items()},
        "root": str(root) if root else "",
        "image_max": protocol.image_max,
        "audit": "full" if report.full else "quick",
        "warnings": warnings,
        "sheet": sheet,
    }
