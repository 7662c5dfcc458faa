"""Threads against worker processes, with the same augmentation and cache, on all cores, 512×512.

Wall-clock time, because each process has its own processor time.
"""

import time

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.input import BATCH
from benchmarks.scenes import CLASSES, scenes_folder
from benchmarks.timing import Comparison, Contestant, compare
from segstrat.data import build_protocol
from segstrat.data.dataset import Dataset
from segstrat.data.loading.augment import draw_placement, place_image, place_label
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.parallel import cpu_cores
from segstrat.tasks import Task


def run(*, quick: bool) -> list[Comparison]:
    images, rounds, crop_size = (4, 1, 64) if quick else (200, 7, 512)
    cores = cpu_cores()
    with scenes_folder(images) as root:
        data = build_protocol("folder", root, cache_dir=root / "cache").train
        contestants = {
            f"{cores} threads": thread_epoch(data, crop_size, cores),
            "1 thread": thread_epoch(data, crop_size, 1),
            f"{cores} processes": process_epoch(data, crop_size, cores),
        }
        return [
            compare(
                f"threads or processes, {cores} cores, {crop_size}×{crop_size}",
                contestants,
                unit="image",
                units_per_call=images,
                reference=f"{cores} threads",
                rounds=rounds,
                clock=time.perf_counter,
            )
        ]


def thread_epoch(data: Dataset, crop_size: int, threads: int) -> Contestant:
    """An epoch of segstrat's loader."""
    loader = TrainLoader(
        data,
        tasks={"semseg": Task("semseg", CLASSES)},
        crop_size=crop_size,
        batch_size=BATCH,
        augmentation=1.0,
        seed=0,
        threads=threads,
    )

    def epoch() -> None:
        for _ in loader.epoch(0):
            pass

    return epoch


def process_epoch(data: Dataset, crop_size: int, workers: int) -> Contestant:
    """An epoch of torch's loader over the same crops, its workers kept between epochs."""
    loader = DataLoader(
        _Crops(data, crop_size), BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


class _Crops(torch.utils.data.Dataset):
    def __init__(self, data: Dataset, crop_size: int) -> None:
        self.data = data
        self.crop_size = crop_size

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        cv2.setNumThreads(1)
        sample = self.data.read(index)
        size = (sample.image.shape[0], sample.image.shape[1])
        placement = draw_placement(size, crop_size=self.crop_size, strength=1.0, seed=0, epoch=0, index=index)
        image = np.empty((self.crop_size, self.crop_size, 3), np.uint8)
        label = np.empty((self.crop_size, self.crop_size), np.uint8)
        place_image(sample.image, placement, image)
        place_label(sample.labels["semseg"], placement, label)
        return torch.from_numpy(image), torch.from_numpy(label)
