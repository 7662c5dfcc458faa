"""PASCAL-Person-Part (Chen et al. 2014, 2016): six body parts of the people in VOC images.

Published as index PNGs; the raw annotation they were merged from, PASCAL-Part's `.mat` files, is read as
well, with the same result classes.
"""

from dataclasses import dataclass
from pathlib import Path

from segstrat.data.files import LabelFile, read_ids
from segstrat.data.labels import Decoder, IndexPng
from segstrat.data.layout import find_folder
from segstrat.data.readers import sbd
from segstrat.data.readers.pascal_part import PascalPartMat
from segstrat.tasks import Task

NAME = "PASCAL-Person-Part"
PARTS = Task(
    "parts",
    ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
)
LABELS = IndexPng(values=tuple(range(PARTS.num_classes)))

_DECODERS: dict[str, Decoder] = {".png": LABELS, ".mat": PascalPartMat()}
# The published archive keeps lists of ids and lists of paths, in a folder of their own.
_LISTS = ("{}_id.txt", "{}.txt", "pascal_person_part_trainval_list/{}_id.txt")


@dataclass(frozen=True)
class PersonPart:
    """Where the lists and the label files lie."""

    folder: Path
    labels: Path
    suffix: str

    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of `train` or `val`."""
        return _ids(self.folder, split)

    def label(self, name: str) -> LabelFile:
        """The `parts` label of an image."""
        return LabelFile(self.labels / f"{name}{self.suffix}", _DECODERS[self.suffix])


def png_label(folder: Path, name: str) -> LabelFile:
    """The `parts` label of an image in a folder of index PNGs."""
    return LabelFile(folder / f"{name}.png", LABELS)


def find(root: Path | None) -> PersonPart:
    """The data set under the data root: lists of ids, and beside them a folder of label files.

    Index PNGs are preferred where there are raw annotations too.
    """
    folder = find_folder(
        root,
        NAME,
        lambda folder: _labels(folder) is not None,
        "train_id.txt and val_id.txt beside a folder of index PNGs (or of raw .mat annotations)",
    )
    labels = _labels(folder)
    assert labels is not None
    return PersonPart(folder, *labels)


def _labels(folder: Path) -> tuple[Path, str] | None:
    """Folder and suffix of the label files that the lists in `folder` speak of."""
    if sbd.fits(folder) or not all(_list_file(folder, split) for split in ("train", "val")):
        return None
    first = _first_word(_list_file(folder, "train"))
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [(place, suffix) for suffix in _DECODERS for place in places if _is_label(place, first, suffix)]
    return found[0] if found else None


def _is_label(place: Path, name: str, suffix: str) -> bool:
    return place.name != "JPEGImages" and (place / f"{name}{suffix}").exists()


def _first_word(path: Path | None) -> str:
    words = path.read_text(encoding="utf-8", errors="replace").split(maxsplit=1) if path else []
    return words[0] if words else ""


def _ids(folder: Path, split: str) -> tuple[str, ...]:
    path = _list_file(folder, split)
    return read_ids(path or folder / f"{split}.txt")


def _list_file(folder: Path, split: str) -> Path | None:
    paths = (folder / pattern.format(split) for pattern in _LISTS)
    return next((path for path in paths if path.is_file()), None)
