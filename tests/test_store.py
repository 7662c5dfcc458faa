import contextlib
import errno
import math
import os
import pickle
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segstrat.errors import UserError
from segstrat.store import (
    FIRST_SECONDS,
    LONGEST_PAUSE,
    PATIENCE_SECONDS,
    Patience,
    StorageError,
    Store,
    is_transient,
    read_object,
)


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


def test_a_name_that_is_not_utf8_is_a_users_error():
    with pytest.raises(UserError, match=r"'\\udcff': the name is not in UTF-8"):
        Store("\udcff")


STALLED = OSError("When reading: AWS Error NETWORK_CONNECTION: curlCode: 28, Timeout was reached")
DENIED = OSError("AWS Error ACCESS_DENIED during PutObject operation")


class Storage:
    """Answers, except between two moments of a clock of its own."""

    def __init__(self, error: OSError, *, down_from: float, down_until: float) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.calls = 0
        self._error, self._down = error, (down_from, down_until)
        clock = lambda: self.now  # noqa: E731
        self.patience = Patience("s3://bucket", say=self.said.append, sleep=self.sleep, clock=clock)

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= LONGEST_PAUSE
        self.now += seconds

    def read(self) -> str:
        def operation() -> str:
            self.calls += 1
            if self._down[0] <= self.now < self._down[1]:
                raise self._error
            return "content"

        return self.patience.call(operation)


def test_twenty_seconds_without_an_answer_cost_nothing_and_are_told():
    storage = Storage(STALLED, down_from=5, down_until=25)
    assert storage.read() == "content"
    storage.now = 5
    assert storage.read() == "content"
    assert len(storage.said) == 2
    assert f"trying again for up to {PATIENCE_SECONDS:.0f} s" in storage.said[0]
    assert "answers again after" in storage.said[1]
    assert 25 <= storage.now < 25 + LONGEST_PAUSE


def test_the_wait_is_bounded():
    storage = Storage(STALLED, down_from=5, down_until=1e9)
    storage.read()
    storage.now = 5
    with pytest.raises(StorageError, match=r"storage s3://bucket does not answer \(tried for \d+ s\); check"):
        storage.read()
    assert PATIENCE_SECONDS - LONGEST_PAUSE < storage.now - 5 <= PATIENCE_SECONDS
    assert len(storage.said) == 1
    before = storage.now
    with pytest.raises(StorageError, match="does not answer"):
        storage.read()
    assert storage.now - before <= FIRST_SECONDS, "what was given up is not awaited as long again"


def test_storage_that_never_answered_gets_less_time():
    storage = Storage(STALLED, down_from=0, down_until=1e9)
    with pytest.raises(StorageError, match="does not answer"):
        storage.read()
    assert storage.now <= FIRST_SECONDS


@pytest.mark.parametrize("error", [DENIED, FileNotFoundError("no such file"), OSError(28, "No space")])
def test_errors_that_do_not_pass_are_raised_at_once(error):
    storage = Storage(error, down_from=0, down_until=1e9)
    words = "refuses access" if error is DENIED else re.escape(str(error))
    with pytest.raises(OSError, match=words):
        storage.read()
    assert storage.calls == 1
    assert storage.said == []
    assert not is_transient(error)


@contextlib.contextmanager
def refusing(status: int, code: str, *, times: float = math.inf) -> Iterator[Store]:
    """A store in S3 that refuses so many requests, without a reason where a single file is asked for.

    Later ones find nothing.
    """
    refused = 0

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            nonlocal refused
            refused += 1
            answer = status
            content = f"<Error><Code>{code}</Code><Message>Refused.</Message></Error>" if code else ""
            if refused > times:
                content = "<ListBucketResult></ListBucketResult>"
                answer = 404 if self.command == "HEAD" else 200
            if self.command == "HEAD":
                content = ""
            self.send_response(answer)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]
        yield Store(f"s3://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1")
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "ExpiredToken", r"the credentials for storage s3://bucket/x have expired; renew them"),
        (403, "InvalidAccessKeyId", "storage s3://bucket/x refuses access"),
        (403, "AccessDenied", r"refuses access \(ACCESS_DENIED"),
    ],
)
def test_a_refusal_is_told_as_what_it_is(status, code, words, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with refusing(status, code) as store:
        for operation in (
            lambda: store.exists("manifest.json"),
            lambda: read_object(store, "manifest.json"),
            lambda: store.write("manifest.json", b"{}"),
            store.names,
        ):
            with pytest.raises(StorageError, match=words):
                operation()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("code", ["", "InternalError"])
def test_a_status_that_passes_is_tried_again(status, code, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr("segstrat.store.FIRST_PAUSE", 0.01)
    with refusing(status, code, times=1) as store:
        assert not store.exists("manifest.json")
    with refusing(status, code, times=1) as store:
        assert store.names() == []


def test_a_status_that_stays_is_raised_at_once(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with refusing(501, "", times=1) as store, pytest.raises(OSError, match="HTTP status 501"):
        store.exists("manifest.json")


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_file_that_another_process_deletes_meanwhile_is_no_error(times, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # The file is there for as many requests.
    with refusing(200, "", times=times) as store:
        store.delete("checkpoint-000003.pt")
        assert not store.exists("checkpoint-000003.pt")
