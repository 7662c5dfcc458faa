"""What each trial gets of the machine or cluster, and the precision in which the study computes."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from segstrat.errors import UserError
from segstrat.tasks import Task
from study.cli import AUTO, Flags
from study.planning.resources import Node, Share, share
from study.planning.trials import PlannedTrial

# Without a margin the same command on the same machine would mean either precision, by chance. On a processor
# with such units a step of 80-pixel scenes takes .89 to .90 of float32's time, of 32-pixel images .96 to .98.
WORTH_ROUNDING = 0.95


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


def asked_precision(flag: str, recorded: Mapping[str, Any]) -> str:
    """What `--precision` asks for: where a resumed study says `auto`, the precision that it was started with.

    `auto` is resolved once, so that a study does not change its precision with the machine. Torch computes in
    bfloat16 on every device.

    Args:
        recorded: the manifest of a study that is resumed; empty for a new one.
    """
    return str(recorded.get("precision") or AUTO) if flag == AUTO else flag


def study_precision(
    asked: str,
    nodes: Sequence[Node],
    trials: Sequence[PlannedTrial],
    classes: Mapping[str, Sequence[str]],
    division: Share,
) -> tuple[str, list[dict[str, Any]]]:
    """What `--precision` means on these nodes, and the seconds of a step of each network that decided it.

    `auto` is float32 on devices without units for bfloat16. On others a few steps of the study's networks
    decide, on the first node: depthwise convolutions gain nothing from such units, and lose by conversions.

    Args:
        asked: see `asked_precision`.
        classes: of each task.
        division: what each trial gets.

    Raises:
        UserError: if some nodes have units for bfloat16 and others do not, or torch does not see their GPUs.
    """
    from study.on_ray import probes

    gpus = division.gpus
    if asked != AUTO:
        if gpus:
            # Refused where torch sees no GPU, before every trial fails of it.
            probes.possible_precisions(nodes, gpus=gpus)
        return asked, []
    if len(nodes) == 1 and not gpus:
        # Usually this machine; asking Ray would take seconds.
        possible = probes.precision_here("cpu")
    else:
        possible = common_precision(probes.possible_precisions(nodes, gpus=gpus))
    if possible != "bfloat16":
        return possible, []
    tasks = {name: Task(name, names) for name, names in classes.items()}
    node = next(node for node in nodes if node.gpus or not gpus)
    found = probes.precision_seconds(node, trials, tasks, gpus=gpus, cpus=division.cpus)
    return faster_precision(found), found


def faster_precision(seconds: Sequence[Mapping[str, Any]]) -> str:
    """`bfloat16` where it saves a twentieth of a step in float32, in the mean of the networks.

    Args:
        seconds: of a step in each precision, by network.
    """
    shares = [each["bfloat16"] / each["float32"] for each in seconds]
    return "bfloat16" if sum(shares) <= WORTH_ROUNDING * len(shares) else "float32"


def common_precision(by_node: dict[str, str]) -> str:
    """The precision of all nodes.

    Raises:
        UserError: if there are several.
    """
    found = {precision: node for node, precision in by_node.items()}
    if len(found) > 1:
        nodes = " and ".join(f"{precision} on node {node}" for precision, node in sorted(found.items()))
        raise UserError(
            f"--precision auto means {nodes}, and a study does not mix precisions; pass --precision float32, "
            "or bfloat16"
        )
    return next(iter(found), "float32")
