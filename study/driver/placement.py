"""What each trial gets of the machine or cluster."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.tasks import Task
from study.cli import AUTO, Flags
from study.planning.resources import Node, Share, share
from study.planning.trials import PlannedTrial


def divide(
    flags: Flags,
    precision: str,
    nodes: Sequence[Node],
    trials: Sequence[PlannedTrial],
    data: dict[str, Any],
    console: Console,
) -> Share:
    """What each trial gets of the nodes; for `--gpus-per-trial auto` the study's models are tried first.

    Raises:
        UserError: if no node can hold a trial, or a trial cannot share several GPUs.
    """
    footprint = None
    if flags.gpus_per_trial == AUTO:
        from study.on_ray.probes import gpu_footprint, with_gpu_memory

        tasks = {name: Task(name, classes) for name, classes in data["classes"].items()}
        nodes = with_gpu_memory(nodes)
        footprint, lines = gpu_footprint(nodes, trials, tasks, precision)
        for line in lines:
            console.print(Text(f"probe     {line}"))
    division = share(
        nodes,
        gpus_per_trial=flags.gpus_per_trial,
        cpus_per_trial=flags.cpus_per_trial,
        max_concurrent=flags.max_concurrent,
        footprint=footprint,
    )
    if division.gpus > 1:
        refuse_uneven(trials, int(division.gpus))
    return division


def refuse_uneven(trials: Sequence[PlannedTrial], gpus: int) -> None:
    """Raises a UserError for a trial that several GPUs cannot share."""
    for trial in trials:
        reason = trial.config.needs_one_process()
        if trial.config.batch_size % gpus:
            reason = f"its batch of {trial.config.batch_size} is not divisible by it"
        if not reason:
            continue
        raise UserError(f"--gpus-per-trial {gpus}: not for trial {trial.label}: {reason}")
