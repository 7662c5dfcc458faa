"""Data protocols: which images, labels and splits a study trains and validates on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segstrat.data import boundaries
from segstrat.data.cache.decoded import cached
from segstrat.data.dataset import Concat, Dataset, Subset, hash_strings, nested_indices
from segstrat.data.files import FileDataset
from segstrat.data.palette import voc_palette
from segstrat.data.sources import PROTOCOLS, Group
from segstrat.errors import UserError, unknown_name
from segstrat.tasks import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class DataProtocol:
    """Training and validation data, ready to read.

    Args:
        name: key in `PROTOCOLS`, or the name in a folder's `dataset.toml`.
        test: images used neither for training nor for selection, where the source has them.
        tasks: task name -> `Task`, in the requested order.
        palette: (256, 3) uint8 RGB colors of the labels of any task.
        synthetic: whether the images were drawn by a program.
        digest: of everything that is read: files, sizes, reader version, chosen subset.
        sources: name of a published data set -> folder it was found in.
        official: split -> number of images in the publication, for the splits that are used whole.
        parts: digests of all that is decoded, `<part>-<digest>` with part `image` or a task.
        flip: whether training may mirror images.
        files: the files behind each split, before a share of them is chosen.
        own: whether a user described the data in a `dataset.toml`.
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
    parts: frozenset[str] = frozenset()
    flip: bool = True
    files: Mapping[str, Sequence[FileDataset]] = field(default_factory=dict)
    own: bool = False

    @property
    def image_max(self) -> float | None:
        """The value that becomes 255 in images of more than 8 bits, where `dataset.toml` states one."""
        items = [item for datasets in self.files.values() for part in datasets for item in part.items[:1]]
        return items[0].format.maximum if items else None


def build_protocol(
    name: str,
    root: str | Path | None = None,
    *,
    tasks: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    verify: bool = False,
) -> DataProtocol:
    """The data of a protocol.

    Args:
        name: one of `PROTOCOLS`.
        root: the data root; `figures` needs none.
        tasks: tasks to read, all of the source if not given; images labelled for none of them are left
            out. `boundaries` is available wherever `semseg` is labelled.
        cache_dir: folder of decoded data, filled if necessary; None decodes at every read.
        progress: draw progress bars on the console.
        verify: compare the checksums of decoded data, and build again what is damaged.

    Raises:
        UserError: for an unknown name, data that is missing or incomplete, or a task without labels.
    """
    if name not in PROTOCOLS:
        raise unknown_name("data protocol", name, PROTOCOLS)
    cache_path = None if cache_dir is None else Path(cache_dir)
    source = PROTOCOLS[name](None if root is None else Path(root), cache_path)
    chosen = _choose_tasks(name, source.tasks, tasks)
    splits = {
        split: _file_datasets(groups, chosen, name, split)
        for split, groups in (("train", source.train), ("val", source.val), ("test", source.test))
        if groups
    }
    files = [part for split in splits.values() for part in split]
    decoded: dict[FileDataset, Dataset] = {part: part for part in files}
    if cache_path is not None:
        # Test images are read at most once, which is not worth the space.
        kept = [part for split in ("train", "val") for part in splits[split]]
        decoded |= zip(kept, cached(kept, cache_path, progress=progress, verify=verify), strict=True)
    joined = {split: _join([decoded[part] for part in parts]) for split, parts in splits.items() if parts}
    train = everything = joined["train"]
    if source.portion != 1.0:
        train = Subset(train, nested_indices(train.ids, source.portion, seed=0))
    return DataProtocol(
        name=source.name or name,
        train=train,
        val=joined["val"],
        test=joined.get("test"),
        tasks=chosen,
        palette=voc_palette(),
        synthetic=source.synthetic,
        digest=hash_strings([train.digest, joined["val"].digest, *_mirroring(source.flip, chosen)]),
        sources=dict(source.folders),
        official={
            split: count
            for split, count in source.official.items()
            if split != "train" or train is everything
        },
        parts=frozenset(f"{part}-{key}" for dataset in files for part, key in dataset.parts.items()),
        flip=source.flip,
        files=splits,
        own=source.own,
    )


def _mirroring(flip: bool, tasks: Mapping[str, Task]) -> list[str]:
    """What `dataset.toml` says about mirrored images, nothing where it says nothing."""
    swaps = [f"{name} {task.swap}" for name, task in tasks.items() if task.swap is not None]
    return [*swaps, *([] if flip else ["never mirrored"])]


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


def _file_datasets(
    groups: Sequence[Group], tasks: Mapping[str, Task], name: str, split: str
) -> list[FileDataset]:
    if "boundaries" in tasks:
        groups = [[boundaries.derive(item) for item in group] for group in groups]
    num_classes = {task: kind.num_classes for task, kind in tasks.items()}
    datasets = [FileDataset(group, tuple(tasks), num_classes) for group in groups]
    labelled = {task for dataset in datasets for task in dataset.tasks}
    for task in tasks:
        # Not every protocol has test images.
        if task not in labelled and split != "test":
            raise UserError(
                f"protocol {name}: no image of {split} is labelled for {task}; leave that task out"
            )
    return [dataset for dataset in datasets if len(dataset)]


def _join(datasets: Sequence[Dataset]) -> Dataset:
    return datasets[0] if len(datasets) == 1 else Concat(datasets)
