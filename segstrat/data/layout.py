"""Where a published data set lies under the data root: by the folders it is made of, not by its parents' names."""

import os
from collections.abc import Iterator
from pathlib import Path

from segstrat.errors import UserError

MARKERS = {
    "VOC 2012": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt"),
    "SBD": ("img", "cls", "train.txt", "val.txt"),
    "LIP multi-person (CIHP)": ("Training/Images", "Training/Category_ids", "Validation/Images"),
}
"""What a folder holds that is the top of a data set."""

_DEPTH = 3
_CROWDED = 64


def find_layout(root: Path | None, name: str, prefer: str = "") -> Path:
    """The folder under `root` that has the layout of a data set.

    Args:
        root: the data root; the data set may be this folder itself or up to three levels below.
        name: a key of `MARKERS`.
        prefer: the folder's name that wins where several fit.

    Raises:
        UserError: if there is none, or several.
    """
    root = existing_root(root, name)
    found = [folder for folder in _folders(root, _DEPTH) if has_layout(folder, name)]
    preferred = [folder for folder in found if folder.name == prefer]
    found = preferred or found
    if not found:
        raise UserError(
            f"no {name} under {root}: expected a folder with {', '.join(MARKERS[name])}; "
            "see docs/data.md, or fetch it with `python -m segstrat.data.download`"
        )
    if len(found) > 1:
        raise UserError(
            f"{name} is there {len(found)} times under {root} ({found[0]}, {found[1]}); point the data root "
            "at one of them, or move the other away"
        )
    return found[0]


def has_layout(folder: Path, name: str) -> bool:
    """Whether the folder is the top of a data set of that name."""
    return all((folder / part).exists() for part in MARKERS[name])


def existing_root(root: Path | None, name: str) -> Path:
    """The data root as a path.

    Raises:
        UserError: if none was given, or it is no folder that can be read.
    """
    if root is None:
        raise UserError(f"{name} needs a data root; give --data-root DIR or set SEGSTRAT_DATA")
    root = Path(root)
    try:
        with os.scandir(root):
            return root
    except OSError as error:
        raise UserError(
            f"data root {root} cannot be read ({error.strerror}); give an existing folder"
        ) from error


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            # Image folders hold thousands of files and no data set: a look at the first entries tells.
            children = []
            for count, entry in enumerate(entries):
                if count >= _CROWDED and not children:
                    break
                if entry.is_dir() and not entry.name.startswith("."):
                    children.append(Path(entry.path))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); mend it or its permissions") from error
    for child in sorted(children):
        yield from _folders(child, depth - 1)
