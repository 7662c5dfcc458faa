"""One driver per study, on a disk and where storage cannot lock."""

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
