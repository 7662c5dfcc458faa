"""Map over many files with threads: results in order, few in flight, a progress bar."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 4


def parallel_map(
    function: Callable[[In], Out], items: Iterable[In], threads: int | None = None
) -> Iterator[Out]:
    """`map` by threads: decoders release the interpreter lock.

    Only a few results a thread are kept ahead of the consumer, so that slow writing does not fill the
    memory. An item's exception is raised when its turn comes, and nothing more is started then.

    Args:
        threads: number of workers; the number of cores if not given.
    """
    count = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= _AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def tracked(results: Iterable[Out], total: int | None, title: str, show: bool) -> Iterator[Out]:
    """The same results, with a progress bar on standard error if `show`; no total, no estimate of the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True)) if show else None
    with bar or nullcontext():
        task = bar.add_task(title, total=total) if bar else None
        for result in results:
            yield result
            if bar and task is not None:
                bar.advance(task)
