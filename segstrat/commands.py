"""What all commands share: a parser that answers a mistake with one sentence."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from segstrat.errors import UserError


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
