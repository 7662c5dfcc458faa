"""How many CPUs and GPUs a trial gets on the available nodes, and how many trials run at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from study.cli import AUTO

if TYPE_CHECKING:
    from segstrat.step_cost import Footprint

# By default a trial takes no more cores than this: on machines with few GPUs the rest stay free.
MAX_DEFAULT_CPUS = 8
# What `auto` leaves of a GPU's memory for peaks that a few steps do not show.
AUTO_MEMORY_SHARE = 0.9
AUTO_CPUS = 2


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of the cluster; `gpu_memory_gib` is that of its smallest GPU, 0 where it is not known."""

    address: str
    cpus: int
    gpus: int
    gpu_memory_gib: float = 0
    node_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What each trial gets, and how many trials fit at once."""

    cpus: int
    gpus: float
    concurrent: int


def cost_key(config: TrialConfig) -> tuple[Any, ...]:
    """Trials that agree in this need the same time, memory and disk for a step."""
    names = ("model", "backbone", "width", "output_stride", "tasks", "crop_size", "batch_size")
    names += ("loss", "optimizer")
    return (*(getattr(config, name) for name in names), config.dropout > 0, config.label_smoothing > 0)


def share(
    nodes: Sequence[Node],
    *,
    gpus_per_trial: float | str | None = None,
    cpus_per_trial: int | None = None,
    max_concurrent: int | None = None,
    footprint: "Footprint | None" = None,
) -> Share:
    """Divides the nodes among trials.

    One GPU per trial by default, none where there are none. `auto` puts several trials on a GPU as long as
    they fit into its memory, each has `AUTO_CPUS` cores, and the GPU would be idle at times without one more.
    Without a GPU a trial takes one core.

    Args:
        footprint: the most that any of the models needs of a GPU, for `auto`; without it none is shared.

    Raises:
        UserError: if no node can hold a trial; Ray would wait forever.
    """
    most_gpus = max(node.gpus for node in nodes)
    gpus = _gpus(nodes, gpus_per_trial, footprint)
    if gpus > most_gpus:
        have = f"the largest node has {most_gpus}" if most_gpus else "there is none here"
        raise UserError(
            f"--gpus-per-trial {gpus:g}: {have}, and a trial does not span nodes; ask for "
            f"{'at most ' + str(most_gpus) if most_gpus else '0, or join a cluster with --address'}"
        )
    usable = [node for node in nodes if node.gpus >= math.ceil(gpus)] if gpus else list(nodes)
    most_cpus = max(node.cpus for node in usable)
    if cpus_per_trial is not None and cpus_per_trial > most_cpus:
        raise UserError(
            f"--cpus-per-trial {cpus_per_trial}: the largest node has {most_cpus}; ask for at most that"
        )
    cpus = cpus_per_trial or _default_cpus(usable, gpus)
    fitting = sum(min(_by_gpus(node, gpus), node.cpus // cpus) for node in usable)
    return Share(cpus=cpus, gpus=gpus, concurrent=min(fitting, max_concurrent or fitting))


def _gpus(nodes: Sequence[Node], asked: float | str | None, footprint: "Footprint | None") -> float:
    with_gpus = [node for node in nodes if node.gpus]
    if asked is None:
        return 1.0 if with_gpus else 0.0
    if asked != AUTO:
        return float(asked)
    if not with_gpus:
        return 0.0
    if footprint is None:
        return 1.0
    by_cpus = min(node.cpus // node.gpus // AUTO_CPUS for node in with_gpus)
    smallest = min(node.gpu_memory_gib for node in with_gpus)
    by_memory = int(AUTO_MEMORY_SHARE * smallest / max(footprint.memory_gib, 0.1))
    by_time = math.ceil(1 / max(footprint.busy, 0.05))
    return 1.0 / max(1, min(by_cpus, by_memory, by_time))


def _default_cpus(nodes: Sequence[Node], gpus: float) -> int:
    if not gpus:
        return 1
    return max(1, min(MAX_DEFAULT_CPUS, *(node.cpus // _by_gpus(node, gpus) for node in nodes)))


def _by_gpus(node: Node, gpus: float) -> int:
    """Trials that fit on a node's GPUs; a fraction is never split over two GPUs."""
    if not gpus:
        return node.cpus
    return node.gpus // int(gpus) if gpus >= 1 else node.gpus * int(1 / gpus + 1e-9)
