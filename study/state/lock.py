"""One driver per study: a second one is refused while the first runs, but not because of a dead one."""

import fcntl
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from segstrat.errors import UserError
from segstrat.store import DamagedFileError, StorageError, Store, read_object

LOCK = "lock.json"
# In storage that cannot lock, a driver renews its lease; one that is this old belongs to a dead driver.
RENEW_SECONDS = 20.0
LEASE_SECONDS = 90.0
# A driver that woke up waits for so long to hear whether the study is still its own.
ANSWER_SECONDS = 10.0


@contextmanager
def study_lock(study: Store, clock: Callable[[], float] = time.time) -> Iterator[Callable[[], None]]:
    """Holds the study for this process.

    On a disk the operating system's file lock is used, which ends with the process, however it ends.

    Args:
        clock: seconds since 1970.

    Yields:
        a function that raises a UserError once another driver has taken the study over.

    Raises:
        UserError: if another driver holds it.
    """
    with _local_lock(study) if study.is_local else _leased_lock(study, clock) as check:
        yield check


def is_locked(study: Store) -> bool:
    """Whether a driver currently holds the study."""
    if not study.exists(LOCK):
        return False
    if not study.is_local:
        return _is_fresh(_read_lease(study), time.time())
    if study.is_folder(LOCK):
        raise UserError(f"{(study / LOCK).uri} is a folder, not a lock; remove it")
    with (study.local_path / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _local_lock(study: Store) -> Iterator[Callable[[], None]]:
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
            yield lambda: None
        finally:
            if study.names() == [LOCK]:
                # The study never started: nothing of it is kept.
                (study.local_path / LOCK).unlink()
                study.local_path.rmdir()


class Lease:
    """A claim on a study in storage that cannot lock: a file that is renewed from a thread while it is held.

    A driver that was suspended for longer than a lease lasts may find that another one has taken the study
    over, so the file is read before it is renewed or deleted.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, study: Store, clock: Callable[[], float]) -> None:
        self._study = study
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._renewed = 0.0
        self._lost: UserError | None = None
        self._asked, self._answered = threading.Event(), threading.Event()
        self._done = False
        self._thread = threading.Thread(target=self._keep_renewing, name="study-lease", daemon=True)

    def take(self) -> None:
        """Begins to hold the study.

        Raises:
            UserError: if another driver holds it, or the storage cannot be written.
        """
        if self._study.exists(LOCK) and _is_fresh(held := _read_lease(self._study), self._clock()):
            raise _held(self._study, held, self._clock())
        try:
            self._write()
        except OSError as error:
            raise _not_writable(self._study, error) from error
        # Of two drivers that start together the later writer wins, and the other one sees it here.
        time.sleep(1.0)
        held = _read_lease(self._study)
        if held.get("token") != self._token:
            raise _held(self._study, held)
        self._thread.start()

    def check(self) -> None:
        """Raises a UserError if another driver has taken the study over.

        It asks the storage only where the lease has run out; storage that is silent then says nothing.
        """
        if self._clock() - self._renewed > LEASE_SECONDS:
            self._answered.clear()
            self._asked.set()
            self._answered.wait(ANSWER_SECONDS)
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Deletes the lease, unless it is another driver's."""
        self._done = True
        self._asked.set()
        self._thread.join()
        # Storage that is silent keeps a lease that runs out by itself.
        with suppress(OSError):
            if self._is_ours():
                self._study.delete(LOCK)

    def _keep_renewing(self) -> None:
        while True:
            self._asked.wait(RENEW_SECONDS)
            self._asked.clear()
            if self._done:
                return
            # The next renewal may succeed; a thread that ended would lose the study to another driver.
            with suppress(OSError):
                if self._is_ours():
                    self._write()
            self._answered.set()

    def _is_ours(self) -> bool:
        """Whether the file has this driver's token; once it had not, nobody asks again."""
        if self._lost is None:
            try:
                held = _read_lease(self._study)
            except FileNotFoundError:
                held = {}
            except StorageError:
                raise
            except UserError as error:
                self._lost = error
                return False
            if held.get("token") != self._token:
                self._lost = _taken_over(self._study, held)
        return self._lost is None

    def _write(self) -> None:
        now = self._clock()
        self._study.write(LOCK, json.dumps(_holder() | {"token": self._token, "renewed": now}).encode())
        self._renewed = now


@contextmanager
def _leased_lock(study: Store, clock: Callable[[], float]) -> Iterator[Callable[[], None]]:
    lease = Lease(study, clock)
    lease.take()
    try:
        yield lease.check
    finally:
        lease.release()


def _read_lease(study: Store) -> dict[str, Any]:
    """The lease; where it is damaged nobody knows whether a driver renews it, so the user decides."""
    try:
        return read_object(study, LOCK)
    except DamagedFileError as error:
        raise UserError(f"{study.uri}: {error}; delete it if no driver runs this study") from error


def _is_fresh(lease: Mapping[str, Any], now: float) -> bool:
    renewed = lease.get("renewed")
    return isinstance(renewed, int | float) and now - renewed < LEASE_SECONDS


def _holder_on_record(study: Store) -> dict[str, Any]:
    """Who holds the lock of the operating system; empty where the file does not say."""
    try:
        return read_object(study, LOCK)
    except (DamagedFileError, FileNotFoundError):
        return {}


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _held(study: Store, holder: dict[str, Any], now: float | None = None) -> UserError:
    # A lease outlives a driver that was killed, or that could not reach the storage in the end.
    ended = ""
    if now is not None:
        left = max(1, math.ceil(LEASE_SECONDS - (now - holder["renewed"])))
        ended = f" (if it has ended already, the study is free in {left} s)"
    return UserError(
        f"study {study.uri} is being run by process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'an unknown host')}; "
        f"wait for it{ended}, end it, or give this study another --name"
    )


def _taken_over(study: Store, holder: dict[str, Any]) -> UserError:
    who = f"process {holder['pid']} on {holder.get('host')}" if "pid" in holder else "another driver"
    return UserError(
        f"study {study.uri} was taken over by {who} while this driver was suspended or could not reach the "
        "storage; it ends here, and what has finished is kept"
    )


def _not_writable(study: Store, error: OSError) -> UserError:
    return UserError(f"{study.uri} cannot be written ({error}); give another folder or URI with --storage")
