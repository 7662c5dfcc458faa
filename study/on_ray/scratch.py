"""One temporary folder for all that a running driver needs, deleted at its end or by the next driver."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "segstrat-run-"
LOCK = "lock"
# A folder without a lock file may be one that another driver is just making.
MAKING_SECONDS = 600.0
# Ray puts sockets into its folder, whose paths a kernel limits to 107 bytes; theirs are 62 bytes longer.
LONGEST = 44


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that exists for the length of the block.

    A driver that is killed leaves its folder; the next one deletes it. Whether its owner is alive is known
    from a lock, which the system releases when a process ends, however it ends.
    """
    delete_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with FileLock(folder / LOCK):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def delete_leftovers(parent: Path) -> list[Path]:
    """Deletes the folders of drivers that are no longer alive; returns them."""
    deleted = []
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
                deleted.append(folder)
        except OSError:
            # Another user's, or deleted by another driver meanwhile.
            continue
    return deleted


def running_drivers(own: Path) -> int:
    """How many other drivers are running on this machine, as far as their folders are next to this one."""
    count = 0
    for folder in own.parent.glob(f"{PREFIX}*"):
        try:
            count += folder != own and (folder / LOCK).exists() and not is_abandoned(folder)
        except OSError:
            # Another user's, or deleted meanwhile.
            continue
    return count


def is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the folder's lock."""
    if not (folder / LOCK).exists():
        return time.time() - folder.stat().st_mtime > MAKING_SECONDS
    try:
        with FileLock(folder / LOCK, blocking=False):
            return True
    except Timeout:
        return False


def ray_folder(scratch: Path) -> str | None:
    """Ray's folder for logs and sockets; None, which is Ray's default, where the path would be too long."""
    return str(scratch) if len(str(scratch)) <= LONGEST else None
