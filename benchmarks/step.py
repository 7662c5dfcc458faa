"""Training step of FCN-32s-ResNet-18 on one core, batch 10, 256×256, 21 classes, with learnable upsampling.

The reference is the plain eager float32 step of `benchmarks.recipe`; segstrat's is the one that trials run,
including its running confusion matrix. The steps between the two show what each choice gains.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.hardware import cpu_has_bfloat16
from benchmarks.input import one_core
from benchmarks.recipe import CLASSES, PlainFCN, plain_optimizer, train_plainly
from benchmarks.timing import Claim, Comparison, Contestant, compare
from segstrat.config import TrialConfig
from segstrat.data.loading.batch import Batch, normalize
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.models.upsample import LearnableUpsample
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, make_parameter_groups
from segstrat.tasks import Task
from segstrat.train import train_one_epoch

TASKS = {"semseg": Task("semseg", CLASSES)}


class OneBatch:
    """A loader whose epoch is one batch, `repeats` times."""

    def __init__(
        self, batch_size: int, side: int, device: torch.device | str = "cpu", repeats: int = 1
    ) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
        labels = rng.integers(0, CLASSES, (batch_size, side, side), dtype=np.uint8)
        self.repeats = repeats
        self.batch = Batch(
            torch.from_numpy(images).to(device).permute(0, 3, 1, 2),
            {"semseg": torch.from_numpy(labels).to(device)},
            {"semseg": list(range(batch_size))},
            [str(i) for i in range(batch_size)],
        )

    def epoch(self, _: int) -> Iterator[Batch]:
        """The batches."""
        yield from [self.batch] * self.repeats


def run(*, quick: bool) -> list[Comparison]:
    batch_size, side, rounds = (2, 64, 1) if quick else (10, 256, 7)
    with one_core():
        loader = OneBatch(batch_size, side)
        bfloat16 = cpu_has_bfloat16()
        contestants = {
            "eager float32 NCHW": plain_step(loader),
            "+ convolution for transposed": plain_step(loader, shuffle=True),
            "+ channels last": plain_step(loader, shuffle=True, channels_last=True),
            "+ fused SGD": plain_step(loader, shuffle=True, channels_last=True, fused=True),
            "+ bfloat16": plain_step(loader, shuffle=True, channels_last=True, fused=True, bfloat16=True),
            "segstrat": trial_step(loader, Machine(precision="float32")),
        }
        notes = []
        if not quick:
            contestants["segstrat, compiled"] = compiled = trial_step(
                loader, Machine(precision="float32", compile=True)
            )
            start = time.perf_counter()
            compiled()
            notes.append(f"compiled: the first step took {time.perf_counter() - start:.0f} s")
        if bfloat16:
            contestants["segstrat, bfloat16"] = trial_step(loader, Machine(precision="bfloat16"))
        fastest = "segstrat, bfloat16" if bfloat16 else "segstrat"
        return [
            compare(
                f"training step, one core, batch {batch_size}, {side}×{side}",
                contestants,
                unit="step",
                reference="segstrat",
                rounds=rounds,
                claims=[Claim(fastest, "eager float32 NCHW", 1.7 if bfloat16 else 1.0)],
                notes=notes,
            )
        ]


def plain_step(
    loader: OneBatch,
    *,
    shuffle: bool = False,
    channels_last: bool = False,
    fused: bool = False,
    bfloat16: bool = False,
) -> Contestant:
    """A step of the plain loop, with some of segstrat's choices."""
    torch.manual_seed(0)
    model = PlainFCN()
    side = loader.batch.images.shape[-1]
    if shuffle:
        model.upsample = _AsTransposed(model.upsample.weight, side)
    optimizer = plain_optimizer(model)
    optimizer = torch.optim.SGD(optimizer.param_groups, fused=fused) if fused else optimizer
    images = normalize(loader.batch.images).contiguous()
    if channels_last:
        model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    batches = [(images, loader.batch.labels["semseg"])]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            train_plainly(model, optimizer, batches)

    return step


class _AsTransposed(torch.nn.Module):
    """segstrat's upsampling instead of the transposed convolution."""

    def __init__(self, weight: torch.nn.Parameter, side: int) -> None:
        super().__init__()
        self.upsample = LearnableUpsample(CLASSES, 32)
        self.upsample.weight = weight
        self.side = side

    def forward(self, scores_BChw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.upsample(scores_BChw, (self.side, self.side))
        return logits


def trial_step(
    loader: OneBatch, machine: Machine, model_name: str = "fcn32s", *, cuda_graphs: bool = False
) -> Contestant:
    """The steps that a trial runs on the loader's batches."""
    config = TrialConfig(
        model=model_name, crop_size=loader.batch.images.shape[-1], batch_size=len(loader.batch.ids)
    )
    model = build_model(config, TASKS).to(machine.torch_device).to(memory_format=torch.channels_last)
    groups = make_parameter_groups(model, config, {COMMON: 10**6, "semseg": 10**6}, fused=True)
    update = SummedUpdate(groups, total_steps=10**6)
    objective = Objective(model, TASKS, machine)
    if machine.compile is True:
        objective.compile(same_shapes=True, cuda_graphs=cuda_graphs)
    return lambda: train_one_epoch(objective, loader.epoch(0), update, config.batch_size)
