"""Overlaps of published split lists: training images of one task may be validation images of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segstrat.data.readers import lip, person_part, sbd, search, voc


@dataclass(frozen=True)
class Overlap:
    """Images that two lists share.

    Args:
        common: number of ids in both.
        left_only: number of ids in the left list alone.
        published: the two numbers for the published lists.
    """

    left: str
    right: str
    common: int
    left_only: int
    published: tuple[int, int]


PUBLISHED = {
    ("SBD train", "SBD val"): (0, 8498),
    ("VOC train", "SBD train"): (1133, 331),
    ("VOC train", "SBD val"): (1, 1463),
    ("VOC train", "SBD"): (1134, 330),
    ("VOC val", "SBD train"): (545, 904),
    ("VOC val", "SBD val"): (558, 891),
    ("VOC val", "SBD"): (1103, 346),
    ("trainaug", "VOC val"): (0, 10582),
    ("trainaug", "Person-Part val"): (1570, 9012),
    ("Person-Part val", "SBD train"): (911, 906),
    ("Person-Part train", "SBD val"): (2, 1714),
    ("Person-Part train", "VOC val"): (0, 1716),
    ("CIHP train", "CIHP val"): (0, 28280),
}
"""(left, right) -> (ids in both, ids in left alone), computed from the published lists."""


def overlaps(lists: Mapping[str, frozenset[str]]) -> list[Overlap]:
    """One row for every published pair whose two lists are there."""
    return [
        Overlap(left, right, len(lists[left] & lists[right]), len(lists[left] - lists[right]), published)
        for (left, right), published in PUBLISHED.items()
        if left in lists and right in lists
    ]


def published_lists(root: Path) -> dict[str, frozenset[str]]:
    """The split lists of every published data set under the data root, by the names of `PUBLISHED`."""
    lists: dict[str, frozenset[str]] = {}
    for split in ("train", "val"):
        for folder in search(root, voc.fits, prefer=voc.FOLDER)[:1]:
            lists[f"VOC {split}"] = frozenset(voc.ids(folder, split))
        for folder in search(root, sbd.fits)[:1]:
            lists[f"SBD {split}"] = frozenset(sbd.ids(folder, split))
        for folder in search(root, person_part.fits)[:1]:
            lists[f"Person-Part {split}"] = frozenset(person_part.ids(folder, split))
        for folder in search(root, lip.fits)[:1]:
            lists[f"CIHP {split}"] = frozenset(lip.ids(folder, split))
    if "SBD train" in lists:
        lists["SBD"] = lists["SBD train"] | lists["SBD val"]
    if "SBD" in lists and "VOC train" in lists:
        lists["trainaug"] = (lists["VOC train"] | lists["SBD"]) - lists["VOC val"]
    return lists
