"""Temporary folders end with their driver, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from study.on_ray.runtime import (
    LOCK,
    MAKING_SECONDS,
    PREFIX,
    delete_leftovers,
    keep_private,
    ray_folder,
    running_drivers,
    scratch_folder,
    share_of_cores,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_ends_with_its_block_also_after_an_error(temporary):
    with pytest.raises(KeyboardInterrupt), scratch_folder() as folder:  # noqa: PT012
        (folder / "file").touch()
        assert delete_leftovers(temporary) == [], "it is in use"
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_the_next_driver_deletes_what_a_killed_one_left(temporary):
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from study.on_ray.runtime import scratch_folder\n"
        "with scratch_folder() as folder: print(folder, flush=True); signal.pause()"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert driver.stdout is not None
    left = Path(driver.stdout.readline().strip())
    assert left.is_dir()
    assert delete_leftovers(temporary) == []
    with scratch_folder() as own:
        assert running_drivers(own) == 1, "the other one"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert left.is_dir(), "nobody could clean up after a kill"
    with scratch_folder() as own:
        assert not left.exists()
        assert running_drivers(own) == 0


def test_a_folder_that_is_being_made_is_left_alone_for_a_while(temporary):
    folder = temporary / f"{PREFIX}abc"
    folder.mkdir()
    assert delete_leftovers(temporary) == []
    before = time.time() - 2 * MAKING_SECONDS
    os.utime(folder, (before, before))
    assert delete_leftovers(temporary) == [folder]


def test_other_folders_are_left_alone(temporary):
    (temporary / "ray").mkdir()
    (temporary / "ray" / LOCK).touch()
    assert delete_leftovers(temporary) == []


def test_links_and_folders_of_others_are_neither_opened_nor_deleted(temporary, monkeypatch):
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    assert delete_leftovers(temporary) == []
    assert [path.name for path in elsewhere.iterdir()] == ["kept"], "no lock was made there"
    folder = temporary / f"{PREFIX}abc"
    folder.mkdir()
    os.utime(folder, (0, 0))
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert delete_leftovers(temporary) == []
    monkeypatch.undo()
    assert delete_leftovers(temporary) == [folder]


def test_sockets_fit_into_the_path_that_a_kernel_allows():
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/tmp") as folder:
        inner = ray_folder(Path(folder))
        assert inner is not None
        assert Path(inner).parent == Path(folder), "Ray makes its own folder anybody's"
    assert ray_folder(Path("/var") / ("x" * 60)) is None


def test_a_file_is_taken_from_other_users(temporary):
    (temporary / "token").touch(mode=0o644)
    keep_private(temporary / "token")
    assert (temporary / "token").stat().st_mode & 0o777 == 0o600
    keep_private(temporary / "absent")


def test_a_study_next_to_others_takes_an_equal_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [share_of_cores(others) for others in (1, 2, 20)] == [4, 2, 1]
