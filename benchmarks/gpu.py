"""On a CUDA GPU, 512×512, batch 10: the step and its roof, whole epochs and data wait, packed trials.

One command on a machine with a GPU: `uv run --group peers python -m benchmarks gpu`. Times on the wall, the
device waited for.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from benchmarks.epoch import plain_epoch, trial_epoch
from benchmarks.input import BATCH, Files, torchvision_v2
from benchmarks.peers import UnavailableError
from benchmarks.recipe import PlainFCN, plain_optimizer, train_plainly
from benchmarks.roofline import Roof, measure_limits, synchronize
from benchmarks.scenes import scenes_folder
from benchmarks.step import OneBatch, trial_step
from benchmarks.timing import Claim, Comparison, Contestant, compare
from segstrat.data import build_protocol
from segstrat.data.loading.batch import normalize
from segstrat.machine import Machine, fastest_precision


def run(*, quick: bool) -> list[Comparison]:
    if not torch.cuda.is_available():
        raise UnavailableError(
            "no CUDA GPU here; on a machine with one, run `uv run --group peers python -m benchmarks gpu`"
        )
    images, crop_size = (20, 64) if quick else (1000, 512)
    with scenes_folder(images) as root:
        return [
            steps("cuda", crop_size=crop_size, quick=quick),
            epochs("cuda", root, crop_size=crop_size, quick=quick),
            packed("cuda", root, crop_size=crop_size, counts=(1, 2, 4), quick=quick),
        ]


def steps(device: str, *, crop_size: int, quick: bool) -> Comparison:
    """Training steps on a batch that lies on the device, and the roof of segstrat's."""
    where = torch.device(device)
    repeats, rounds = (1, 1) if quick else (20, 9)
    loader = OneBatch(BATCH, crop_size, device, repeats)
    fast = fastest_precision(where)
    kinds = {
        "segstrat, float32": Machine(device=device),
        f"segstrat, {fast}": Machine(device=device, precision=fast),
    }
    contestants = {"eager float32 NCHW": waited(plain_steps(loader, device), where)}
    for name, machine in kinds.items():
        contestants[name] = waited(trial_step(loader, machine), where)
    if not quick:
        compiled = Machine(device=device, precision=fast, compile=True)
        contestants[f"segstrat, {fast}, compiled"] = waited(trial_step(loader, compiled), where)
        for name, machine in {"sunet64": kinds[f"segstrat, {fast}"], "sunet64, compiled": compiled}.items():
            contestants[f"segstrat, {fast}, {name}"] = waited(trial_step(loader, machine, "sunet64"), where)
    reference = f"segstrat, {fast}"
    comparison = compare(
        f"training step on {_device_name(where)}, batch {BATCH}, {crop_size}×{crop_size}",
        contestants,
        unit="step",
        units_per_call=repeats,
        reference=reference,
        rounds=rounds,
        clock=time.perf_counter,
    )
    limits = measure_limits(where, quick=quick)
    with Roof(limits) as roof:
        trial_step(OneBatch(BATCH, crop_size, device), kinds[reference])()
    over = comparison.median(reference) / roof.seconds
    rates = ", ".join(
        f"{str(t)[6:]} {rate / 1e12:.3g} Tflop/s" for t, rate in limits.flops_per_second.items()
    )
    comparison.notes += [
        f"measured limits: copy {limits.bytes_per_second / 1e9:.0f} GB/s, {rates}",
        f"roof of {reference}: {roof.seconds * 1e3:.3g} ms ({roof.flops / 1e12:.3g} Tflop, "
        f"{roof.bytes / 1e9:.3g} GB); the step takes {over:.2f}× that, wanted at most 2×",
    ]
    return comparison


