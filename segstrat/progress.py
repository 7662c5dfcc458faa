"""A progress bar around any iterable of results."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Result = TypeVar("Result")


def tracked(results: Iterable[Result], total: int | None, title: str, show: bool) -> Iterator[Result]:
    """The same results, with a progress bar on standard error if `show`; without a total, no estimate."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True)) if show else None
    with bar or nullcontext():
        task = bar.add_task(title, total=total) if bar else None
        for result in results:
            yield result
            if bar and task is not None:
                bar.advance(task)
