"""`Store`: a folder of small files, on a disk or in S3-compatible storage, each written atomically."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow.fs as pafs

from segstrat import atomic
from segstrat.errors import UserError
from segstrat.retry import Patience

T = TypeVar("T")


class Store:
    """A folder reached through pyarrow's file systems.

    Args:
        uri: a local path, or a URI that pyarrow knows (`s3://bucket/prefix?endpoint_override=…`).
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        if "://" in self.uri:
            try:
                self._fs, self._root = pafs.FileSystem.from_uri(self.uri)
            except (ValueError, OSError) as error:
                raise UserError(
                    f"storage {self.uri!r} cannot be opened ({error}); give a folder or a URI such as "
                    "s3://bucket/prefix"
                ) from error
        else:
            self._fs, self._root = pafs.LocalFileSystem(), str(Path(self.uri).absolute())
        self.is_local = isinstance(self._fs, pafs.LocalFileSystem)
        # Shared by all folders of one storage: it answers for all of them, or for none.
        self._patience = Patience(self.uri.partition("?")[0])

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
        """Deletes a file; a missing one is no error."""
        if self.exists(name):
            self._try(lambda: self._fs.delete_file(f"{self._root}/{name}"))

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
