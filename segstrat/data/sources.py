"""The protocols of the thesis (ch. 3) and the others, as lists of files: name -> `Source`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segstrat.data.files import Item, LabelFile
from segstrat.data.readers import folder, lip, person_part, sbd, voc
from segstrat.tasks import Task

Group = Sequence[Item]
"""Items of one source; a split that combines sources has several groups."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Every item of a protocol, before tasks and training images are selected.

    Args:
        tasks: what the items are labelled for.
        folders: name of each published data set -> folder it was found in.
        official: split -> number of images in the publication.
        portion: share of the training images that the protocol uses.
        name: name of the data, where it has one besides the protocol's.
        synthetic: whether the images were drawn by a program.
        flip: whether training may mirror images.
        own: whether a user described the data in a `dataset.toml`.
    """

    train: Sequence[Group]
    val: Sequence[Group]
    test: Sequence[Group] = ()
    tasks: Mapping[str, Task]
    folders: Mapping[str, Path]
    official: Mapping[str, int] = field(default_factory=dict)
    portion: float = 1.0
    name: str | None = None
    synthetic: bool = False
    flip: bool = True
    own: bool = False


def figures(_: Path | None, cache_dir: Path | None) -> Source:
    """The embedded data, drawn into the cache on first use; a data root is only read."""
    # The drawing code is large, and only this protocol needs it.
    from segstrat.data.figures import CLASSES, PARTS, ensure_figures

    root = ensure_figures(cache_dir)
    semseg, parts = Task("semseg", CLASSES), Task("parts", PARTS)

    def split(name: str) -> list[Group]:
        items = voc.items(root, voc.ids(root, name), semseg)
        return [_add_parts(items, lambda name: person_part.png_label(root / "SegmentationPart", name))]

    return Source(
        train=split("train"),
        val=split("val"),
        test=split("test"),
        tasks={"semseg": semseg, "parts": parts},
        folders={"figures": root},
        synthetic=True,
    )


def voc_alone(root: Path | None, _: Path | None) -> Source:
    """VOC 2012 with its own split."""
    where = voc.find(root)
    return Source(
        train=[voc.items(where, voc.ids(where, "train"))],
        val=[voc.items(where, voc.ids(where, "val"))],
        tasks={"semseg": voc.SEMSEG},
        folders={voc.NAME: where},
        official={"train": 1464, "val": 1449},
    )


def d1(root: Path | None, _: Path | None) -> Source:
    """VOC train + all of SBD − VOC val, known as trainaug; VOC's label where an image has both."""
    voc_folder, sbd_folder = voc.find(root), sbd.find(root)
    train, val = voc.ids(voc_folder, "train"), voc.ids(voc_folder, "val")
    taken = {*train, *val}
    extra = [name for split in ("train", "val") for name in sbd.ids(sbd_folder, split) if name not in taken]
    return Source(
        train=[[*voc.items(voc_folder, train), *sbd.items(sbd_folder, extra)]],
        val=[voc.items(voc_folder, val)],
        tasks={"semseg": voc.SEMSEG},
        folders={voc.NAME: voc_folder, sbd.NAME: sbd_folder},
        official={"train": 10582, "val": 1449},
    )


def d1_half(root: Path | None, cache_dir: Path | None) -> Source:
    """Half of D1's training images, as in the thesis's first series; a random half, not the first half."""
    return replace(d1(root, cache_dir), portion=0.5)


def d2(root: Path | None, _: Path | None) -> Source:
    """LIP's multi-person portion with its own split."""
    where = lip.find(root)
    return Source(
        train=[lip.items(where, "train")],
        val=[lip.items(where, "val")],
        tasks={"parts": lip.PARTS},
        folders={lip.NAME: where},
        official={"train": 28280, "val": 5000},
    )


def d3(root: Path | None, _: Path | None) -> Source:
    """Images with both labels: Person-Part train ∩ SBD train, and val ∩ val."""
    sbd_folder, people = sbd.find(root), person_part.find(root)

    def split(name: str) -> list[Group]:
        both = set(sbd.ids(sbd_folder, name))
        items = sbd.items(sbd_folder, [image_id for image_id in people.ids(name) if image_id in both])
        return [_add_parts(items, people.label)]

    return Source(
        train=split("train"),
        val=split("val"),
        tasks={"semseg": voc.SEMSEG, "parts": person_part.PARTS},
        folders={sbd.NAME: sbd_folder, person_part.NAME: people.folder},
        official={"train": 1695, "val": 893},
    )


def d1_and_d2(root: Path | None, cache_dir: Path | None) -> Source:
    """D1 labelled for `semseg` and D2 labelled for `parts`, each image for one task."""
    first, second = d1(root, cache_dir), d2(root, cache_dir)
    return Source(
        train=[*first.train, *second.train],
        val=[*first.val, *second.val],
        tasks={**first.tasks, **second.tasks},
        folders={**first.folders, **second.folders},
        official={split: first.official[split] + second.official[split] for split in ("train", "val")},
    )


def described_folder(root: Path | None, _: Path | None) -> Source:
    """The data set that `dataset.toml` in the data root describes."""
    described = folder.read(root)
    splits = {split: [described.items(split)] for split in described.splits}
    return Source(
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test", ()),
        tasks=described.tasks,
        folders={described.name: described.root},
        name=described.name,
        flip=described.flip,
        own=True,
    )


PROTOCOLS: dict[str, Callable[[Path | None, Path | None], Source]] = {
    "figures": figures,
    "voc": voc_alone,
    "d1": d1,
    "d1-half": d1_half,
    "d2": d2,
    "d3": d3,
    "d1+d2": d1_and_d2,
    "folder": described_folder,
}
"""Name -> function of (data root, cache directory) that lists the files."""


def _add_parts(items: Iterable[Item], label: Callable[[str], LabelFile]) -> list[Item]:
    return [replace(item, labels={**item.labels, "parts": label(item.id)}) for item in items]
