"""Questions that only a node itself can answer: does it see a folder, how large are its GPUs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segstrat.errors import UserError
from segstrat.store import Store
from study.lock import LOCK
from study.resources import Node

ANSWER_SECONDS = 120.0


def ask(nodes: Sequence[Node], question: Callable[..., Any], *arguments: Any, gpu: bool = False) -> list[Any]:
    """Runs a small function on every node at the same time and returns the answers in the nodes' order.

    Raises:
        UserError: if a node does not answer in time.
    """
    task = ray.remote(question)
    answers = [
        task.options(
            num_cpus=0,
            num_gpus=1 if gpu else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(*arguments)
        for node in nodes
    ]
    try:
        return ray.get(answers, timeout=ANSWER_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        names = ", ".join(sorted({node.address for node in nodes}))
        raise UserError(
            f"a node does not answer within {ANSWER_SECONDS:.0f} s ({names}); see `ray status`, or --verbose"
        ) from error


def check_shared(study: Store, nodes: Sequence[Node]) -> None:
    """Makes sure that every node sees the folder of a study that is about to begin.

    Raises:
        UserError: if the study lies on a disk that a node has not got.
    """
    if not study.is_local or len(nodes) < 2:
        return
    path = str(study.local_path / LOCK)
    blind = [node.address for node, sees in zip(nodes, ask(nodes, sees_file, path), strict=True) if not sees]
    if blind:
        raise UserError(
            f"--storage: {study.uri} is not seen by node {blind[0]}; give a folder that all nodes share, or "
            "s3://BUCKET/PREFIX"
        )


def with_gpu_memory(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with the memory of their GPUs, as `--gpus-per-trial auto` needs it."""
    asked = [node for node in nodes if node.gpus]
    memory = dict(zip((node.node_id for node in asked), ask(asked, smallest_gpu_gib, gpu=True), strict=True))
    return [replace(node, gpu_memory_gib=memory.get(node.node_id, 0.0)) for node in nodes]


def sees_file(path: str) -> bool:
    """Whether a file is there."""
    return Path(path).exists()


def smallest_gpu_gib() -> float:
    """Memory of the smallest GPU that this process may use, in GiB; 0 where torch sees none."""
    import torch

    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(count)]
    return min(sizes, default=0) / 2**30
