"""JSON objects in a store, read so that a damaged file is one sentence and never a traceback."""

import json
from collections.abc import Mapping
from typing import Any

from segstrat.errors import UserError
from segstrat.store import Store


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
