"""Pre-training of a ResNet-18 at 224×224, batch 256: the input alone, whole epochs, and the step alone."""

import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.on_gpu.setting import Row, Rows, Setting, seconds_of
from benchmarks.roofline import synchronize
from segstrat.pretraining import images as image_folders
from segstrat.pretraining.batches import train_batches
from segstrat.pretraining.images import open_classification
from segstrat.pretraining.loop import build_classifier, to_the_end, train_one_epoch
from segstrat.pretraining.recipe import Recipe, recipe_for

IMAGENET_IMAGES = 1_281_167
CLASSES = 1000
COPIES = 2


def pretraining_rows(setting: Setting) -> Rows:
    """Images per second, and the hours that ImageNet-1k would take at that rate, without its validation."""
    # As for a data set that does not fit into the host's memory.
    image_folders.KEPT_BYTES = 0
    device, machine = setting.torch_device, setting.machine()
    machine.apply()
    recipe = recipe_for("resnet18", "folder")
    if setting.tiny:
        recipe = Recipe(**{**vars(recipe), "batch_size": 4, "crop_size": 32, "resize": 36})
    with tempfile.TemporaryDirectory(prefix="segstrat-benchmark-") as folder:
        _link_classes(setting.root / "images", Path(folder))
        data = open_classification(Path(folder))

        def read() -> None:
            for _ in train_batches(
                data.train, batch_size=recipe.batch_size, crop_size=recipe.crop_size,
                smallest_crop=recipe.smallest_crop, seed=0, epoch=0, threads=setting.cores, device=device,
            ):  # fmt: skip
                pass

        rate = len(data.train) / seconds_of(read, device, 1)
        yield Row(name="input alone", value=rate, unit="images/s", note=f"{setting.cores} threads")
        model = build_classifier("resnet18", 0.125 if setting.tiny else 1.0, CLASSES, recipe)
        model.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)

        def epoch() -> None:
            to_the_end(train_one_epoch(model, optimizer, data.train, recipe, machine, 0))

        rate = len(data.train) / seconds_of(epoch, device, 1)
        hours = recipe.epochs * IMAGENET_IMAGES / rate / 3600
        note = f"ImageNet-1k, {recipe.epochs} epochs: {hours:.0f} hours"
        yield Row(name="whole epoch", value=rate, unit="images/s", note=note)
    side = recipe.crop_size
    shape = (recipe.batch_size, side, side, 3)
    images_BCHW = torch.randint(256, shape, dtype=torch.uint8).permute(0, 3, 1, 2).to(device)
    labels_B = torch.randint(CLASSES, (recipe.batch_size,)).to(device)
    steps = 1 if setting.tiny else 20
    for timed in (False, True):
        start = time.perf_counter()
        for _ in range(steps):
            model.loss(images_BCHW, labels_B, recipe, machine).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        synchronize(device)
        if timed:
            rate = steps * recipe.batch_size / (time.perf_counter() - start)
            yield Row(name="step alone", value=rate, unit="images/s")


def _link_classes(images: Path, root: Path) -> None:
    """Two classes made of links to the scenes, several to each file."""
    for split in ("train", "val"):
        for number, path in enumerate(sorted(images.iterdir())):
            folder = root / split / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            for copy in range(COPIES):
                os.link(path, folder / f"{copy}-{path.name}")
