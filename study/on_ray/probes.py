"""Questions that only a node itself can answer: does it see a folder, how large are its GPUs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.store import Store
from segstrat.tasks import Task
from study.on_ray.runtime import living_nodes
from study.planning.resources import Node, cost_key
from study.planning.trials import PlannedTrial
from study.state.lock import LOCK

if TYPE_CHECKING:
    from segstrat.step_cost import Footprint

ANSWER_SECONDS = 120.0
LOST = (
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
)


def ask(
    nodes: Sequence[Node], question: Callable[..., Any], *arguments: Any, gpu: bool = False
) -> list[tuple[Node, Any]]:
    """Runs a small function on every node at the same time.

    Returns:
        each node with its answer, in the nodes' order; those lost in the meantime are left out.

    Raises:
        UserError: if a living node does not answer in time, or the process that was to answer ended there.
    """
    # A separate process for each question: one that has used a GPU would keep some of its memory.
    task = ray.remote(max_calls=1)(question)
    asked = [
        task.options(
            num_cpus=0,
            num_gpus=1 if gpu else 0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(*arguments)
        for node in nodes
    ]
    ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    answers = []
    for node, answer in zip(nodes, asked, strict=True):
        try:
            answers.append((node, ray.get(answer, timeout=0)))
        except (*LOST, ray.exceptions.GetTimeoutError) as error:
            if node.node_id in {each.node_id for each in living_nodes()}:
                late = isinstance(error, ray.exceptions.GetTimeoutError)
                why = f"within {ANSWER_SECONDS:.0f} s" if late else f"({type(error).__name__})"
                raise UserError(
                    f"node {node.address} does not answer {why}; see `ray status`, or --verbose"
                ) from error
    return answers


def check_shared(study: Store, nodes: Sequence[Node]) -> None:
    """Makes sure that every node sees the folder of a study that is about to start.

    Raises:
        UserError: if the study is on a disk that a node does not have.
    """
    if not study.is_local or len(nodes) < 2:
        return
    path = str(study.local_path / LOCK)
    blind = [node.address for node, sees in ask(nodes, sees_file, path) if not sees]
    if blind:
        raise UserError(
            f"--storage: {study.uri} is not seen by node {blind[0]}; give a folder that all nodes share, or "
            "s3://BUCKET/PREFIX"
        )


def with_gpu_memory(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with the memory of their smallest GPUs, as `--gpus-per-trial auto` needs it."""
    asked = [node for node in nodes if node.gpus]
    # A process that is assigned a GPU sees only that one, and a node may have different ones.
    memory = {node.node_id: gib for node, gib in ask(asked, smallest_gpu_gib)}
    # Ray hides all GPUs from the others where it was started with RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1.
    hidden = [node for node in asked if memory.get(node.node_id) == 0]
    memory |= {node.node_id: gib for node, gib in ask(hidden, smallest_gpu_gib, gpu=True)}
    return [replace(node, gpu_memory_gib=memory.get(node.node_id, 0.0)) for node in nodes]


def gpu_footprint(
    nodes: Sequence[Node], trials: Sequence[PlannedTrial], tasks: Mapping[str, Task], precision: str
) -> "tuple[Footprint | None, list[str]]":
    """What the study's models need of a GPU: a few steps of each on one GPU node, for `auto`.

    Returns:
        the most that any of them needs, None without a GPU; and a line for the user about each.
    """
    node = next((node for node in nodes if node.gpus), None)
    if node is None:
        return None, []
    found: list[Footprint] = []
    lines = []
    for config in {cost_key(trial.config): trial.config for trial in trials}.values():
        tasks_of_model = {name: tasks[name] for name in config.tasks}
        answers = ask([node], footprint_here, config, tasks_of_model, precision, gpu=True)
        if not answers:
            raise UserError(
                f"node {node.address} was lost while --gpus-per-trial auto tried a model there; start again"
            )
        ((_, footprint),) = answers
        found.append(footprint)
        lines.append(
            f"{network_name(config)}: {footprint.memory_gib:.1f} GiB of the GPU, which is busy "
            f"{footprint.busy:.0%} of a step"
        )
    largest = replace(
        found[0],
        memory_gib=max(footprint.memory_gib for footprint in found),
        busy=max(footprint.busy for footprint in found),
    )
    return largest, lines


def network_name(config: TrialConfig) -> str:
    """A network with its batch, in words."""
    name = f"{config.model} {config.backbone or ''}".strip()
    return f"{name}, batch {config.batch_size} at {config.crop_size} px"


def footprint_here(config: TrialConfig, tasks: Mapping[str, Task], precision: str) -> "Footprint":
    """What a model needs of the GPU that Ray assigned to this process."""
    from segstrat.step_cost import Footprint, measure_footprint

    try:
        return measure_footprint(config, tasks, device="cuda", precision=precision)
    except RuntimeError:
        # Out of memory, or torch sees no GPU: such a model does not share its GPU.
        return Footprint(memory_gib=float("inf"), busy=1.0)


def possible_precisions(nodes: Sequence[Node], *, gpus: float) -> dict[str, str]:
    """`bfloat16` for each node that has units for it, `float32` for any other, by its address.

    Args:
        gpus: of each trial; nodes without a GPU are left out where trials need one.

    Raises:
        UserError: where torch does not see the GPUs that trials need.
    """
    asked = [node for node in nodes if node.gpus] if gpus else list(nodes)
    answers = ask(asked, precision_here, "cuda" if gpus else "cpu", gpu=bool(gpus))
    if blind := [node for node, precision in answers if not precision]:
        raise UserError(
            f"--gpus-per-trial {gpus:g}: torch sees none of the {blind[0].gpus} GPUs of node "
            f"{blind[0].address}; install torch with CUDA there, or pass --gpus-per-trial 0"
        )
    return {node.address: precision for node, precision in answers}


def precision_seconds(
    node: Node, trials: Sequence[PlannedTrial], tasks: Mapping[str, Task], *, gpus: float, cpus: int
) -> list[dict[str, Any]]:
    """The study's networks, and seconds of a step of each in each precision on one node.

    Raises:
        UserError: if the node is lost meanwhile.
    """
    found: list[dict[str, Any]] = []
    for config in {cost_key(trial.config): trial.config for trial in trials}.values():
        device = "cuda" if gpus else "cpu"
        own = {name: tasks[name] for name in config.tasks}
        answers = ask([node], precision_seconds_here, config, own, device, cpus, gpu=bool(gpus))
        if not answers:
            raise UserError(
                f"node {node.address} was lost while --precision auto tried a model there; start again"
            )
        ((_, seconds),) = answers
        found.append({"network": network_name(config), **seconds})
    return found


def precision_seconds_here(
    config: TrialConfig, tasks: Mapping[str, Task], device: str, threads: int
) -> dict[str, float]:
    """Seconds of a step in each precision on the device of this process."""
    from segstrat.step_cost import measure_precisions

    return measure_precisions(config, tasks, device=device, threads=threads)


def precision_here(device: str) -> str:
    """`bfloat16` where this process's device has units for it, else `float32`; '' without the device."""
    import torch

    from segstrat.machine import fastest_precision

    if device == "cuda" and not torch.cuda.is_available():
        return ""
    return fastest_precision(torch.device(device))


def sees_file(path: str) -> bool:
    """Whether a file exists."""
    return Path(path).exists()


def smallest_gpu_gib() -> float:
    """Memory of the smallest GPU that this process may use, in GiB; 0 where torch sees none."""
    import torch

    count = torch.cuda.device_count()
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(count)]
    return min(sizes, default=0) / 2**30
