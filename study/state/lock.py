"""One driver per study: a second one is refused while the first runs, but not because of a dead one."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from segstrat.errors import UserError
from segstrat.store import DamagedFileError, Store, read_object

LOCK = "lock.json"
# In storage that cannot lock, a driver renews its lease; one that is this old belongs to a dead driver.
RENEW_SECONDS = 20.0
LEASE_SECONDS = 90.0


@contextmanager
def study_lock(study: Store) -> Iterator[None]:
    """Holds the study for this process.

    On a disk the operating system's file lock is used, which ends with the process, however it ends.

    Raises:
        UserError: if another driver holds it.
    """
    holder = _local_lock(study) if study.is_local else _leased_lock(study)
    with holder:
        yield


def is_locked(study: Store) -> bool:
    """Whether a driver currently holds the study."""
    if not study.exists(LOCK):
        return False
    if not study.is_local:
        return _is_fresh(_read_lease(study))
    if study.is_folder(LOCK):
        raise UserError(f"{study.uri}/{LOCK} is a folder, not a lock; remove it")
    with (study.local_path / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _local_lock(study: Store) -> Iterator[None]:
    try:
        study.local_path.mkdir(parents=True, exist_ok=True)
        # Opened without emptying it: until the lock is ours the content is another driver's.
        file = (study.local_path / LOCK).open("a+")
    except OSError as error:
        raise _not_writable(study, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(study, _holder_on_record(study)) from None
        file.truncate(0)
        file.write(json.dumps(_holder()))
        file.flush()
        try:
            yield
        finally:
            if study.names() == [LOCK]:
                # The study never started: nothing of it is kept.
                (study.local_path / LOCK).unlink()
                study.local_path.rmdir()


@contextmanager
def _leased_lock(study: Store) -> Iterator[None]:
    if study.exists(LOCK):
        held = _read_lease(study)
        if _is_fresh(held):
            raise _held(study, held)
    token = uuid.uuid4().hex
    done = threading.Event()

    def renew() -> None:
        study.write(LOCK, json.dumps(_holder() | {"token": token, "renewed": time.time()}).encode())

    def keep_renewing() -> None:
        while not done.wait(RENEW_SECONDS):
            # The next renewal may succeed; a thread that ended would lose the study to another driver.
            with suppress(OSError):
                renew()

    try:
        renew()
    except OSError as error:
        raise _not_writable(study, error) from error
    # Of two drivers that start together the later writer wins, and the other one sees it here.
    time.sleep(1.0)
    held = _read_lease(study)
    if held.get("token") != token:
        raise _held(study, held)
    thread = threading.Thread(target=keep_renewing, name="study-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        study.delete(LOCK)


def _read_lease(study: Store) -> dict[str, Any]:
    """The lease; where it is damaged nobody knows whether a driver renews it, so the user decides."""
    try:
        return read_object(study, LOCK)
    except DamagedFileError as error:
        raise UserError(f"{study.uri}: {error}; delete it if no driver runs this study") from error


def _is_fresh(lease: Mapping[str, Any]) -> bool:
    renewed = lease.get("renewed")
    return isinstance(renewed, int | float) and time.time() - renewed < LEASE_SECONDS


def _holder_on_record(study: Store) -> dict[str, Any]:
    """Who holds the lock of the operating system; empty where the file does not say."""
    try:
        return read_object(study, LOCK)
    except (DamagedFileError, FileNotFoundError):
        return {}


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _held(study: Store, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"study {study.uri} is being run by process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')}; "
        "wait for it, end it, or give this study another --name"
    )


def _not_writable(study: Store, error: OSError) -> UserError:
    return UserError(f"{study.uri} cannot be written ({error}); give another folder or URI with --storage")
