"""Downloads, verifies and unpacks a published data set."""

from pathlib import Path

from segstrat.data.download.fetch import fetch
from segstrat.data.download.published import DATA_SETS
from segstrat.data.download.unpack import unpack
from segstrat.data.readers.locate import search
from segstrat.errors import UserError, unknown_name


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
