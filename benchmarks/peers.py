"""Peers are optional: a missing one is named, and the other benchmarks still run."""

import importlib
from types import ModuleType


class UnavailableError(Exception):
    """Something that a benchmark needs is missing: a package that only benchmarks use, or a GPU."""


def peer(name: str) -> ModuleType:
    """Imports a peer.

    Raises:
        UnavailableError: with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"{name} is not installed; run `uv sync --group peers` first") from error
