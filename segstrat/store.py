"""`Store`: a folder of small files, on a disk or in S3-compatible storage, each written atomically.

JSON objects in it are read so that a damaged file is one sentence and never a traceback. This node's folders
of data and caches are named here too.
"""

import contextlib
import errno
import functools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import pyarrow.fs as pafs

from segstrat import atomic
from segstrat.errors import UserError

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

# Storage that has answered before is given so long to answer again, other storage the shorter time.
PATIENCE_SECONDS = 120.0
FIRST_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 8.0
# A request that is silent for so long has failed; without a limit of ours, repetitions of the AWS library,
# which nobody sees, take minutes.
REQUEST_SECONDS = 4.0
# In pyarrow's messages of errors that pass; a missing bucket, a wrong key or a full disk do not.
TRANSIENT = (
    "network_connection",
    "curlcode",
    "timeout",
    "timed out",
    "slow_down",
    "throttling",
    "service_unavailable",
    "internal_failure",
)
# Where an answer has no body, as to every HEAD request, AWS's library knows its status only.
TRANSIENT_STATUS = re.compile(r"http (response code|status) (408|429|500|502|503|504)\b")
EXPIRED = ("expiredtoken", "token has expired", "token is expired", "requestexpired", "tokenrefreshrequired")
REFUSED = (
    "access_denied",
    "accessdenied",
    "invalid_access_key_id",
    "invalidaccesskeyid",
    "invalid_client_token",
    "signature_does_not_match",
    "signaturedoesnotmatch",
    "invalidtoken",
    "http status 401",
    "http status 403",
)


class Store:
    """A folder reached through pyarrow's file systems.

    Args:
        uri: a local path, or a URI that pyarrow knows (`s3://bucket/prefix?endpoint_override=…`).
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        if not self.uri.isprintable() and self.uri.encode(errors="ignore").decode() != self.uri:
            raise UserError(f"storage {self.uri!a}: the name is not in UTF-8; give another one")
        if "://" in self.uri:
            try:
                self._fs, self._root = _open(self.uri)
            except (ValueError, OSError) as error:
                raise UserError(
                    f"storage {self.uri!r} cannot be opened ({error}); give a folder or a URI such as "
                    "s3://bucket/prefix"
                ) from error
            if not self._root.strip("/"):
                raise UserError(
                    f"storage {self.uri!r} names no bucket; give a URI such as s3://bucket/prefix"
                )
        else:
            self._fs, self._root = pafs.LocalFileSystem(), str(Path(self.uri).absolute())
        self.is_local = isinstance(self._fs, pafs.LocalFileSystem)
        # Shared by all folders of one storage: it answers for all of them, or for none.
        self._patience = Patience(self.uri.partition("?")[0], explain=self._list)

    def __truediv__(self, name: str) -> "Store":
        """The store of a sub-folder."""
        child = object.__new__(Store)
        base, mark, query = self.uri.partition("?")
        child.uri = f"{base.rstrip('/')}/{name}{mark}{query}"
        child._fs, child._root, child.is_local = self._fs, f"{self._root}/{name}", self.is_local
        child._patience = self._patience
        return child

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __reduce__(self) -> tuple:
        return Store, (self.uri,)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file atomically: a reader, or a kill, sees the old content or the new, never a part."""
        path = f"{self._root}/{name}"
        if self.is_local:
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            atomic.write_bytes(Path(path), data)
            return

        def upload() -> None:
            self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)

        self._try(upload)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: if there is no such file.
        """

        def download() -> bytes:
            with self._fs.open_input_stream(f"{self._root}/{name}") as stream:
                return stream.readall()

        return self._try(download)

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of that name."""
        path = f"{self._root}/{name}".rstrip("/")
        return self._try(lambda: self._fs.get_file_info(path)).type != pafs.FileType.NotFound

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder of that name."""
        info = self._try(lambda: self._fs.get_file_info(f"{self._root}/{name}"))
        return info.type == pafs.FileType.Directory

    def names(self) -> list[str]:
        """Names of the files and folders directly inside, sorted; empty where the folder is missing."""
        selector = pafs.FileSelector(self._root, allow_not_found=True)
        return sorted(
            info.base_name
            for info in self._try(lambda: self._fs.get_file_info(selector))
            if not atomic.is_temporary(info.base_name)
        )

    def delete(self, name: str) -> None:
        """Deletes a file; a missing one is not an error."""
        # Another process may delete it too, as may a first try whose answer was lost.
        with contextlib.suppress(FileNotFoundError):
            self._try(lambda: self._fs.delete_file(f"{self._root}/{name}"))

    def _list(self) -> None:
        """An operation whose errors have a text, which those of asking for a single file lack."""
        self._fs.get_file_info(pafs.FileSelector(self._root, allow_not_found=True))

    def _try(self, operation: Callable[[], T]) -> T:
        """Runs an operation; storage elsewhere is given time to answer."""
        return operation() if self.is_local else self._patience.call(operation)

    @property
    def local_path(self) -> Path:
        """The folder as a path.

        Raises:
            UserError: if the store is not on a disk.
        """
        if not self.is_local:
            raise UserError(f"storage {self.uri!r} is not a folder on this machine")
        return Path(self._root)


def _open(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and path of a URI; requests to S3 give up early, and `Patience` repeats them."""
    filesystem, root = pafs.FileSystem.from_uri(uri)
    if isinstance(filesystem, pafs.S3FileSystem):
        # URIs have no such options.
        options = filesystem.__reduce__()[1][0] | {
            "connect_timeout": REQUEST_SECONDS,
            "request_timeout": REQUEST_SECONDS,
            "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=1),
        }
        filesystem = pafs.S3FileSystem(**options)
    return filesystem, root


