import errno
import os
import pickle
from pathlib import Path

import pytest

from segstrat.errors import UserError
from segstrat.store import Store


def test_a_file_is_read_back_from_a_nested_store_and_through_pickle(tmp_path: Path):
    store = Store(tmp_path) / "a" / "b"
    store.write("x.bin", b"one")
    store.write("x.bin", b"two")
    assert pickle.loads(pickle.dumps(store)).read("x.bin") == b"two"
    assert store.names() == ["x.bin"]
    assert (tmp_path / "a/b/x.bin").read_bytes() == b"two"


def test_a_failed_write_keeps_the_old_content_and_leaves_no_part(tmp_path: Path, monkeypatch):
    store = Store(tmp_path)
    store.write("x", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write("x", b"new")
    assert store.read("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_missing_files_and_folders(tmp_path: Path):
    store = Store(tmp_path / "nowhere")
    assert store.names() == []
    assert not store.exists("x")
    store.delete("x")
    with pytest.raises(FileNotFoundError):
        store.read("x")


def test_an_unknown_scheme_is_a_users_error():
    with pytest.raises(UserError, match=r"storage 'nonsense://bucket' cannot be opened"):
        Store("nonsense://bucket")
