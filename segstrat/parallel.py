"""The cores of this process, and `parallel_map`: a map over threads, a bounded number of items ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD_PER_THREAD = 4


def cpu_cores() -> int:
    """CPU cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[In], Out],
    items: Iterable[In],
    threads: int | None = None,
    *,
    ahead: int | None = None,
) -> Generator[Out, None, None]:
    """`map` by threads, results in order; for functions that release the interpreter lock, as decoders do.

    An item's exception is raised when its turn comes; then, and when the iterator is closed, nothing more is
    started, and all threads have ended.

    Args:
        threads: number of threads; `cpu_cores()` if not given.
        ahead: items that are started before their result is asked for, so that a slow consumer does not fill
            the memory; a few per thread if not given. `function` is never called for an item before all but
            `ahead` results in front of it have been taken.
    """
    count = threads or cpu_cores()
    ahead = ahead or _AHEAD_PER_THREAD * count
    # `Executor.map` starts every item at once; its `buffersize` needs Python 3.14.
    with ThreadPoolExecutor(count, thread_name_prefix="segstrat") as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
