"""JSON objects in a store, read so that a damaged file is one sentence and never a traceback."""

import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

from segstrat.errors import UserError
from segstrat.store import Store

_LOG = logging.getLogger(__name__)


class DamagedFileError(UserError):
    """A file that is not what its name says: truncated, empty, or of another type."""


def read_object(store: Store, name: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if the file does not contain a JSON object.
    """
    try:
        content = json.loads(store.read(name))
    except ValueError as error:  # of JSON, and of bytes that are no text
        raise DamagedFileError(f"{name} cannot be read: {error}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if store.is_folder(name):
            raise DamagedFileError(f"{name} cannot be read: it is a folder") from error
        raise
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DamagedFileError(f"{name} cannot be read: expected a JSON object, not {found}")
    return content


def write_object(store: Store, name: str, content: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Writes a JSON object atomically."""
    store.write(name, json.dumps(content, indent=indent).encode())


def write_with_copy(store: Store, name: str, content: Mapping[str, Any]) -> None:
    """Writes a JSON object and a copy of it, for `read_with_copy`; each atomically."""
    write_object(store, name, content, indent=1)
    write_object(store, copy_name(name), content, indent=1)


def read_with_copy(store: Store, name: str) -> dict[str, Any]:
    """The JSON object in a file, or in its copy where the file is damaged or missing, which is logged.

    Raises:
        FileNotFoundError: if there is neither.
        DamagedFileError: if neither can be read.
    """
    try:
        return read_object(store, name)
    except (DamagedFileError, FileNotFoundError) as error:
        try:
            content = read_object(store, copy_name(name))
        except (DamagedFileError, FileNotFoundError):
            raise error from None
        problem = error if isinstance(error, DamagedFileError) else f"{name} is missing"
        say_once(f"{store.uri}: {problem}; {copy_name(name)} is used")
        return content


def copy_name(name: str) -> str:
    """Name of a file's copy: manifest.json -> manifest.copy.json."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.copy.{suffix}"


@functools.cache
def say_once(message: str) -> None:
    """Logs a warning, once per process however often a file is read."""
    _LOG.warning(message)
