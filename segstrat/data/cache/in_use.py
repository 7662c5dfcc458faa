"""Which cache entries are in use: every process that uses one holds a shared lock on it while it lives."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_held: dict[Path, int] = {}


def hold(entry: Path) -> None:
    """Marks a file or folder of the cache as used now, and by this process until it ends.

    Where the file system has no locks, only the time is noted.
    """
    if entry in _held or not entry.exists():
        return
    # Reading a file is no reason to change when it was written; a folder's own time means nothing else.
    written = entry.stat().st_mtime if entry.is_file() else time.time()
    # The cache may be another user's.
    with contextlib.suppress(PermissionError):
        os.utime(entry, (time.time(), written))
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return
    _held[entry] = descriptor


def release_all() -> None:
    """Gives back all entries that this process holds."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


@contextmanager
def claimed(entry: Path) -> Iterator[bool]:
    """Whether nobody uses an entry; nobody can begin to, inside the block, without it being noticed."""
    descriptor = os.open(entry, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # In use, or the file system has no locks and nothing can be said.
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
