"""Files and folders that appear complete or not at all, and the lock of builders."""

import errno
import os
import threading
import time
from pathlib import Path

import filelock
import pytest

from segstrat import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert atomic.is_temporary(temporary.name)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]


def test_a_folder_appears_with_all_it_holds(tmp_path: Path) -> None:
    with atomic.creating_folder(tmp_path / "entry") as temporary:
        (temporary / "a").write_text("a")
        assert not (tmp_path / "entry").exists()
    assert names(tmp_path) == ["entry"]
    assert (tmp_path / "entry" / "a").read_text() == "a"


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    with atomic.creating_folder(tmp_path / "entry") as slow:
        (slow / "slow").touch()
        with atomic.creating_folder(tmp_path / "entry") as fast:
            (fast / "fast").touch()
    assert names(tmp_path) == ["entry"]
    assert names(tmp_path / "entry") == ["fast"]


def test_a_failed_build_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic.creating_folder(tmp_path / "entry") as temporary:
            (temporary / "a").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert names(tmp_path) == []


def test_a_second_builder_waits_and_is_told_once(tmp_path: Path) -> None:
    lock, waiting = tmp_path / "lock", threading.Event()
    order = []

    def second() -> None:
        with atomic.only_builder(lock, on_wait=waiting.set):
            order.append("second")

    with atomic.only_builder(lock):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_without_locks_builders_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    order = []
    with atomic.only_builder(tmp_path / "lock", on_wait=lambda: order.append("waits")):
        order.append("first")
        with atomic.only_builder(tmp_path / "lock", on_wait=lambda: order.append("waits")):
            order.append("second")
    assert order == ["first", "second"]


def test_a_lock_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"File exists|Not a directory"),
        atomic.only_builder(tmp_path / "file" / "lock"),
    ):
        pass


def test_only_old_temporary_folders_are_abandoned(tmp_path: Path) -> None:
    for name in ("entry", "entry.part12345678", "entry.part9abcdef0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    long_ago = time.time() - 86_400
    for path in (tmp_path / "entry.part12345678", tmp_path / "entry.part12345678" / "file"):
        os.utime(path, (long_ago, long_ago))
    os.utime(tmp_path / "entry", (long_ago, long_ago))
    atomic.remove_abandoned(tmp_path)
    assert names(tmp_path) == ["entry", "entry.part9abcdef0"]


def test_the_same_content_gives_the_same_bytes_whatever_the_temporary_name(tmp_path: Path) -> None:
    # torch.save stores the file's name up to its last dot.
    import torch

    contents = []
    for _ in range(2):
        with atomic.replacing(tmp_path / "w.pth") as temporary:
            torch.save({"a": torch.ones(2)}, temporary)
        contents.append((tmp_path / "w.pth").read_bytes())
    assert contents[0] == contents[1]
