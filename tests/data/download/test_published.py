"""Fetching and unpacking, from a server on this machine that can break off, send ranges, or not."""

import contextlib
import hashlib
import io
import shutil
import tarfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segstrat.data import build_protocol
from segstrat.data.download import fetch
from segstrat.data.download import published as download
from segstrat.data.download.__main__ import main
from segstrat.data.download.published import Archive, unpack
from segstrat.errors import UserError

CONTENT = bytes(range(256)) * 4000


class Server:
    """Serves `content`; `break_after` cuts the first answer off, `ranges` can be switched off."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.break_after: int | None = None
        self.ranges = True
        self.requests: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                server.requests.append(wanted)
                start = (
                    int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
                )
                if start and start >= len(server.content):
                    self.send_error(416)
                    return
                body = server.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                cut, server.break_after = server.break_after, None
                self.wfile.write(body[:cut])

            def handle(self) -> None:
                # A client may hang up in the middle, as one does that finds too little space.
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                """Says nothing on the console."""

        self._http: ThreadingHTTPServer | None = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/data.tar"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(CONTENT)
    yield running
    running.close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def test_a_file_is_fetched_and_checked(server: Server, tmp_path: Path) -> None:
    fetch.fetch(server.url, tmp_path / "new" / "data.tar", md5(CONTENT))
    assert (tmp_path / "new" / "data.tar").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.tar"]


def test_a_file_on_a_disk_is_fetched_too(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    fetch.fetch((tmp_path / "source").as_uri(), tmp_path / "data.tar", md5(CONTENT))
    assert (tmp_path / "data.tar").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_gone_on_with(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.break_after, server.ranges = 300_000, ranges
    target = tmp_path / "data.tar"
    with pytest.raises(UserError, match=r"after 300,000 of 1,024,000 bytes.*run the command again to go on"):
        fetch.fetch(server.url, target, md5(CONTENT))
    assert not target.exists()
    fetch.fetch(server.url, target, md5(CONTENT))
    assert target.read_bytes() == CONTENT
    assert server.requests == ["", "bytes=300000-"]


def test_what_is_already_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "data.tar"
    target.write_bytes(CONTENT)
    fetch.fetch(server.url, target, md5(CONTENT))
    assert server.requests == []
    # Whole, but not renamed yet when the last run was cut off.
    target.rename(tmp_path / "data.tar.part")
    fetch.fetch(server.url, target, md5(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_wrong_digest_keeps_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"MD5 digest {md5(CONTENT)} instead of {'0' * 32}"):
        fetch.fetch(server.url, tmp_path / "data.tar", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    server.close()
    target = tmp_path / "data.tar"
    with pytest.raises(UserError, match=r"cannot be fetched .*refused.*put it at") as raised:
        fetch.fetch(server.url, target, md5(CONTENT))
    assert str(target) in str(raised.value)


def test_too_little_space_is_said_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1_500_000))
    with pytest.raises(UserError, match=r"needs about 0\.0 GB"):
        fetch.fetch(server.url, tmp_path / "data.tar", md5(CONTENT))
    assert not (tmp_path / "data.tar").exists()


def tar_of(folder: Path, names: dict[str, str] | None = None) -> bytes:
    """A tar file of a folder, with further empty files or links under the given names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
        for name, link in (names or {}).items():
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def voc_archive(trees, tmp_path: Path) -> bytes:
    trees.voc(["a"], ["b"])
    return tar_of(trees.root)


@pytest.fixture
def mirror(server: Server, voc_archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server in the place of VOC's mirror."""
    server.content = voc_archive
    archive = Archive(server.url, "voc.tar", md5(voc_archive), "VOCdevkit/VOC2012")
    published = download.DATA_SETS["voc"]
    monkeypatch.setitem(
        download.DATA_SETS, "voc", download.Published(published.name, published.fits, archive)
    )
    return server


def test_the_command_leaves_a_data_set_that_reads(
    mirror: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert main(["voc", "--root", str(root)]) == 0
    assert build_protocol("voc", root).train.ids == ("a",)
    assert f"VOC 2012 is in {root}" in capsys.readouterr().out
    assert sorted(path.name for path in root.rglob("*") if path.suffix in (".part", ".tar")) == []
    assert main(["voc", "--root", str(root)]) == 0
    assert len(mirror.requests) == 1


@pytest.mark.parametrize(
    "names", [{"../outside.txt": ""}, {"VOCdevkit/link": "/etc/passwd"}, {"VOCdevkit/up": "../../.."}]
)
def test_an_archive_that_leads_outside_is_refused(trees, tmp_path: Path, names: dict[str, str]) -> None:
    trees.voc(["a"], ["b"])
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "bad.tar").write_bytes(tar_of(trees.root, names))
    with pytest.raises(UserError, match=r"bad\.tar is not unpacked"):
        unpack(tmp_path / "bad.tar", root, "VOCdevkit/VOC2012")
    assert list(root.iterdir()) == []
    assert not (tmp_path / "outside.txt").exists()


def test_an_archive_that_is_cut_off_or_another_is_refused(voc_archive: bytes, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "cut.tar").write_bytes(voc_archive[: len(voc_archive) // 2])
    with pytest.raises(UserError, match="is not unpacked"):
        unpack(tmp_path / "cut.tar", root, "VOCdevkit/VOC2012")
    (tmp_path / "other.tar").write_bytes(voc_archive)
    with pytest.raises(UserError, match="has no folder VOCdevkit/VOC2007"):
        unpack(tmp_path / "other.tar", root, "VOCdevkit/VOC2007")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cihp", ["lip.sysuhcp.com", "Training/Category_ids", "28,280"]),
        ("person-part", ["liangchiehchen.com", "pascal_person_part_gt", "1,716"]),
    ],
)
def test_the_command_says_what_to_fetch_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    assert main([name, "--root", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert all(word in output for word in [*words, str(tmp_path)])
    assert "{" not in output


def test_what_was_fetched_by_hand_is_recognised(trees, capsys: pytest.CaptureFixture[str]) -> None:
    trees.cihp(["c1"], ["c2"])
    trees.person_part(["p1"], ["p2"])
    assert main(["cihp", "person-part", "--root", str(trees.root)]) == 0
    assert "by hand" not in capsys.readouterr().out


def test_a_data_set_without_a_name_here_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vocs", "--root", str(tmp_path)]) == 2
    assert "unknown data set 'vocs': did you mean 'voc'?" in capsys.readouterr().err


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["voc", "--root", str(tmp_path / "file" / "root")]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_the_mirrors_are_those_of_torchvision() -> None:
    archives = {name: each.archive for name, each in download.DATA_SETS.items() if each.archive}
    assert sorted(archives) == ["sbd", "voc"]
    assert all(len(archive.md5) == 32 and archive.url.startswith("https://") for archive in archives.values())
