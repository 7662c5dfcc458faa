"""What all commands share: a parser that answers a mistake with one sentence, and a progress bar."""

import argparse
import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segstrat.errors import UserError

Result = TypeVar("Result")


class StrictParser(argparse.ArgumentParser):
    """Reports a mistake in one sentence, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises the message for `main` to print."""
        raise UserError(f"{message}; see --help")

    def parse_strictly(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """The flags' values; an unknown flag is answered with the nearest known one."""
        namespace, unknown = self.parse_known_args(arguments)
        if unknown:
            flag = unknown[0].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            raise UserError(f"unknown argument {unknown[0]!r}: {hint}")
        return namespace


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