class StorageError(UserError, OSError):
    """Storage elsewhere that does not answer, or that refuses this user."""


class Patience:
    """Repeats operations on one storage while it does not answer.

    Args:
        name: of the storage, for the messages.
        explain: an operation whose error says more than those of others.
        say: prints a message.
        sleep, clock: replaced in tests.
    """

    def __init__(
        self,
        name: str,
        *,
        explain: Callable[[], object] = lambda: None,
        say: Callable[[str], None] = lambda message: print(message, file=sys.stderr, flush=True),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._explain = explain
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._answered = False

    def call(self, operation: Callable[[], T]) -> T:
        """The result of an operation, which is repeated while it fails for a reason that passes.

        Raises:
            StorageError: if the storage has not answered until the patience is used up, or refuses this user.
            OSError: what else the operation raised.
        """
        start, pause = self._clock(), FIRST_PAUSE
        waiting = False
        while True:
            began = self._clock()
            try:
                result = operation()
            except OSError as error:
                if not is_transient(error):
                    self._answered = True
                    raise self._in_words(error) from error
                now = self._clock()
                bound = PATIENCE_SECONDS if self._answered else FIRST_SECONDS
                # Another try may take as long as this one.
                if now - start + pause + (now - began) > bound:
                    self._answered = False
                    raise StorageError(
                        f"storage {self._name} does not answer (tried for {now - start:.0f} s); check that "
                        "it runs and that this machine reaches it"
                    ) from error
                if not waiting:
                    waiting = True
                    self._say(f"{self._name} does not answer; trying again for up to {bound:.0f} s")
                self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._answered = True
                if waiting:
                    self._say(f"{self._name} answers again after {self._clock() - start:.0f} s")
                return result

    def _in_words(self, error: OSError) -> OSError:
        """The error that says what is wrong with this user's credentials, if that is its reason."""
        text = str(error).lower()
        if "aws error" in text and "no response body" in text:
            # As for a single file, where S3 says nothing but 400 or 403.
            try:
                self._explain()
            except OSError as explanation:
                text += str(explanation).lower()
        if any(word in text for word in EXPIRED):
            return StorageError(f"the credentials for storage {self._name} have expired; renew them")
        if any(word in text for word in REFUSED):
            return StorageError(
                f"storage {self._name} refuses access ({_short(error)}); check the credentials and what "
                "they allow"
            )
        return error


def _short(error: OSError) -> str:
    """What AWS calls an error, without the rest of its message."""
    return str(error).partition("AWS Error ")[2].partition(":")[0] or str(error)


def is_transient(error: OSError) -> bool:
    """Whether an error of a remote file system may pass by itself."""
    text = str(error).lower()
    return any(word in text for word in TRANSIENT) or TRANSIENT_STATUS.search(text) is not None


class DamagedFileError(UserError):
    """A file that is not what its name says: truncated, empty, or of another type."""


def read_object(store: Store, name: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if the file does not contain a JSON object.
    """
    try:
        content = json.loads(store.read(name))
    except ValueError as error:  # of JSON, and of bytes that are not text
        raise DamagedFileError(f"{name} cannot be read: {error}") from error
    except (FileNotFoundError, StorageError):
        raise
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise FileNotFoundError(f"{store.uri} is a file, not a folder") from error
        if store.is_folder(name):
            raise DamagedFileError(f"{name} cannot be read: it is a folder") from error
        raise
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DamagedFileError(f"{name} cannot be read: expected a JSON object, not {found}")
    return content


def write_object(store: Store, name: str, content: Mapping[str, Any]) -> None:
    """Writes a JSON object atomically."""
    store.write(name, json.dumps(content).encode())


def write_with_copy(store: Store, name: str, content: Mapping[str, Any]) -> None:
    """Writes a JSON object and a copy of it, for `read_with_copy`; each atomically."""
    text = _readable(content).encode()
    store.write(name, text)
    store.write(copy_name(name), text)


# The items of longer lists have a line each: Python writes JSON with indents many times more slowly.
_SHORT_LIST = 40


def _readable(content: Mapping[str, Any]) -> str:
    """A JSON object as text that a person can read, written quickly where it has thousands of items."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list) and len(value) > _SHORT_LIST:
            text = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def read_with_copy(
    store: Store, name: str, check: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """The JSON object in a file, or in its copy where the file is damaged or missing, which is logged.

    Args:
        check: raises a DamagedFileError for an object that is not of its form.

    Raises:
        FileNotFoundError: if there is neither.
        DamagedFileError: if neither can be read.
    """

    def checked(name: str) -> dict[str, Any]:
        content = read_object(store, name)
        check(content)
        return content

    try:
        return checked(name)
    except (DamagedFileError, FileNotFoundError) as error:
        try:
            content = checked(copy_name(name))
        except (DamagedFileError, FileNotFoundError):
            raise error from None
        problem = error if isinstance(error, DamagedFileError) else f"{name} is missing"
        say_once(f"{store.uri}: {problem}; {copy_name(name)} is used")
        return content


def copy_name(name: str) -> str:
    """Name of a file's copy: manifest.json -> manifest.copy.json."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.copy.{suffix}"


@functools.cache
def say_once(message: str) -> None:
    """Logs a warning, once per process however often a file is read."""
    _LOG.warning(message)


def data_root(given: str | None = None) -> Path | None:
    """The data root: the one given on the command line, else this node's `$SEGSTRAT_DATA`."""
    root = given or os.environ.get("SEGSTRAT_DATA")
    return Path(root).expanduser().absolute() if root else None


def cache_dir() -> Path:
    """Folder of everything that can be built again: `$SEGSTRAT_CACHE`, else the user's cache directory."""
    given = os.environ.get("SEGSTRAT_CACHE")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("segstrat"))
