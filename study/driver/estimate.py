"""What a study will take: minutes on this machine, and disk, from one step of each of its models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segstrat.config import Numerics, TrialConfig
from segstrat.parallel import cpu_cores
from segstrat.tasks import Task
from study.driver.thinning import ALL, KEPT
from study.planning.resources import Node, share
from study.planning.trials import PlannedTrial

if TYPE_CHECKING:
    from segstrat.pretraining.job import PretrainJob

# Imports, data and model of a trial.
START_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of all trials to their end, without early stopping; reading images is not included.

    Args:
        seconds: wall time with `concurrent` trials at a time.
        pretrain_seconds: wall time of the pre-trainings before them.
        disk_bytes: of the checkpoints that are kept.
        device: what it was measured on.
    """

    seconds: float
    pretrain_seconds: float
    disk_bytes: int
    concurrent: int
    device: str


def estimate(
    trials: Sequence[PlannedTrial],
    data: Mapping[str, Any],
    numerics: Numerics,
    *,
    max_concurrent: int | None = None,
    gpus_per_trial: float | str | None = None,
    keep_checkpoints: str = ALL,
    pretrainings: "Sequence[PretrainJob]" = (),
) -> Estimate:
    """Tries one step of each different model of a study on this machine.

    Args:
        data: as `study.driver.data_check.check_data` describes it.
        pretrainings: those that must be made.
    """
    import torch

    from segstrat.machine import Machine
    from segstrat.step_cost import measure_step

    gpus = torch.cuda.device_count() if gpus_per_trial != 0 else 0
    node = Node(address="", cpus=cpu_cores(), gpus=gpus)
    division = share([node], max_concurrent=max_concurrent)
    machine = Machine(device="cuda" if gpus else "cpu", threads=division.cpus, precision=numerics.precision)
    tasks = {name: Task(name, classes) for name, classes in data["classes"].items()}
    measured = {}
    work = 0.0
    disk = largest = 0
    for trial in trials:
        config = trial.config
        key = _model_key(config)
        if key not in measured:
            chosen = {name: tasks[name] for name in config.tasks}
            measured[key] = measure_step(config, chosen, machine)
        step = measured[key]
        images = data["train_images"] * config.label_fraction
        validations = -(-config.epochs // config.validate_every)
        work += START_SECONDS + config.epochs * images * step.train_seconds
        work += validations * data["val_images"] * step.val_seconds
        disk += KEPT[keep_checkpoints] * step.checkpoint_bytes
        largest = max(largest, step.checkpoint_bytes)
    concurrent = min(division.concurrent, len(trials))
    # Trials that have not ended keep all of theirs.
    disk += (KEPT[ALL] - KEPT[keep_checkpoints]) * largest * concurrent
    return Estimate(
        seconds=work / concurrent,
        pretrain_seconds=_pretrain_seconds(
            pretrainings, gpus=gpus, at_once=concurrent, threads=division.cpus
        ),
        disk_bytes=disk,
        concurrent=concurrent,
        device=torch.cuda.get_device_name(0) if gpus else f"{node.cpus} CPU cores",
    )


def _pretrain_seconds(jobs: "Sequence[PretrainJob]", *, gpus: int, at_once: int, threads: int) -> float:
    """Wall time of pre-trainings, divided as `study.driver.with_weights` divides them."""
    from segstrat.machine import Machine
    from segstrat.pretraining.cached import machine_fields
    from segstrat.pretraining.run_time import run_seconds

    machine = Machine(**machine_fields("cuda" if gpus else "cpu", threads))
    ends = [0.0] * min(at_once, gpus or cpu_cores())
    for seconds in run_seconds(jobs, machine):
        # Each starts where one ends first.
        ends.sort()
        ends[0] += seconds
    return max(ends)


def _model_key(config: TrialConfig) -> tuple[Any, ...]:
    names = ("model", "backbone", "width", "output_stride", "tasks", "crop_size", "batch_size")
    return tuple(getattr(config, name) for name in names)
