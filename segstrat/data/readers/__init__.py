"""One reader per published layout on disk: folders and split lists -> items.

A data set is found under the data root by the contents of a folder, not by its name.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from segstrat.errors import UserError

_DEPTH = 2


def find_folder(
    root: Path | None, name: str, fits: Callable[[Path], bool], expected: str, prefer: str = ""
) -> Path:
    """The folder of a data set: the data root itself, or one up to two levels below.

    Args:
        name: of the data set, for messages.
        fits: whether a folder is the top folder of the data set.
        expected: contents of such a folder, for messages.
        prefer: name of the folder to take where several fit.

    Raises:
        UserError: if none fits, or several do.
    """
    root = existing_root(root, name)
    found = search(root, fits, prefer)
    if not found:
        raise UserError(
            f"no {name} in {root}: expected a folder with {expected}, at most {_DEPTH} levels below; "
            "`uv run python -m segstrat.data.download` downloads it or says how"
        )
    if len(found) > 1:
        raise UserError(
            f"{root} contains {name} {len(found)} times ({found[0]}, {found[1]}); set the data "
            "root to one of them, or move the other away"
        )
    return found[0]


def search(root: Path, fits: Callable[[Path], bool], prefer: str = "") -> list[Path]:
    """Every folder that fits, up to two levels below the data root; if any, only those named `prefer`."""
    found = [folder for folder in _folders(root, _DEPTH) if fits(folder)]
    return [folder for folder in found if folder.name == prefer] or found


def contains(*parts: str) -> Callable[[Path], bool]:
    """A test of a folder: whether all of these paths exist in it."""
    return lambda folder: all((folder / part).exists() for part in parts)


def existing_root(root: Path | None, name: str) -> Path:
    """The data root as a path.

    Raises:
        UserError: if none was given, or it is not a readable folder.
    """
    if root is None:
        raise UserError(
            f"{name} needs a data root; give --data-root DIR (--root DIR for audit) or set SEGSTRAT_DATA"
        )
    _subfolders(root)
    return root


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth > 0:
        for child in _subfolders(folder):
            yield from _folders(child, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")
            )
    except OSError as error:
        raise UserError(
            f"folder {folder} cannot be read ({error.strerror}); give a readable data root"
        ) from error
