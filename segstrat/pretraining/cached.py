"""Pre-trained weights, kept in the cache: `ensure_all_pretrained` trains what is missing."""

import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from segstrat.data.cache.entries import hold
from segstrat.machine import Machine
from segstrat.parallel import cpu_cores
from segstrat.pretraining.bars import PretrainProgress
from segstrat.pretraining.images import ClassificationData
from segstrat.pretraining.isolated import run_isolated
from segstrat.pretraining.job import PretrainJob, weights_name
from segstrat.pretraining.loop import check_writable
from segstrat.pretraining.source import PretrainSource

FIGURES_SOURCE = PretrainSource()
TICK_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """Weights that are wanted: a backbone, its width, and the seed of the pre-training."""

    backbone: str
    width: float = 1.0
    seed: int = 0

    def __str__(self) -> str:
        width = f", width {self.width:g}" if self.width != 1 else ""
        return f"{self.backbone}{width}, seed {self.seed}"


def ensure_pretrained(
    backbone: str, width: float, cache: Path, *, seed: int = 0, source: PretrainSource = FIGURES_SOURCE
) -> Path:
    """The file with the weights of one pre-training; see `ensure_all_pretrained`."""
    request = PretrainRequest(backbone=backbone, width=width, seed=seed)
    return ensure_all_pretrained([request], cache, source)[request]


def ensure_all_pretrained(
    requests: Iterable[PretrainRequest],
    cache: Path,
    source: PretrainSource = FIGURES_SOURCE,
    *,
    at_once: int | None = None,
    threads: int | None = None,
    on_tick: Callable[[], None] | None = None,
) -> dict[PretrainRequest, Path]:
    """The files with the weights; trains what is not in the cache.

    Files are named by a digest of backbone, width, data, recipe (its seed included) and code. An interrupted
    run continues after its last complete epoch; of several processes, one trains while the others wait.

    On GPUs every run has a process of its own, so that this process holds no CUDA context. On CPUs, runs that
    are trained at once have too, and all where `on_tick` is given; otherwise they stay in this process, which
    saves its start.

    Args:
        source: the images.
        at_once: runs at the same time, each on a GPU of its own or on a share of the cores; by default as
            many as there are GPUs, and one after another on CPUs.
        threads: CPU threads of each run, by default an equal share of the cores. On CPUs the last digits of
            the weights depend on it.
        on_tick: called several times a second; what it raises ends the runs.

    Raises:
        UserError: if the cache cannot be written, or a training diverges.
    """
    data = source.open(cache)
    jobs = {request: make_job(request, source, data, cache) for request in dict.fromkeys(requests)}
    missing = {request: job for request, job in jobs.items() if not _is_sound(job.out)}
    for job in missing.values():
        check_writable(job.out)
    gpus = local_gpus()
    slots = min(at_once or len(gpus), len(gpus)) if gpus else at_once or 1
    if not gpus and slots == 1 and on_tick is None:
        machine = machine_fields("cpu", threads or cpu_cores())
        with PretrainProgress() as progress:
            for request, job in missing.items():
                progress.follow(job.run(Machine(**machine)), _title(request, data), job.recipe.epochs)
    elif missing:
        devices = [gpus[slot % len(gpus)] if gpus else "cpu" for slot in range(slots)]
        titles = {request: _title(request, data) for request in missing}
        share = threads or max(1, cpu_cores() // len(devices))
        _run_isolated(missing, titles, devices, share, on_tick or (lambda: None))
    for job in jobs.values():
        hold(job.out)
    return {request: job.out for request, job in jobs.items()}


def local_gpus() -> list[str]:
    """Names of the GPUs that torch sees; counted without a CUDA context."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def make_job(
    request: PretrainRequest, source: PretrainSource, data: ClassificationData, cache: Path
) -> PretrainJob:
    """The run that makes the requested weights; `out` is their file in the cache.

    Args:
        data: the images of `source`.
    """
    recipe = source.recipe(request.backbone, data, request.seed)
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


def _run_isolated(
    jobs: Mapping[PretrainRequest, PretrainJob],
    titles: Mapping[PretrainRequest, str],
    devices: list[str],
    threads: int,
    on_tick: Callable[[], None],
) -> None:
    """Runs every job in a process of its own, one per entry of `devices` at a time."""
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)
    processes: list[subprocess.Popen] = []

    def run(request: PretrainRequest) -> None:
        device, job = free.get(), jobs[request]
        try:
            reports = run_isolated(job, machine_fields(device, threads), started=processes.append)
            progress.follow(reports, titles[request], job.recipe.epochs)
        finally:
            free.put(device)

    with PretrainProgress() as progress, ThreadPoolExecutor(len(devices)) as pool:
        pending = {pool.submit(run, request) for request in jobs}
        try:
            while pending:
                finished, pending = wait(pending, TICK_SECONDS, return_when=FIRST_COMPLETED)
                on_tick()
                for done in finished:
                    done.result()
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


def _title(request: PretrainRequest, data: ClassificationData) -> str:
    return f"pre-train {request} on {data.name} (once)"
