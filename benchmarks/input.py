"""Training input on one core: segstrat's loader against torchvision v2, albumentations and kornia.

All do the thesis's operations (§6.1): random scale 0.5–2, crop to 512×512 with padding, flip, rotation
within ±10°, and stack batches of ten. Peers are timed from files, as they are used, and from decoded
arrays in memory, which isolates the augmentation. OpenCV and torch may use one thread.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from benchmarks.peers import UnavailableError, peer
from benchmarks.scenes import CLASSES, HEIGHT, scenes_folder
from benchmarks.timing import Claim, Comparison, Contestant, compare
from segstrat.data import build_protocol
from segstrat.data.dataset import Dataset
from segstrat.data.loading.batch import normalize
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.tasks import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 10
Transform = Callable[[np.ndarray, np.ndarray], tuple[torch.Tensor, torch.Tensor]]


def run(*, quick: bool) -> list[Comparison]:
    images, rounds, crop_size = (4, 1, 64) if quick else (40, 7, 512)
    with scenes_folder(images) as root, one_core():
        cached = build_protocol("folder", root, cache_dir=root / "cache").train
        decoded = [cached.read(i) for i in range(len(cached))]
        arrays = [(sample.image, sample.labels["semseg"]) for sample in decoded]
        contestants: dict[str, Contestant] = {
            "segstrat, uint8": loader_epoch(cached, crop_size),
            "segstrat, float32": loader_epoch(cached, crop_size, finish=normalize),
            "segstrat, uint8, no cache": loader_epoch(build_protocol("folder", root).train, crop_size),
        }
        notes = []
        for name, make in PEERS.items():
            try:
                transform = make(crop_size)
            except UnavailableError as missing:
                notes.append(str(missing))
                continue
            contestants[f"{name}, from files"] = peer_epoch(Files(root, transform))
            contestants[f"{name}, decoded"] = peer_epoch(Decoded(arrays, transform))
        return [
            compare(
                f"input, one core, {crop_size}×{crop_size}",
                contestants,
                unit="image",
                units_per_call=images,
                reference="segstrat, uint8",
                rounds=rounds,
                claims=[claim for claim in CLAIMS if claim.slower in contestants],
                notes=notes,
            )
        ]


CLAIMS = [
    Claim("segstrat, uint8", "torchvision v2, from files", 10),
    Claim("segstrat, uint8", "torchvision v2, decoded", 10),
    Claim("segstrat, uint8", "albumentations, from files", 4),
    Claim("segstrat, uint8", "albumentations, decoded", 4),
    Claim("segstrat, float32", "torchvision v2, from files", 4),
    Claim("segstrat, float32", "torchvision v2, decoded", 4),
]


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for torch and OpenCV, and where the system can, one core for the process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def loader_epoch(
    dataset: Dataset, crop_size: int, finish: Callable[[torch.Tensor], torch.Tensor] = lambda images: images
) -> Contestant:
    """An epoch of segstrat's loader."""
    loader = TrainLoader(
        dataset,
        tasks={"semseg": Task("semseg", CLASSES)},
        crop_size=crop_size,
        batch_size=BATCH,
        augmentation=1.0,
        seed=0,
        threads=1,
    )

    def epoch() -> None:
        for batch in loader.epoch(0):
            finish(batch.images)

    return epoch


def peer_epoch(dataset: torch.utils.data.Dataset) -> Contestant:
    """An epoch of torch's loader, in this process."""
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


class Files(torch.utils.data.Dataset):
    """Decodes each image when it is read."""

    def __init__(self, root: Path, transform: Transform) -> None:
        self.root = root
        self.names = (root / "train.txt").read_text().split()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        name = self.names[index]
        with Image.open(self.root / f"images/{name}.jpg") as file:
            image = np.asarray(file.convert("RGB"))
        with Image.open(self.root / f"labels/{name}.png") as file:
            label = np.asarray(file)
        return self.transform(image, label)


class Decoded(torch.utils.data.Dataset):
    """Images that were decoded in advance."""

    def __init__(self, arrays: list[tuple[np.ndarray, np.ndarray]], transform: Transform) -> None:
        self.arrays = arrays
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(*self.arrays[index])


def torchvision_v2(crop_size: int) -> Transform:
    """torchvision's reference recipe with the thesis's rotation, on Pillow images, the faster backend."""
    fill: dict[Any, int] = {Image.Image: 0, tv_tensors.Mask: 255}
    scale = crop_size / 512
    pipeline = v2.Compose(
        [
            v2.RandomResize(int(0.5 * HEIGHT * scale), int(2 * HEIGHT * scale)),
            v2.RandomCrop(crop_size, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomRotation(10, interpolation=InterpolationMode.BILINEAR, fill=fill),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def transform(image: np.ndarray, label: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return pipeline(Image.fromarray(image), tv_tensors.Mask(torch.from_numpy(label.copy())))

    return transform


def albumentations(crop_size: int) -> Transform:
    """The same with albumentations."""
    a = peer("albumentations")
    torch_part = peer("albumentations.pytorch")
    constant = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": 255}
    pipeline = a.Compose(
        [
            a.RandomScale((-0.5, 1.0), p=1),
            a.PadIfNeeded(crop_size, crop_size, **constant),
            a.RandomCrop(crop_size, crop_size),
            a.HorizontalFlip(p=0.5),
            a.Rotate(10, p=1, **constant),
            a.Normalize(MEAN, STD),
            torch_part.ToTensorV2(),
        ]
    )

    def transform(image: np.ndarray, label: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        out = pipeline(image=image, mask=label)
        return out["image"], out["mask"]

    return transform


def kornia(crop_size: int) -> Transform:
    """The same with kornia: one affine for scale, rotation and flip, then the crop."""
    k = peer("kornia.augmentation")
    pipeline = k.AugmentationSequential(
        k.RandomHorizontalFlip(p=0.5),
        k.RandomAffine(degrees=10, scale=(0.5, 2.0), p=1.0),
        k.RandomCrop((crop_size, crop_size), pad_if_needed=True, p=1.0),
        k.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input", "mask"],
    )

    def transform(image: np.ndarray, label: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        image_1CHW = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        out, mask = pipeline(image_1CHW, torch.from_numpy(label.copy())[None, None].float())
        return out[0], mask[0, 0].to(torch.uint8)

    return transform


PEERS: dict[str, Callable[[int], Transform]] = {
    "torchvision v2": torchvision_v2,
    "albumentations": albumentations,
    "kornia": kornia,
}
