"""Several trials on one GPU at once: all their images per second."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.on_gpu.epochs import trial_epoch
from benchmarks.on_gpu.setting import Row, Rows, Setting
from benchmarks.roofline import synchronize

COUNTS = (1, 2, 4)
# Long enough that starting the threads of an epoch does not count.
PASSES = 4


def packed_rows(setting: Setting) -> Rows:
    """Images per second of 1, 2 and 4 trials, which share the cores evenly."""
    setting.data()
    alone = 0.0
    for count in COUNTS[:2] if setting.tiny else COUNTS:
        rate = _packed_rate(setting, count)
        alone = alone or rate
        yield Row(
            name=f"{count} trial{'s' * (count > 1)} at once",
            value=rate,
            unit="images/s",
            note=f"{rate / alone:.2f} × one trial",
        )


def _packed_rate(setting: Setting, count: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    workers = [
        context.Process(target=_packed_trial, args=(setting, count, barrier, results)) for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    join_all(workers)
    return sum(results.get() for _ in workers)


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


def _packed_trial(setting: Setting, count: int, barrier: Barrier, results: Any) -> None:
    threads = max(1, setting.cores // count)
    machine = setting.machine(threads=threads, memory_fraction=1 / count)
    data = setting.data()
    epoch, _ = trial_epoch(setting, data, machine)
    epoch()
    passes = 1 if setting.tiny else PASSES
    barrier.wait()
    start = time.perf_counter()
    for _ in range(passes):
        epoch()
    synchronize(setting.torch_device)
    results.put(passes * len(data.train) / (time.perf_counter() - start))
