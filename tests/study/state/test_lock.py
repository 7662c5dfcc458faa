"""One driver per study, on a disk and where storage cannot lock."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from segstrat.errors import UserError
from segstrat.store import Store
from study.state import lock
from study.state.lock import LOCK, is_locked, study_lock


class Unlockable(Store):
    """A store on a disk that says it is none, as S3-compatible storage does."""

    def __init__(self, uri: str | Path) -> None:
        super().__init__(uri)
        self.is_local = False


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else starts in the second in which a new lease waits for others."""
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)


def hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    with study_lock(Store(folder)):
        ready.set()
        signal.pause()


def test_a_second_driver_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    study = tmp_path / "study"
    process = context.Process(target=hold, args=(str(study), ready))
    process.start()
    assert ready.wait(30)
    assert is_locked(Store(study))
    with pytest.raises(UserError, match=f"is being run by process {process.pid}"), study_lock(Store(study)):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not is_locked(Store(study))
    with study_lock(Store(study)):
        assert is_locked(Store(study))


def test_a_study_that_never_began_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), study_lock(Store(tmp_path / "study")):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"), study_lock(Store(tmp_path / "file" / "study")):
        pass


def test_a_lease_refuses_a_second_driver_and_ends_with_the_first(tmp_path):
    study = Unlockable(tmp_path)
    with study_lock(study):
        assert is_locked(study)
        with pytest.raises(UserError, match="is being run by process"), study_lock(Unlockable(tmp_path)):
            pass
    assert not is_locked(study)


def test_a_lease_that_is_not_renewed_runs_out(tmp_path):
    study = Unlockable(tmp_path)
    dead = {"host": "h", "pid": 1, "token": "t", "renewed": time.time() - lock.LEASE_SECONDS - 1}
    study.write(LOCK, json.dumps(dead).encode())
    assert not is_locked(study)
    with study_lock(study):
        assert is_locked(study)


def test_of_two_drivers_that_start_together_one_wins(tmp_path, monkeypatch):
    def overtaken(_: float) -> None:
        entry = {"host": "other", "pid": 7, "token": "theirs", "renewed": time.time()}
        Unlockable(tmp_path).write(LOCK, json.dumps(entry).encode())

    monkeypatch.setattr(lock.time, "sleep", overtaken)
    with pytest.raises(UserError, match="process 7 on other"), study_lock(Unlockable(tmp_path)):
        pass


def test_a_driver_that_slept_past_its_lease_ends_and_leaves_the_other_ones_alone(tmp_path):
    now = [1000.0]
    study, other = Unlockable(tmp_path), Unlockable(tmp_path)
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        check = first.enter_context(study_lock(study, lambda: now[0]))
        now[0] += lock.LEASE_SECONDS + 1
        check()
        now[0] += lock.LEASE_SECONDS - 1
        with pytest.raises(UserError, match="is being run by"), study_lock(other, lambda: now[0]):
            pass  # asking, it was found to be its own still, and renewed
        now[0] += 2
        check_other = second.enter_context(study_lock(other, lambda: now[0]))
        with pytest.raises(UserError, match=rf"taken over by process {os.getpid()} on .*it ends here"):
            check()
        theirs = study.read(LOCK)
        first.close()
        assert study.read(LOCK) == theirs
        check_other()
        second.close()
    assert study.names() == []


def test_a_lease_that_is_gone_was_taken_and_given_back(tmp_path):
    now = [1000.0]
    study = Unlockable(tmp_path)
    with study_lock(study, lambda: now[0]) as check:
        study.delete(LOCK)
        now[0] += lock.LEASE_SECONDS + 1
        with pytest.raises(UserError, match="taken over by another driver"):
            check()
    assert study.names() == []


def test_storage_that_does_not_answer_takes_no_lease_away(tmp_path, monkeypatch):
    now = [1000.0]
    study = Unlockable(tmp_path)
    with study_lock(study, lambda: now[0]) as check:
        with monkeypatch.context() as silent:
            silent.setattr(study, "read", lambda _: (_ for _ in ()).throw(OSError("timed out")))
            now[0] += lock.LEASE_SECONDS + 1
            check()
        check()
        assert json.loads(study.read(LOCK))["renewed"] == now[0]
