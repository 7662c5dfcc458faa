"""Pre-trained weights as files in the cache: found there, or trained by one process while the others wait."""

import dataclasses
import re
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import torch

from segstrat.atomic import only_builder
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.models.weights import checksums_fit
from segstrat.parallel import cpu_cores
from segstrat.pretraining.job import PretrainData, Pretraining, PretrainReport, PretrainSource, SelfSource
from segstrat.pretraining.loop import (
    Learner,
    build_classifier,
    check_writable,
    pretrain_steps,
    run_key,
    to_the_end,
    train_one_epoch,
)
from segstrat.pretraining.masked import build_masked
from segstrat.pretraining.recipe import MaskedRecipe, Recipe
from segstrat.store import Store

# Images of a step that is only timed; on a CPU, a whole batch of photographs takes a minute.
TIMED_ON_CPU = 16


class _BusyError(Exception):
    """Another process trains the same weights."""


def build_learner(backbone: str, width: float, data: PretrainData, recipe: Recipe) -> Learner:
    """The network that learns from classes where there are some, else from masked images."""
    if isinstance(recipe, MaskedRecipe):
        return build_masked(backbone, width, recipe)
    return build_classifier(backbone, width, len(data.classes), recipe)


def weights_name(pretraining: Pretraining, data: PretrainData) -> str:
    """File name that tells apart all weights that can differ: by backbone, width, data, recipe and code.

    Args:
        data: the images of its source.
    """
    recipe = pretraining.recipe(data)
    model = build_learner(pretraining.backbone, pretraining.width, data, recipe)
    key = run_key(model, data, recipe)
    network = f"{pretraining.backbone.replace('/', '-')}-{pretraining.width:g}"
    kind = "self-" * isinstance(recipe, MaskedRecipe)
    source = re.sub(r"[^\w.+-]+", "-", data.name)
    return f"{network}-{kind}{source}-seed{recipe.seed}-{key[:10]}.pth"


def train_weights(
    pretraining: Pretraining, out: Path, machine: Machine, *, shared: Store | None = None
) -> Iterator[PretrainReport | None]:
    """Trains weights into the cache, from the last complete epoch of an interrupted run.

    Of several processes one trains while the others wait. Yields a report per epoch, and None between the
    steps and while it waits, so that the caller can end it at any time.

    Args:
        out: the file in the cache, named by `weights_name`.
        shared: folder that all machines of a study see: it gets the state after every epoch, so that any of
            them can continue, and the weights.

    Raises:
        UserError: if the images are not those that `out` is named after; and see `pretrain`.
    """
    data = pretraining.source.open(out.parents[1])
    if (name := weights_name(pretraining, data)) != out.name:
        raise UserError(
            f"the images of {pretraining.source.name} on {socket.gethostname()} give the weights {name}, and "
            f"not {out.name}, as those of the machine that started the study do; give both the same images "
            "and the same code"
        )
    recipe = pretraining.recipe(data)
    states = shared / f"{out.name}.state" if shared else None
    check_writable(out)
    waiting = True
    while waiting:
        try:
            with only_builder(out.with_suffix(".lock"), on_wait=_raise_busy):
                waiting = False
                if not is_sound(out):
                    model = build_learner(pretraining.backbone, pretraining.width, data, recipe)
                    yield from pretrain_steps(
                        model, data, recipe, out, machine=machine, resume=True, states=states
                    )
        except _BusyError:
            yield None
    if shared:
        shared.write(out.name, out.read_bytes())


def is_sound(path: Path) -> bool:
    """Whether the file is there and can be read; one that cannot is deleted, to be made again."""
    if not path.is_file():
        return False
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        # Torch does not compare the checksums that it writes.
        if not checksums_fit(path):
            raise ValueError
    # A damaged file fails in many ways, which depend on where the damage is.
    except Exception:
        path.unlink()
        return False
    return True


def whole_machine() -> Machine:
    """All of this machine: a GPU if there is one, else every core."""
    return pretrain_machine("cuda" if torch.cuda.device_count() else "cpu", cpu_cores())


def pretrain_machine(device: str, threads: int, *, memory_fraction: float = 1.0) -> Machine:
    """A machine that pre-trains in bfloat16 on GPUs that have it, and in float32 on every CPU.

    Weights trained on CPUs then do not depend on whether the processor has units for bfloat16; their last
    digits depend on the number of threads.
    """
    return Machine(
        device=device,
        threads=threads,
        precision="float32" if device == "cpu" else "auto",
        memory_fraction=memory_fraction,
    )


def run_seconds(pretrainings: Sequence[Pretraining], cache: Path, machine: Machine) -> list[float]:
    """Seconds that each takes alone on a machine; one step of each different network is timed.

    Reading images is not included: those of the timed step are in memory.
    """
    opened: dict[PretrainSource | SelfSource, PretrainData] = {}
    measured: dict[tuple[str, float, PretrainSource | SelfSource], float] = {}
    found = []
    for each in pretrainings:
        source = dataclasses.replace(each.source, epochs=None)
        data = opened.setdefault(source, opened.get(source) or source.open(cache))
        network = (each.backbone, each.width, source)
        if network not in measured:
            measured[network] = _epoch_seconds(each, data, machine)
        found.append(each.recipe(data).epochs * measured[network])
    return found


def _epoch_seconds(pretraining: Pretraining, data: PretrainData, machine: Machine) -> float:
    """Seconds of an epoch, with its evaluation."""
    machine.apply()
    recipe = pretraining.recipe(data)
    device = machine.torch_device
    count = min(recipe.batch_size, TIMED_ON_CPU) if device.type == "cpu" else recipe.batch_size
    recipe = dataclasses.replace(recipe, batch_size=count)
    model = build_learner(pretraining.backbone, pretraining.width, data, recipe)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = model.optimizer(recipe)
    train, val = data.train.first(count), data.val.first(count)

    def seconds_per_image(steps: Generator[None, None, object], images: int) -> float:
        start = time.perf_counter()
        to_the_end(steps)  # both kinds end with a value on the host, and so wait for the device
        return (time.perf_counter() - start) / images

    # The first step reads the images, loads kernels and allocates memory.
    for _ in range(2):
        training = seconds_per_image(train_one_epoch(model, optimizer, train, recipe, machine, 0), len(train))
    for _ in range(2):
        validation = seconds_per_image(model.evaluate(val, recipe, machine), len(val))
    return len(data.train) * training + len(data.val) * validation


def _raise_busy() -> None:
    raise _BusyError
