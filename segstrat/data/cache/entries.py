"""What the cache folder contains: entries with size and age, which can be deleted unless they are in use.

Every process that uses an entry holds a shared lock on it while it lives.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from segstrat import atomic

# Folders whose items are entries of their own; anything else at the top is one entry.
SHELVES = ("decoded", "weights")
STATE = ".state"

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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that can be built again.

    Args:
        name: its path below the cache folder.
        used: when it was last written or used by a study, in seconds since 1970.
    """

    name: str
    path: Path
    size: int
    used: float

    @property
    def age(self) -> float:
        """Seconds since it was last used."""
        return max(0.0, time.time() - self.used)


def list_entries(cache: Path) -> list[Entry]:
    """All entries, by name; lock files are not entries."""
    return sorted((_entry(cache, path) for path in _paths(cache)), key=lambda entry: entry.name)


def delete(entry: Entry) -> bool:
    """Deletes an entry, or leaves it where a process uses or builds it; returns whether it was deleted."""
    with claimed(entry.path) as free:
        if not free or _is_being_built(entry):
            return False
        if entry.path.is_dir():
            discard(entry.path)
        else:
            entry.path.unlink()
    return True


def discard(folder: Path) -> None:
    """Deletes a folder; renamed first, so that nobody ever sees half of it."""
    aside = folder.with_name(f"{folder.name}.part{uuid.uuid4().hex[:8]}")
    folder.rename(aside)
    shutil.rmtree(aside)


def _paths(cache: Path) -> Iterator[Path]:
    for path in cache.iterdir() if cache.is_dir() else ():
        inner = path.iterdir() if path.name in SHELVES and path.is_dir() else [path]
        yield from (item for item in inner if item.suffix != ".lock")


def _entry(cache: Path, path: Path) -> Entry:
    files = [item for item in path.rglob("*") if item.is_file()] if path.is_dir() else [path]
    stat = path.stat()
    # The time of access of a folder changes when it is listed.
    used = stat.st_mtime if path.is_dir() else max(stat.st_mtime, stat.st_atime)
    size = sum(item.stat().st_size for item in files)
    return Entry(name=path.relative_to(cache).as_posix(), path=path, size=size, used=used)


def _is_being_built(entry: Entry) -> bool:
    """Whether a process may still be writing the entry."""
    if atomic.is_temporary(entry.path.name):
        return entry.age < atomic.ABANDONED_SECONDS
    if entry.path.name.endswith(STATE):
        return is_locked_here(entry.path.with_name(entry.path.name.removesuffix(STATE)))
    return False


def is_locked_here(weights: Path) -> bool:
    """Whether a process of this machine makes the file with these weights."""
    path = weights.with_suffix(".lock")
    if not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True
