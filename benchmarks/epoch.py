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
from segstrat.data.loading.device_loader import DeviceTrainLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, SummedUpdate, make_parameter_groups
from segstrat.train import train_one_epoch


def run(*, quick: bool) -> list[Comparison]:
    images, crop_size, rounds = (4, 64, 1) if quick else (20, 256, 5)
    bfloat16 = cpu_has_bfloat16()
    with scenes_folder(images) as root, one_core():
        data = build_protocol("folder", root, cache_dir=root / "cache")
        recipe = Files(root, torchvision_v2(crop_size))
        contestants = {
            "torchvision's recipe": plain_epoch(recipe),
            "segstrat": trial_epoch(data, crop_size, Machine(precision="float32"))[0],
        }
        if bfloat16:
            contestants["segstrat, bfloat16"] = trial_epoch(data, crop_size, Machine(precision="bfloat16"))[0]
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


def plain_epoch(recipe: Files, device: torch.device | str = "cpu", workers: int = 0) -> Contestant:
    """An epoch of the plain loop."""
    torch.manual_seed(0)
    model = PlainFCN().to(device)
    optimizer = plain_optimizer(model)
    loader = DataLoader(
        recipe,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.device(device).type == "cuda",
    )
    return lambda: train_plainly(model, optimizer, loader, device, count=True)


def trial_epoch(data: DataProtocol, crop_size: int, machine: Machine) -> tuple[Contestant, TrainLoader]:
    """An epoch of a trial, and the loader that feeds it."""
    config = TrialConfig(crop_size=crop_size, batch_size=BATCH)
    model = build_model(config, data.tasks).to(machine.torch_device).to(memory_format=torch.channels_last)
    groups = make_parameter_groups(model, config, {COMMON: 10**6, "semseg": 10**6}, fused=True)
    update = SummedUpdate(groups, total_steps=10**6)
    objective = Objective(model, data.tasks, machine)
    kind = DeviceTrainLoader if machine.device_cache is True else TrainLoader
    loader = kind(
        data.train,
        tasks=data.tasks,
        crop_size=crop_size,
        batch_size=BATCH,
        augmentation=1.0,
        seed=0,
        threads=machine.threads,
        device=machine.torch_device,
    )
    return lambda: train_one_epoch(objective, loader.epoch(0), update, BATCH), loader
