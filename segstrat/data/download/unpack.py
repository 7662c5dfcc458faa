"""Unpacks one tar file safely; its folder appears atomically."""

import shutil
import tarfile
import tempfile
from pathlib import Path

from segstrat.errors import UserError
from segstrat.progress import tracked


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
