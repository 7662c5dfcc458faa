"""What a usual pipeline reaches with the same images, encoder, weights and time: a U-Net of a peer library.

    uv run --group peers --extra timm python -m benchmarks.pipelines \
        --data-root DIR --weights FILE --seconds 900 --seeds 0,1,2

The U-Net of segmentation_models.pytorch on EfficientNet-Lite0 reads the crops of this project's loader and is
scored by its metric, so that only network, loss, optimizer and schedule differ: AdamW, cross-entropy and
Dice, and a cosine over the given time in place of epochs.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers import peer
from segstrat.data import build_protocol
from segstrat.data.loading.batch import Batch, Standardization, normalize
from segstrat.data.loading.eval_loader import EvalLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.metrics import ConfusionMatrix

ENCODER = "tf_efficientnet_lite0"
STANDARDIZATION = Standardization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TASK = "semseg"
STRIDE = 32
BATCH, CROP, AUGMENTATION = 8, 96, 0.25


def build_unet(classes: int, weights: Path | None) -> nn.Module:
    """The peer's U-Net; its encoder starts from a file of published weights, or at random."""
    smp = peer("segmentation_models_pytorch")
    model: nn.Module = smp.Unet(f"tu-{ENCODER}", encoder_weights=None, classes=classes)
    if weights is not None:
        from safetensors.torch import load_file

        missing, _ = model.encoder.model.load_state_dict(load_file(weights), strict=False)
        if missing:
            raise ValueError(f"{weights} lacks {missing[:3]}")
    return model


def train(model: nn.Module, loader: TrainLoader, seconds: float, rate: float, decay: float) -> int:
    """Trains for a time, of which validation is no part; returns the number of epochs that were begun."""
    dice = peer("segmentation_models_pytorch").losses.DiceLoss("multiclass", ignore_index=255)
    entropy = nn.CrossEntropyLoss(ignore_index=255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    model.train()
    start, epoch = time.perf_counter(), 0
    while True:
        for batch in loader.epoch(epoch):
            share = (time.perf_counter() - start) / seconds
            if share >= 1:
                return epoch
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * share)) / 2
            logits = model(normalize(batch.images, standardization=STANDARDIZATION))
            target = batch.labels[TASK].long()
            loss = entropy(logits, target) + dice(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epoch += 1


@torch.inference_mode()
def score(model: nn.Module, loader: EvalLoader, classes: int) -> float:
    """mIoU of whole images at native resolution; they are padded for the network alone."""
    model.eval()
    matrix = ConfusionMatrix(classes)
    for batch in loader:
        matrix.update(_whole(model, batch), batch.labels[TASK])
    return float(matrix.compute()["miou"])


def _whole(model: nn.Module, batch: Batch) -> torch.Tensor:
    height, width = batch.images.shape[-2:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    images = normalize(batch.images, standardization=STANDARDIZATION)
    logits: torch.Tensor = model(nn.functional.pad(images, padding, mode="replicate"))
    return logits[..., :height, :width]


def main(arguments: list[str] | None = None) -> None:
    """Prints a line per seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="a folder with dataset.toml")
    parser.add_argument("--weights", type=Path, help="of the encoder; without them it starts at random")
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    protocol = build_protocol("folder", flags.data_root, tasks=(TASK,))
    tasks = {TASK: protocol.tasks[TASK]}
    classes = tasks[TASK].num_classes
    common: dict[str, Any] = {"tasks": tasks, "threads": 1}
    val = EvalLoader(protocol.val, batch_size=BATCH, **common)
    for seed in map(int, flags.seeds.split(",")):
        torch.manual_seed(seed)
        loader = TrainLoader(
            protocol.train,
            crop_size=CROP,
            batch_size=BATCH,
            augmentation=AUGMENTATION,
            seed=seed,
            flip=protocol.flip,
            **common,
        )
        model = build_unet(classes, flags.weights)
        epochs = train(model, loader, flags.seconds, flags.rate, flags.weight_decay)
        print(f"seed {seed}: {epochs} epochs, validation mIoU {score(model, val, classes):.4f}", flush=True)


if __name__ == "__main__":
    main()
