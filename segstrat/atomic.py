"""Files and folders that appear atomically, and a lock so that one process builds what others wait for.

Everything is written under a temporary name next to its target and renamed when it is complete, so that a
reader, and a kill at any moment, finds the old content or the new, never a part of it.
"""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

# No dot follows `part`: `torch.save` stores a file's name up to its last dot inside the file, and the same
# content must give the same bytes.
_TEMPORARY = re.compile(r"\.part[0-9a-f]{0,8}$")
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
ABANDONED_SECONDS = 3600


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name is still being written, or was left behind by a kill."""
    return _TEMPORARY.search(name) is not None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write a file to; it becomes `path` when the block ends without an exception.

    Raises:
        OSError: if the file cannot be written; nothing is left behind.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def creating_folder(folder: Path) -> Iterator[Path]:
    """A new temporary folder to fill; it becomes `folder` when the block ends without an exception.

    If another process has created `folder` in the meantime, that one stays: both hold the same content.

    Raises:
        OSError: if the folder cannot be written; nothing is left behind.
    """
    temporary = _temporary(folder)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_builder(lock_file: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock, so that of several processes one builds and the others wait.

    Some network file systems have no locks: there every process builds, and the first to finish wins (see
    `creating_folder`).

    Args:
        on_wait: called once if another process holds the lock.

    Raises:
        OSError: if the lock file cannot be created.
    """
    lock = filelock.FileLock(lock_file)
    try:
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout:
            on_wait()
            lock.acquire(poll_interval=0.5)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def remove_abandoned(parent: Path) -> None:
    """Removes the temporary folders of killed builds: those that have not changed for an hour."""
    for temporary in parent.iterdir():
        if temporary.is_dir() and is_temporary(temporary.name):
            newest = max(path.stat().st_mtime for path in (temporary, *temporary.iterdir()))
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.part{uuid.uuid4().hex[:8]}")
