"""Downloads, verifies and unpacks a data set: partial downloads continue, folders appear atomically."""

import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import closing
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from segstrat.commands import tracked
from segstrat.data.download.published import DATA_SETS
from segstrat.data.readers import search
from segstrat.errors import UserError, unknown_name

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
_ROOM = 3
"""Space needed for each byte of an archive: the archive, its contents, and a reserve."""


def install(name: str, root: Path, *, progress: bool = False) -> bool:
    """Downloads, verifies and unpacks a data set under the data root; does nothing if it is already there.

    Args:
        name: one of `DATA_SETS`.

    Returns:
        Whether the data set is there now; false if it has to be downloaded by hand.

    Raises:
        UserError: if the name is unknown, the host cannot be reached, the digest is wrong, the archive would
            write outside its folder, or the data root cannot be written.
    """
    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    published = DATA_SETS[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        if search(root, published.fits):
            return True
        if published.archive is None:
            return False
        archive = published.archive
        target = root / "downloads" / archive.file
        fetch(archive.url, target, archive.md5, progress=progress)
        unpack(target, root, archive.inside, progress=progress)
        target.unlink()
    except OSError as error:
        raise UserError(
            f"{root} cannot be written ({error.strerror or error}); free some space or give another --root"
        ) from error
    return True


def fetch(url: str, target: Path, md5: str, *, progress: bool = False) -> None:
    """Downloads `url` to `target`; a partial download is continued, a complete file is kept.

    Args:
        md5: hex digest of the complete file.

    Raises:
        UserError: if the host cannot be reached or stops answering, the disk is too small, or the digest
            differs.
    """
    if target.exists() and _md5(target) == md5:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _continue(url, part, progress)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"{url} cannot be downloaded ({getattr(error, 'reason', error)}); run the command again to "
            f"continue, or download the file by other means and put it at {target}"
        ) from error
    digest = _md5(part)
    if digest != md5:
        part.unlink()
        raise UserError(
            f"{url} has the MD5 digest {digest} instead of {md5}; the download was deleted, run the "
            "command again or download the file from a mirror"
        )
    part.replace(target)


def _continue(url: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        # The server has nothing left to send: the digest shows whether this is the file.
        if error.code == 416:
            return
        raise
    with closing(response):
        # A server without ranges answers 200 and sends everything again.
        resumed = getattr(response, "status", None) == 206
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total:
            _check_space(total * _ROOM - have, part)
        with part.open("ab" if resumed else "wb") as file, _bar(part.stem, total, have, progress) as bar:
            for chunk in iter(lambda: response.read(_CHUNK), b""):
                file.write(chunk)
                bar.advance(bar.task_ids[0], len(chunk))
    size = part.stat().st_size
    if total and size < total:
        raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")


def _bar(name: str, total: int | None, have: int, show: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=not show)
    bar.add_task(name, total=total, completed=have)
    return bar


def _check_space(needed: int, part: Path) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"downloading and unpacking {part.stem} needs about {needed / 1e9:.1f} GB in {part.parent}, but "
            f"{free / 1e9:.1f} GB are free; free some space or give another --root"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, root: Path, inside: str, *, progress: bool = False) -> None:
    """Unpacks a tar file and moves its folder `inside` to the same path under `root` once it is complete.

    Raises:
        UserError: if the file is not a tar archive, has a path that leads outside, or lacks the folder.
    """
    part = Path(tempfile.mkdtemp(prefix="unpack-", suffix=".part", dir=root))
    try:
        with tarfile.open(archive) as tar:
            for member in tracked(tar, None, f"unpack {archive.name}", progress):
                # The filter refuses links and paths that leave the folder, devices and foreign owners.
                tar.extract(member, part, filter="data")
        if not (part / inside).is_dir():
            raise UserError(f"{archive} has no folder {inside}; delete it and run the command again")
        (root / inside).parent.mkdir(parents=True, exist_ok=True)
        (part / inside).rename(root / inside)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"{archive} cannot be unpacked ({error}); delete it and run the command again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
