"""A whole training epoch at 256×256, batch 10, one core: input, step and running confusion matrix.

The reference is a plain loop: torchvision's v2 transforms on files, eager float32 FCN-32s-ResNet-18 with a
transposed convolution, SGD, confusion matrix by argmax and bincount.
"""

import torch
from torch.utils.data import DataLoader

from benchmarks.hardware import cpu_has_bfloat16
from benchmarks.input import BATCH, Files, one_core, torchvision_v2
from benchmarks.recipe import PlainFCN, plain_optimizer, train_plainly
from benchmarks.scenes import scenes_folder
from benchmarks.timing import Claim, Comparison, Contestant, compare
from segstrat.config import TrialConfig
from segstrat.data import DataProtocol, build_protocol
from segstrat.data.loader import TrainLoader
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.optim import COMMON, SummedUpdate, make_parts
from segstrat.train import train_one_epoch


def run(*, quick: bool) -> list[Comparison]:
    images, crop_size, rounds = (4, 64, 1) if quick else (20, 256, 5)
    bfloat16 = cpu_has_bfloat16()
    with scenes_folder(images) as root, one_core():
        data = build_protocol("folder", root, cache_dir=root / "cache")
        recipe = Files(root, torchvision_v2(crop_size))
        contestants = {"torchvision's recipe": plain_epoch(recipe), "segstrat": trial_epoch(data, crop_size)}
        if bfloat16:
            contestants["segstrat, bfloat16"] = trial_epoch(data, crop_size, bfloat16=True)
        fastest = "segstrat, bfloat16" if bfloat16 else "segstrat"
        return [
            compare(
                f"epoch of {images} images, one core, batch {BATCH}, {crop_size}×{crop_size}",
                contestants,
                unit="image",
                units_per_call=images,
                reference="segstrat",
                rounds=rounds,
                claims=[Claim(fastest, "torchvision's recipe", 1.8 if bfloat16 else 1.0)],
            )
        ]


def plain_epoch(recipe: Files) -> Contestant:
    """An epoch of the plain loop."""
    torch.manual_seed(0)
    model = PlainFCN()
    optimizer = plain_optimizer(model)
    loader = DataLoader(recipe, batch_size=BATCH, shuffle=True)
    return lambda: train_plainly(model, optimizer, loader, count=True)


def trial_epoch(data: DataProtocol, crop_size: int, *, bfloat16: bool = False) -> Contestant:
    """An epoch of a trial."""
    config = TrialConfig(crop_size=crop_size, batch_size=BATCH)
    machine = Machine(precision="bfloat16" if bfloat16 else "float32")
    model = build_model(config, data.tasks).to(memory_format=torch.channels_last)
    images = {COMMON: len(data.train), "semseg": len(data.train)}
    update = SummedUpdate(make_parts(model, config, images), total_steps=10**6)
    loader = TrainLoader(
        data.train,
        tasks=data.tasks,
        crop_size=crop_size,
        batch_size=BATCH,
        augmentation=1.0,
        seed=0,
        threads=machine.threads,
    )
    return lambda: train_one_epoch(model, loader, update, data.tasks, config, machine, 0)
