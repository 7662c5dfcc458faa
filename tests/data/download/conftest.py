"""A server on this machine that can break off, send ranges, or not; and tar files."""

import contextlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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


def make_tar(folder: Path, names: dict[str, str] | None = None) -> bytes:
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
def tar_of() -> Callable[..., bytes]:
    """Makes a tar file, see `make_tar`."""
    return make_tar


@pytest.fixture
def voc_archive(trees, tmp_path: Path) -> bytes:
    trees.voc(["a"], ["b"])
    return make_tar(trees.root)
