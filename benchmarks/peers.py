"""Peers are optional: what is missing is named, and the rest still runs."""

import importlib
from types import ModuleType


class MissingPeerError(Exception):
    """A package that only the benchmarks need is not installed."""


def peer(name: str) -> ModuleType:
    """Imports a peer.

    Raises:
        MissingPeerError: with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPeerError(f"{name} is not installed; run `uv sync --group peers` first") from error
