"""Fetching one file: resuming, digests, errors."""

import hashlib
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from segstrat.data.download.fetch import fetch
from segstrat.errors import UserError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_a_file_is_fetched_and_checked(server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path / "new" / "data.tar", md5(server.content))
    assert (tmp_path / "new" / "data.tar").read_bytes() == server.content
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.tar"]


def test_a_file_on_a_disk_is_fetched_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    fetch((tmp_path / "source").as_uri(), tmp_path / "data.tar", md5(b"content"))
    assert (tmp_path / "data.tar").read_bytes() == b"content"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_fetch_is_resumed(server, tmp_path: Path, ranges: bool) -> None:
    server.break_after, server.ranges = 300_000, ranges
    target = tmp_path / "data.tar"
    with pytest.raises(UserError, match=r"after 300,000 of 1,024,000 bytes.*again to continue"):
        fetch(server.url, target, md5(server.content))
    assert not target.exists()
    fetch(server.url, target, md5(server.content))
    assert target.read_bytes() == server.content
    assert server.requests == ["", "bytes=300000-"]


def test_what_is_already_there_is_not_fetched_again(server, tmp_path: Path) -> None:
    target = tmp_path / "data.tar"
    target.write_bytes(server.content)
    fetch(server.url, target, md5(server.content))
    assert server.requests == []
    # Whole, but not renamed yet when the last run was cut off.
    target.rename(tmp_path / "data.tar.part")
    fetch(server.url, target, md5(server.content))
    assert target.read_bytes() == server.content


def test_a_wrong_digest_keeps_nothing(server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"MD5 digest {md5(server.content)} instead of {'0' * 32}"):
        fetch(server.url, tmp_path / "data.tar", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_not_there_is_said(server, tmp_path: Path) -> None:
    server.close()
    target = tmp_path / "data.tar"
    with pytest.raises(UserError, match=r"cannot be downloaded .*refused.*put it at") as raised:
        fetch(server.url, target, md5(server.content))
    assert str(target) in str(raised.value)


def test_too_little_space_is_said_first(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1_500_000))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB"):
        fetch(server.url, tmp_path / "data.tar", md5(server.content))
    assert not (tmp_path / "data.tar").exists()
