"""Data protocols: which images, labels and splits a study trains and validates on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs

from segstrat.data import boundaries, cache
from segstrat.data.dataset import Concat, Dataset, Subset, hash_strings, nested_indices
from segstrat.data.files import FileDataset, Item
from segstrat.data.layout import find_layout
from segstrat.data.palette import voc_palette
from segstrat.data.readers import folder, person_part, voc
from segstrat.errors import UserError, unknown_name
from segstrat.tasks import Task

Group = Sequence[Item]
"""Items of one source; a split that joins sources has several groups."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Every item of a protocol, before tasks are chosen and training images are left out."""

    train: Sequence[Group]
    val: Sequence[Group]
    test: Sequence[Group] = ()
    tasks: Mapping[str, Task]
    folders: Mapping[str, Path]
    official: Mapping[str, int] = field(default_factory=dict)
    name: str | None = None
    synthetic: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class DataProtocol:
    """Training and validation data, ready to read.

    Args:
        name: key in `PROTOCOLS`, or the name in a folder's `dataset.toml`.
        test: images that neither trained nor chose anything, where the source has them.
        tasks: task name -> `Task`, in the order that was asked for.
        palette: (256, 3) uint8 RGB colours of the labels of any task.
        synthetic: whether the images were drawn by a program.
        digest: of everything that is read: files, sizes, reader version, chosen subset.
        sources: name of a published data set -> folder it was found in.
        official: split -> number of images in the publication, where there is one.
        complete: whether all training images of the source are in use.
    """

    name: str
    train: Dataset
    val: Dataset
    test: Dataset | None
    tasks: dict[str, Task]
    palette: np.ndarray
    synthetic: bool
    digest: str
    sources: dict[str, Path]
    official: dict[str, int]
    complete: bool = True


def build_protocol(
    name: str,
    root: str | Path | None = None,
    *,
    tasks: Sequence[str] | None = None,
    label_fraction: float = 1.0,
    portion: float | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> DataProtocol:
    """The data of a protocol.

    Args:
        name: one of `PROTOCOLS`.
        root: the data root; `figures` needs none, and draws into its cache.
        tasks: tasks to read, all of the source if not given; images labelled for none of them are left
            out. `boundaries` is derived wherever `semseg` is labelled.
        label_fraction: share of the training images, in (0, 1]: subsets of one seed are nested.
        portion: share of the training images that the protocol itself has, the same for every seed (the
            thesis's first series: half of D1).
        seed: of the label fraction.
        cache_dir: folder of decoded data, built if need be; None decodes at every read.
        progress: draw progress bars on the console.

    Raises:
        UserError: for an unknown name, data that is missing or incomplete, or a task it has no labels for.
    """
    if name not in PROTOCOLS:
        raise unknown_name("data protocol", name, PROTOCOLS)
    cache_path = None if cache_dir is None else Path(cache_dir)
    source = PROTOCOLS[name](None if root is None else Path(root), cache_path)
    chosen = _choose_tasks(name, source.tasks, tasks)

    def split(groups: Sequence[Group], label: str) -> Dataset:
        parts = [FileDataset(_with_boundaries(group, chosen), tuple(chosen)) for group in groups]
        datasets: list[Dataset] = [part for part in parts if len(part)]
        if not datasets:
            raise UserError(f"protocol {name}: no {label} image is labelled for {', '.join(chosen)}")
        if cache_path is not None:
            datasets = [cache.cached(part, cache_path, progress=progress) for part in parts if len(part)]
        return datasets[0] if len(datasets) == 1 else Concat(datasets)

    train, val = split(source.train, "training"), split(source.val, "validation")
    test = split(source.test, "test") if source.test else None
    everything = len(train)
    if portion is not None:
        train = Subset(train, nested_indices(train.ids, portion, seed=0))
    if label_fraction != 1.0:
        train = Subset(train, nested_indices(train.ids, label_fraction, seed))
    return DataProtocol(
        name=source.name or name,
        train=train,
        val=val,
        test=test,
        tasks=chosen,
        palette=voc_palette(),
        synthetic=source.synthetic,
        digest=hash_strings([train.digest, val.digest]),
        sources=dict(source.folders),
        official=dict(source.official),
        complete=len(train) == everything,
    )


def _choose_tasks(name: str, available: Mapping[str, Task], tasks: Sequence[str] | None) -> dict[str, Task]:
    if tasks is None:
        return dict(available)
    offered = dict(available)
    if "semseg" in available:
        offered.setdefault("boundaries", boundaries.TASK)
    for task in tasks:
        if task not in offered:
            raise unknown_name(f"task of protocol {name}", task, offered)
    return {task: offered[task] for task in tasks}


def _with_boundaries(items: Group, tasks: Mapping[str, Task]) -> Group:
    return [boundaries.derive(item) for item in items] if "boundaries" in tasks else items


def _figures(root: Path | None, cache_dir: Path | None) -> Source:
    # Drawing code loads only where it is needed.
    from segstrat.data.figures import ensure_figures

    where = ensure_figures(root or cache_dir or Path(platformdirs.user_cache_dir("segstrat")))

    def co_labelled(split: str) -> Group:
        items = voc.items(where, voc.ids(where, split))
        return [
            Item(
                item.id,
                item.image,
                {**item.labels, "parts": person_part.label(where / "SegmentationPart", item.id)},
            )
            for item in items
        ]

    return Source(
        train=[co_labelled("train")],
        val=[co_labelled("val")],
        test=[co_labelled("test")],
        tasks={"semseg": voc.SEMSEG, "parts": person_part.PARTS},
        folders={"figures": where},
        synthetic=True,
    )


def _voc(root: Path | None, _: Path | None) -> Source:
    where = find_layout(root, "VOC 2012", prefer="VOC2012")
    return Source(
        train=[voc.items(where, voc.ids(where, "train"))],
        val=[voc.items(where, voc.ids(where, "val"))],
        tasks={"semseg": voc.SEMSEG},
        folders={"VOC 2012": where},
        official={"train": 1464, "val": 1449},
    )


def _folder(root: Path | None, _: Path | None) -> Source:
    described = folder.read(root)
    splits = {split: [described.items(split)] for split in described.splits}
    return Source(
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test", ()),
        tasks=described.tasks,
        folders={described.name: described.root},
        name=described.name,
    )


PROTOCOLS: dict[str, Callable[[Path | None, Path | None], Source]] = {
    "figures": _figures,
    "voc": _voc,
    "folder": _folder,
}
"""Name -> function of (data root, cache directory) that finds the items."""
