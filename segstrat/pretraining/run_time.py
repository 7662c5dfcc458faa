"""How long this machine takes for pre-trainings, by training on a few images."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch

from segstrat.machine import Machine
from segstrat.pretraining.classifier import build_classifier
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.job import PretrainJob
from segstrat.pretraining.loop import evaluate, train_one_epoch

# Images of a step that is only tried; on a CPU, a whole batch of photographs takes a minute.
CPU_BATCH = 16


def run_seconds(jobs: Sequence[PretrainJob], machine: Machine) -> list[float]:
    """Seconds that each job takes alone on a machine; one step of each different network is timed.

    Reading images is not included: those of the timed step are in memory.

    Args:
        jobs: on the same images.
    """
    if not jobs:
        return []
    first = jobs[0]
    data = open_classification(first.data_root, name=first.data_name, digest=first.data_digest)
    measured: dict[tuple[str, float], float] = {}
    for job in jobs:
        network = (job.backbone, job.width)
        if network not in measured:
            measured[network] = _epoch_seconds(job, data, machine)
    return [job.recipe.epochs * measured[job.backbone, job.width] for job in jobs]


def _epoch_seconds(job: PretrainJob, data: ClassificationData, machine: Machine) -> float:
    """Seconds of an epoch, with its evaluation."""
    machine.apply()
    device = machine.torch_device
    count = job.recipe.batch_size
    if device.type == "cpu":
        count = min(count, CPU_BATCH)
    recipe = dataclasses.replace(job.recipe, batch_size=count)
    model = build_classifier(job.backbone, job.width, len(data.classes), recipe)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, recipe.momentum)
    train, val = data.train.first(count), data.val.first(count)

    def seconds_per_image(work: Callable[[], object], images: int) -> float:
        start = time.perf_counter()
        work()  # both kinds of work end with a value on the host, and so wait for the device
        return (time.perf_counter() - start) / images

    def step() -> None:
        train_one_epoch(model, optimizer, train, recipe, machine, 0)

    # The first step reads the images, loads kernels and allocates memory.
    _, training = (seconds_per_image(step, len(train)) for _ in range(2))
    _, validation = (
        seconds_per_image(lambda: evaluate(model, val, recipe, machine), len(val)) for _ in range(2)
    )
    return len(data.train) * training + len(data.val) * validation
