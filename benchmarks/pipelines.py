"""What usual pipelines reach with the same images and time: a U-Net of a peer library, and nnU-Net.

    uv run --group peers --extra timm python -m benchmarks.pipelines \
        --data-root DIR --weights FILE --seconds 900 --seeds 0,1,2
    uv run --with nnunetv2 python -m benchmarks.pipelines --peer nnunet --data-root DIR --seconds 900

The U-Net of segmentation_models.pytorch on EfficientNet-Lite0 reads the crops of this project's loader and is
scored by its metric, so that only network, loss, optimizer and schedule differ: AdamW, cross-entropy and
Dice, and a cosine over the given time in place of epochs. nnU-Net plans its 2-D network, patch, batch and
augmentation itself and starts at random; its polynomial schedule too runs over the given time. Both predict
whole images once, without mirroring.
"""

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.peers import peer
from segstrat.data import DataProtocol, build_protocol
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
    return _padded(model, normalize(batch.images, standardization=STANDARDIZATION))


def _padded(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[-2:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    logits: torch.Tensor = model(nn.functional.pad(images, padding, mode="replicate"))
    return logits[..., :height, :width]


NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NNUNET_NAME = "Dataset001_benchmark"


def run_nnunet(protocol: DataProtocol, seconds: float, work: Path) -> tuple[int, float]:
    """Plans, trains and predicts with nnU-Net on a CPU; returns its updates and its validation mIoU.

    Args:
        seconds: of training; planning and preprocessing are no part of it.
        work: an empty folder for its files.
    """
    for name in NNUNET_FOLDERS:
        # nnU-Net reads them when it is imported.
        os.environ[name] = str(work / name)
        (work / name).mkdir()
    classes = protocol.tasks[TASK].classes
    ids = _write_for_nnunet(protocol, classes, work / "nnUNet_raw" / NNUNET_NAME)
    peer("nnunetv2")
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    planning.extract_fingerprints([1], num_processes=1)
    plans_name = planning.plan_experiments([1])
    planning.preprocess([1], plans_name, configurations=("2d",), num_processes=(1,))
    folder = work / "nnUNet_preprocessed" / NNUNET_NAME
    (folder / "splits_final.json").write_text(json.dumps([ids]))
    plans = json.loads((folder / f"{plans_name}.json").read_text()) | {"continue_training": False}
    facts = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, "2d", 0, facts, torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    start, updates = time.perf_counter(), 0
    while (share := (time.perf_counter() - start) / seconds) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        updates += 1
    trainer.on_train_end()
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, ids["val"])
    matrix = ConfusionMatrix(len(classes))
    for index, name in enumerate(ids["val"]):
        data, *_, properties = cases.load_case(name)
        labels = torch.from_numpy(protocol.val.read(index).labels[TASK])[None]
        # nnU-Net cuts black borders off; it too predicts background there.
        predicted = torch.zeros_like(labels)
        _, rows, columns = (slice(*ends) for ends in properties["bbox_used_for_cropping"])
        with torch.inference_mode():
            logits = _padded(trainer.network, torch.from_numpy(np.asarray(data[:, 0]))[None])
        predicted[:, rows, columns] = logits.argmax(1).to(labels.dtype)
        matrix.update(predicted, labels)
    return updates, float(matrix.compute()["miou"])


def _write_for_nnunet(protocol: DataProtocol, classes: tuple[str, ...], folder: Path) -> dict[str, list[str]]:
    """Writes both splits as nnU-Net reads color images; returns their names. Void becomes "ignore"."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    ids: dict[str, list[str]] = {"train": [], "val": []}
    for split, dataset in (("train", protocol.train), ("val", protocol.val)):
        for index in range(len(dataset)):
            sample, name = dataset.read(index), f"{split}{index:05d}"
            labels = np.where(sample.labels[TASK] == 255, len(classes), sample.labels[TASK]).astype(np.uint8)
            Image.fromarray(sample.image).save(folder / "imagesTr" / f"{name}_0000.png")
            Image.fromarray(labels).save(folder / "labelsTr" / f"{name}.png")
            ids[split].append(name)
    values = {name: value for value, name in enumerate(("background", *classes[1:], "ignore"))}
    facts = {
        "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": values,
        "numTraining": sum(map(len, ids.values())), "file_ending": ".png",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return ids


def main(arguments: list[str] | None = None) -> None:
    """Prints a line per seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", choices=("smp", "nnunet"), default="smp")
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
    if flags.peer == "nnunet":
        with tempfile.TemporaryDirectory() as work:
            updates, found = run_nnunet(protocol, flags.seconds, Path(work))
        print(f"nnU-Net: {updates} updates, validation mIoU {found:.4f}", flush=True)
        return
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
