"""PASCAL-Person-Part (Chen et al. 2014, 2016): six body parts of the people in VOC images.

Published as index PNGs; the original annotation that they were merged from, PASCAL-Part's `.mat` files, can
be read as well, with the same classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segstrat.data.files import LabelFile, read_ids
from segstrat.data.labels import Decoder, IndexPng, load_matlab
from segstrat.data.readers import find_folder, sbd
from segstrat.errors import UserError
from segstrat.tasks import Task

NAME = "PASCAL-Person-Part"
PARTS = Task(
    "parts",
    ("background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"),
)
LABELS = IndexPng(values=tuple(range(PARTS.num_classes)))
# The published archive keeps lists of ids and lists of paths, in a separate folder.
_LISTS = ("{}_id.txt", "{}.txt", "pascal_person_part_trainval_list/{}_id.txt")
MERGED = {
    **dict.fromkeys(("head", "hair", "nose", "mouth"), 1),
    **dict.fromkeys(("leye", "reye", "lear", "rear", "lebrow", "rebrow"), 1),
    **dict.fromkeys(("torso", "neck"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), 6),
}
"""Part of a person in PASCAL-Part -> class of PASCAL-Person-Part."""


@dataclass(frozen=True)
class PascalPartMat:
    """Decodes the people of an annotation; everything else, and pixels without a part, is background."""

    def __call__(self, path: Path) -> np.ndarray:
        """(H, W) uint8 classes 0–6.

        Raises:
            UserError: if the file is damaged, or a person has an unknown part.
        """
        annotation = load_matlab(path, "anno")
        try:
            return _merge(annotation["objects"][0, 0].ravel(), path)
        except (ValueError, IndexError, AttributeError) as error:
            raise UserError(f"{path} is not a PASCAL-Part annotation ({error}); download it again") from error


def _merge(objects: np.ndarray, path: Path) -> np.ndarray:
    labels_HW = np.zeros(objects[0]["mask"].shape, dtype=np.uint8)
    for annotated in objects:
        if str(annotated["class"].item()) != "person":
            continue
        for part in annotated["parts"].ravel():
            name = str(part["part_name"].item())
            if name not in MERGED:
                raise UserError(f"{path}: a person has the part {name!r}; known are {', '.join(MERGED)}")
            labels_HW[part["mask"] > 0] = MERGED[name]
    return labels_HW


_DECODERS: dict[str, Decoder] = {".png": LABELS, ".mat": PascalPartMat()}


@dataclass(frozen=True)
class PersonPart:
    """The folders of the lists and the label files."""

    folder: Path
    labels: Path
    suffix: str

    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of `train` or `val`."""
        return ids(self.folder, split)

    def label(self, name: str) -> LabelFile:
        """The `parts` label of an image."""
        return LabelFile(self.labels / f"{name}{self.suffix}", _DECODERS[self.suffix])


def png_label(folder: Path, name: str) -> LabelFile:
    """The `parts` label of an image in a folder of index PNGs."""
    return LabelFile(folder / f"{name}.png", LABELS)


def find(root: Path | None) -> PersonPart:
    """The data set under the data root: lists of ids, and next to them a folder of label files.

    Index PNGs are preferred where there are original annotations as well.
    """
    expected = "train_id.txt and val_id.txt next to a folder of index PNGs (or of original .mat annotations)"
    folder = find_folder(root, NAME, fits, expected)
    return PersonPart(folder, *_label_folders(folder)[0])


def fits(folder: Path) -> bool:
    """Whether a folder has the lists, and next to them label files of their first id."""
    return not sbd.fits(folder) and bool(_label_folders(folder))


def ids(folder: Path, split: str) -> tuple[str, ...]:
    """Ids of `train` or `val`."""
    return read_ids(_list_file(folder, split) or folder / f"{split}.txt")


def _label_folders(folder: Path) -> list[tuple[Path, str]]:
    """Folders and suffixes of the label files that the lists name, index PNGs first."""
    lists = [_list_file(folder, split) for split in ("train", "val")]
    if lists[0] is None or lists[1] is None:
        return []
    # Lists of other data sets may be read here as well, so their contents are not checked.
    first = lists[0].read_text(encoding="utf-8", errors="replace").strip().partition("\n")[0].strip()
    folders = [
        folder,
        *sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "JPEGImages"),
    ]
    return [
        (path, suffix) for suffix in _DECODERS for path in folders if (path / f"{first}{suffix}").exists()
    ]


def _list_file(folder: Path, split: str) -> Path | None:
    paths = (folder / pattern.format(split) for pattern in _LISTS)
    return next((path for path in paths if path.is_file()), None)