def epochs(device: str, root: Path, *, crop_size: int, quick: bool) -> Comparison:
    """Whole epochs, fed by all cores: torchvision's recipe, the host's loader, the device's cache."""
    where = torch.device(device)
    cores = os.cpu_count() or 1
    data = build_protocol("folder", root, cache_dir=root / "cache")
    fast = fastest_precision(where)
    workers = 0 if quick else cores
    recipe = Files(root, torchvision_v2(crop_size))
    contestants = {"torchvision's recipe": waited(plain_epoch(recipe, device, workers), where)}
    loaders = {}
    for name, cache in (("segstrat", False), ("segstrat, device cache", True)):
        machine = Machine(device=device, precision=fast, threads=cores, device_cache=cache)
        epoch, loaders[name] = trial_epoch(data, crop_size, machine)
        contestants[name] = waited(epoch, where)
    images = len(data.train)
    comparison = compare(
        f"epoch of {images} images on {_device_name(where)}, {cores} cores, {fast}, {crop_size}×{crop_size}",
        contestants,
        unit="image",
        units_per_call=images,
        reference="segstrat",
        rounds=1 if quick else 5,
        claims=[Claim("segstrat", "torchvision's recipe", 4)],
        clock=time.perf_counter,
    )
    for name, loader in loaders.items():
        share = loader.wait_seconds / (comparison.seconds[name][-1] * images)
        comparison.notes.append(f"data wait of {name}: {share:.1%} of its last epoch, wanted below 5 %")
    return comparison


def packed(device: str, root: Path, *, crop_size: int, counts: Sequence[int], quick: bool) -> Comparison:
    """Seconds per image of several trials on one device at once, all images together."""
    build_protocol("folder", root, cache_dir=root / "cache")
    seconds = {
        f"{count} trial{'s' * (count > 1)} at once": [
            _packed_seconds(device, root, crop_size, count, quick=quick) for _ in range(1 if quick else 3)
        ]
        for count in counts
    }
    return Comparison(
        f"packed trials on {_device_name(torch.device(device))}, {crop_size}×{crop_size}",
        seconds,
        unit="image",
        reference=next(iter(seconds)),
        notes=["the cores are shared evenly among the trials"],
    )


def _packed_seconds(device: str, root: Path, crop_size: int, count: int, *, quick: bool) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    threads = max(1, (os.cpu_count() or 1) // count)
    passes = 1 if quick else 3
    workers = [
        context.Process(
            target=_packed_trial, args=(device, root, crop_size, threads, passes, barrier, results)
        )
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    join_all(workers)
    images_per_second = sum(results.get() for _ in workers)
    return 1 / images_per_second


def join_all(workers: Sequence[BaseProcess]) -> None:
    """Waits for processes that wait for each other: when one fails, the others are ended.

    Raises:
        RuntimeError: with the exit code of the one that failed.
    """
    running = {worker.sentinel: worker for worker in workers}
    while running:
        for sentinel in connection.wait(list(running)):
            worker = running.pop(sentinel)  # type: ignore[call-overload]
            worker.join()
            if worker.exitcode:
                for other in running.values():
                    other.terminate()
                    other.join()
                raise RuntimeError(f"a packed trial ended with exit code {worker.exitcode}")


def _packed_trial(
    device: str, root: Path, crop_size: int, threads: int, passes: int, barrier: Barrier, results: object
) -> None:
    torch.set_num_threads(threads)
    data = build_protocol("folder", root, cache_dir=root / "cache")
    where = torch.device(device)
    machine = Machine(device=device, precision=fastest_precision(where), threads=threads)
    epoch = waited(trial_epoch(data, crop_size, machine)[0], where)
    epoch()
    barrier.wait()
    start = time.perf_counter()
    for _ in range(passes):
        epoch()
    results.put(passes * len(data.train) / (time.perf_counter() - start))  # type: ignore[attr-defined]


def plain_steps(loader: OneBatch, device: str) -> Contestant:
    """Steps of the plain loop, on images that are normalized already."""
    torch.manual_seed(0)
    model = PlainFCN().to(device)
    optimizer = plain_optimizer(model)
    images = normalize(loader.batch.images).contiguous()
    batches = [(images, loader.batch.labels["semseg"])] * loader.repeats
    return lambda: train_plainly(model, optimizer, batches, device)


def waited(work: Contestant, device: torch.device) -> Contestant:
    """The work, and the wait for the device to finish it."""

    def both() -> None:
        work()
        synchronize(device)

    return both


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
