"""What a study will take: minutes on this machine, and disk, from one step of each of its models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segstrat.config import Numerics, TrialConfig
from segstrat.parallel import cpu_cores
from segstrat.pretraining.job import Pretraining
from segstrat.store import cache_dir
from segstrat.tasks import Task
from study.driver.thinning import ALL, KEPT
from study.planning.resources import Node, share
from study.planning.trials import PlannedTrial

# Imports, data and model of a trial.
START_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of all trials to their end, without early stopping; reading images is not included.

    Args:
        seconds: wall time with `concurrent` jobs at a time.
        pretrain_seconds: of them, the share of the pre-trainings.
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
    pretrainings: Sequence[Pretraining] = (),
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
    pretrain_work = 0.0
    if pretrainings:
        from segstrat.pretraining.cached import pretrain_machine, run_seconds

        seconds = run_seconds(
            pretrainings, cache_dir(), pretrain_machine("cuda" if gpus else "cpu", division.cpus)
        )
        pretrain_work = sum(seconds)
    return Estimate(
        seconds=(work + pretrain_work) / concurrent,
        pretrain_seconds=pretrain_work / concurrent,
        disk_bytes=disk,
        concurrent=concurrent,
        device=torch.cuda.get_device_name(0) if gpus else f"{node.cpus} CPU cores",
    )


def _model_key(config: TrialConfig) -> tuple[Any, ...]:
    names = ("model", "backbone", "width", "output_stride", "tasks", "crop_size", "batch_size")
    return tuple(getattr(config, name) for name in names)
