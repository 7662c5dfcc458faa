"""Weights pre-trained on `figures`, kept in the cache: `ensure_pretrained` trains what is missing."""

import json
import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from segstrat.data.figures import ensure_figures
from segstrat.machine import Machine
from segstrat.pretraining.bars import PretrainProgress
from segstrat.pretraining.images import ClassificationData, open_classification
from segstrat.pretraining.isolated import run_isolated
from segstrat.pretraining.job import PretrainJob, weights_name
from segstrat.pretraining.loop import check_writable
from segstrat.pretraining.recipe import recipe_for


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """Weights that are wanted: a backbone, its width, and the seed of the pre-training."""

    backbone: str
    width: float = 1.0
    seed: int = 0

    def __str__(self) -> str:
        seed = f", seed {self.seed}" if self.seed else ""
        width = f", width {self.width:g}" if self.width != 1 else ""
        return f"{self.backbone}{width}{seed}"


def ensure_pretrained(backbone: str, width: float, cache: Path, *, seed: int = 0) -> Path:
    """The file with a backbone's weights, pre-trained on `figures`; see `ensure_all_pretrained`."""
    request = PretrainRequest(backbone=backbone, width=width, seed=seed)
    return ensure_all_pretrained([request], cache)[request]


def ensure_all_pretrained(
    requests: Iterable[PretrainRequest], cache: Path, *, at_once: int | None = None
) -> dict[PretrainRequest, Path]:
    """The files with the weights, pre-trained on `figures`; trains what is not in the cache.

    Files are named by a digest of backbone, width, data, recipe (its seed included) and code. An interrupted
    run continues after its last complete epoch; of several processes, one trains while the others wait.

    On GPUs every run has a process of its own, so that this process holds no CUDA context. On CPUs, runs that
    are trained at once have too; otherwise they stay in this process, which saves its start.

    Args:
        at_once: runs at the same time, each on a GPU or a share of the cores; by default as many as there are
            GPUs, and one after another on CPUs.

    Raises:
        UserError: if the cache cannot be written, or a training diverges.
    """
    data = open_figures(cache)
    jobs = {request: _job(request, data, cache) for request in dict.fromkeys(requests)}
    missing = {request: job for request, job in jobs.items() if not _is_sound(job.out)}
    for job in missing.values():
        check_writable(job.out)
    gpus = local_gpus()
    slots = min(at_once or max(1, len(gpus)), len(missing))
    if not gpus and slots == 1:
        machine = machine_fields("cpu", cores())
        with PretrainProgress() as progress:
            for request, job in missing.items():
                progress.follow(job.run(Machine(**machine)), _title(request), job.recipe.epochs)
    elif missing:
        devices = [gpus[slot % len(gpus)] if gpus else "cpu" for slot in range(slots)]
        _run_isolated(missing, devices)
    return {request: job.out for request, job in jobs.items()}


def open_figures(cache: Path | None = None) -> ClassificationData:
    """The classification split of `figures`, drawn on first use."""
    root = ensure_figures(cache)
    facts = json.loads((root / "figures.json").read_text(encoding="utf-8"))
    return open_classification(root / "Classification", name="figures", digest=facts["digest"])


def local_gpus() -> list[str]:
    """Names of the GPUs that torch sees; counted without a CUDA context."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _job(request: PretrainRequest, data: ClassificationData, cache: Path) -> PretrainJob:
    recipe = recipe_for(request.backbone, "figures", seed=request.seed)
    name = weights_name(request.backbone, request.width, data, recipe)
    return PretrainJob.make(request.backbone, request.width, recipe, data, cache / "weights" / name)


def _is_sound(path: Path) -> bool:
    """Whether the file is there and can be read; one that cannot is deleted, to be made again."""
    if not path.is_file():
        return False
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file fails in many ways, which depend on where the damage is.
    except Exception:
        path.unlink()
        return False
    return True


def _run_isolated(jobs: dict[PretrainRequest, PretrainJob], devices: list[str]) -> None:
    """Runs every job in a process of its own, one per entry of `devices` at a time."""
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)
    threads = max(1, cores() // len(devices))
    processes: list[subprocess.Popen] = []

    def run(request: PretrainRequest) -> None:
        device, job = free.get(), jobs[request]
        try:
            reports = run_isolated(job, machine_fields(device, threads), started=processes.append)
            progress.follow(reports, _title(request), job.recipe.epochs)
        finally:
            free.put(device)

    with PretrainProgress() as progress, ThreadPoolExecutor(len(devices)) as pool:
        runs = [pool.submit(run, request) for request in jobs]
        try:
            for finished in as_completed(runs):
                finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def machine_fields(device: str, threads: int) -> dict[str, Any]:
    """Fields of the `Machine` of a run: bfloat16 on GPUs that have it, float32 on every CPU.

    Weights trained on CPUs then do not depend on whether the processor has units for bfloat16.
    """
    precision = "float32" if device == "cpu" else "auto"
    return {"device": device, "threads": threads, "precision": precision}


def _title(request: PretrainRequest) -> str:
    return f"pre-train {request} on figures (once)"
