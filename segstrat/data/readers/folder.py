"""Any folder of images and label maps, described by a `dataset.toml` in it."""

import difflib
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from segstrat.config import OWN_DATA, TASKS
from segstrat.data.dataset import VOID
from segstrat.data.files import Item, LabelFile, read_ids
from segstrat.data.images import SUFFIXES, ImageFiles, ImageFormat, header
from segstrat.data.labels import LARGEST_VALUE, ColorLabels, IndexPng, label_values
from segstrat.data.labels import SUFFIXES as LABEL_SUFFIXES
from segstrat.data.readers import existing_root
from segstrat.errors import UserError, unknown_name
from segstrat.tasks import Task

_TOP = ("name", "root", "images", "image_suffix", "image_max", "orientation", "flip", "splits", "tasks")
_SPLITS = ("train", "val", "test")
_TASK = ("labels", "label_suffix", "classes", "values", "colors", "ignore", "swap")
_ORIENTATIONS = ("auto", "upright", "stored")
SPLIT = "{split}"
"""Stands for the folder of a split in the paths of images and labels."""

SAMPLE = 64


@dataclass(frozen=True)
class LabelFolder:
    """Where the label maps of a task are, and how they are decoded.

    Args:
        path: folder, perhaps with `SPLIT`.
        suffix: what follows the id in the name of a file, perhaps with the format: `_mask`, `_mask.png`.
    """

    path: str
    suffix: str
    decode: IndexPng | ColorLabels


@dataclass(frozen=True)
class FolderData:
    """What a `dataset.toml` describes.

    Args:
        base: the folder that all other paths are relative to.
        images: folder of the images, perhaps with `SPLIT`.
        splits: split -> its list of ids, or the name of its folder where `images` has `SPLIT`.
        flip: whether training may mirror images.
    """

    name: str
    root: Path
    base: Path
    images: str
    image_suffix: str
    splits: dict[str, str]
    tasks: dict[str, Task]
    labels: dict[str, LabelFolder]
    format: ImageFormat
    flip: bool

    def items(self, split: str) -> list[Item]:
        """Items of a split; each is labelled for every task that has a file with its id, at least one.

        Raises:
            UserError: for a list that cannot be read, two files of one id, or a file that is image and label.
        """
        files = _SplitFiles(self, self.folder(split))
        return [files.item(name) for name in self.names(split, files.images)]

    def names(self, split: str, images: ImageFiles) -> list[str]:
        """The ids of a split: of its list, or all in its folder."""
        listed = self.base / self.splits[split]
        if SPLIT not in self.images or listed.is_file():
            return list(read_ids(listed, lambda name: bool(images.named(name + self.image_suffix))))
        labels = {labels.suffix.partition(".")[0] for labels in self.labels.values()} - {
            "",
            self.image_suffix,
        }
        names = [name for name in images.names() if not name.endswith(tuple(labels))]
        ends = len(self.image_suffix)
        found = [name[: len(name) - ends] for name in names if name.endswith(self.image_suffix)]
        if not found:
            raise UserError(
                f"{images.folder} has no images ({', '.join(SUFFIXES)}); they are those of {split}"
            )
        return found

    def folder(self, split: str) -> str:
        """What `SPLIT` stands for; empty where every split has a list."""
        if SPLIT not in self.images:
            return ""
        return split if (self.base / self.splits[split]).is_file() else self.splits[split]


class _SplitFiles:
    """The files of one split."""

    def __init__(self, data: FolderData, folder: str) -> None:
        self._data, self._folder = data, folder
        self.images = ImageFiles(data.base / data.images.replace(SPLIT, folder))
        self._labels = {
            task: ImageFiles(data.base / labels.path.replace(SPLIT, folder), LABEL_SUFFIXES)
            for task, labels in data.labels.items()
        }

    def item(self, name: str) -> Item:
        """The files of an id."""
        found = {task: self._label(task, name) for task in self._labels}
        labels = [path for path in found.values() if path is not None]
        image = self.images.find(name + self._data.image_suffix, apart_from=labels)
        if not image.exists() and any(path.parent == image.parent for path in labels):
            alike = [path for path in labels if path.stem == image.stem]
            if alike:
                raise UserError(
                    f"{alike[0]} is the label of the id {name}, and there is no other file that could be its "
                    "image; name the folders of images and labels, or tell them apart by label_suffix"
                )
        # Two splits may have files of the same name.
        unique = f"{self._folder}/{name}" if self._folder else name
        files = {
            task: LabelFile(path or self._missing(task, name), self._data.labels[task].decode)
            for task, path in found.items()
            # Without any label file, all stay: the first is then reported as missing.
            if path is not None or not labels
        }
        return Item(unique, image, files, self._data.format)

    def _label(self, task: str, name: str) -> Path | None:
        files, labels = self._labels[task], self._data.labels[task]
        stem, dot, wanted = labels.suffix.partition(".")
        found = files.named(name + stem)
        if dot:
            found = [path for path in found if path.suffix.lower() == f".{wanted.lower()}"]
        if len(found) > 1:
            raise UserError(
                f"{files.folder} has two files that may be the label of the id {name}: {found[0].name} and "
                f"{found[1].name}; keep one, or give the format in label_suffix, for example "
                f'label_suffix = "{stem}.png"'
            )
        return found[0] if found else None

    def _missing(self, task: str, name: str) -> Path:
        stem, _, wanted = self._data.labels[task].suffix.partition(".")
        return self._labels[task].folder / f"{name}{stem}.{wanted or 'png'}"


def read(root: Path | None) -> FolderData:
    """Reads `dataset.toml` in the data root (docs/data.md shows one).

    Raises:
        UserError: if it is missing, is not TOML, or a key is missing, unknown or of another type.
    """
    path = existing_root(root, "protocol folder") / "dataset.toml"
    try:
        # Editors on Windows begin a file with a byte order mark.
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; it describes images, splits and classes, see docs/data.md"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not encoded as UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); see docs/data.md") from error
    _check_keys(content, _TOP, path, "")
    base = path.parent / _get(content, "root", str, path, "", default=".")
    images = _get(content, "images", str, path, "")
    tables = _get(content, "tasks", dict, path, "")
    labels, tasks = {}, {}
    for task, table in tables.items():
        prefix = f"tasks.{task}."
        if task not in TASKS:
            raise UserError(f"{path}: {unknown_name('task', task, TASKS)}")
        if not isinstance(table, dict):
            raise UserError(f"{path}: tasks.{task} must be a table with {', '.join(_TASK)}")
        _check_keys(table, _TASK, path, prefix)
        tasks[task], decode = _task(task, table, path, prefix)
        where = _get(table, "labels", str, path, prefix)
        labels[task] = LabelFolder(where, _get(table, "label_suffix", str, path, prefix, default=""), decode)
    if not tasks:
        raise UserError(f"{path}: tasks is empty; add a table [tasks.semseg] with labels and classes")
    return FolderData(
        name=_get(content, "name", str, path, "", default=path.parent.name),
        root=path.parent,
        base=base,
        images=images,
        image_suffix=_get(content, "image_suffix", str, path, "", default=""),
        splits=_read_splits(content, images, base, path),
        tasks=tasks,
        labels=labels,
        format=_format(content, path),
        flip=_get(content, "flip", bool, path, "", default=True),
    )


def _read_splits(content: Mapping[str, Any], images: str, base: Path, path: Path) -> dict[str, str]:
    if SPLIT in images and "splits" not in content:
        found = {split: split for split in _SPLITS if (base / images.replace(SPLIT, split)).is_dir()}
        for split in ("train", "val"):
            if split not in found:
                raise UserError(
                    f"{path}: there is no folder {base / images.replace(SPLIT, split)} for images = "
                    f'{images!r}; name it, for example [splits] {split} = "{split}ing"'
                )
        return found
    splits = _get(content, "splits", dict, path, "")
    _check_keys(splits, _SPLITS, path, "splits.")
    return {
        split: _get(splits, split, str, path, "splits.")
        for split in _SPLITS
        if split in splits or split != "test"
    }


def _format(content: Mapping[str, Any], path: Path) -> ImageFormat:
    maximum = content.get("image_max")
    if maximum is not None and (
        isinstance(maximum, bool) or not isinstance(maximum, int | float) or not maximum > 0
    ):
        raise UserError(
            f"{path}: image_max must be the largest value of images of more than 8 bits, such as 4095, found "
            f"{maximum!r}"
        )
    orientation = _get(content, "orientation", str, path, "", default="auto")
    if orientation not in _ORIENTATIONS:
        raise UserError(f"{path}: orientation must be {', '.join(_ORIENTATIONS)}, found {orientation!r}")
    return ImageFormat(None if maximum is None else float(maximum), orientation)


def _task(
    name: str, table: Mapping[str, Any], path: Path, prefix: str
) -> tuple[Task, IndexPng | ColorLabels]:
    colors = _get(table, "colors", dict, path, prefix, default={})
    classes = _get(table, "classes", list, path, prefix, default=list(colors) or None)
    if len(classes) < 2 or not all(isinstance(label, str) and label.strip() for label in classes):
        raise UserError(f"{path}: {prefix}classes must be a list of at least two names")
    if len(classes) > VOID:
        raise UserError(f"{path}: {prefix}classes has {len(classes)} names; at most {VOID} are possible")
    twice = [label for label, count in Counter(classes).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {prefix}classes has {twice[0]!r} twice; give every class a name of its own")
    decode = _colors(table, classes, path, prefix) if colors else _values(table, classes, path, prefix)
    swap = table.get("swap")
    if swap is not None:
        _check_swap(swap, classes, path, prefix)
    return Task(name, classes, swap=swap, values=label_values(decode)), decode


def _values(table: Mapping[str, Any], classes: list[str], path: Path, prefix: str) -> IndexPng:
    values = tuple(_get(table, "values", list, path, prefix, default=list(range(len(classes)))))
    # 255 is void unless it is a class.
    ignore = tuple(_get(table, "ignore", list, path, prefix, default=[VOID] if VOID not in values else []))
    if len(values) != len(classes):
        raise UserError(
            f"{path}: {prefix}values has {len(values)} entries for {len(classes)} classes; give one per class"
        )
    if not all(type(value) is int and 0 <= value <= LARGEST_VALUE for value in (*values, *ignore)):
        raise UserError(f"{path}: {prefix}values and ignore must be whole numbers from 0 to {LARGEST_VALUE}")
    if len(set(values)) < len(values):
        twice = next(value for value, count in Counter(values).items() if count > 1)
        raise UserError(f"{path}: {prefix}values has {twice} twice; give every class a value of its own")
    if set(values) & set(ignore):
        raise UserError(f"{path}: {prefix}values and ignore share a value; remove it from one of them")
    return IndexPng(values, ignore)


def _colors(table: Mapping[str, Any], classes: list[str], path: Path, prefix: str) -> ColorLabels:
    colors, ignore = table["colors"], _get(table, "ignore", list, path, prefix, default=[])
    if set(classes) != set(colors):
        odd = sorted(set(classes) ^ set(colors))
        raise UserError(
            f"{path}: {prefix}colors and classes differ in {odd[0]!r}; give every class its color"
        )
    if "values" in table:
        raise UserError(f"{path}: {prefix}values and colors exclude each other; keep one of them")
    chosen = [tuple(color) if isinstance(color, list) else color for color in (*colors.values(), *ignore)]
    for color in chosen:
        if not (
            isinstance(color, tuple)
            and len(color) == 3
            and all(type(level) is int and 0 <= level <= 255 for level in color)
        ):
            raise UserError(
                f"{path}: {prefix}colors and ignore must be RGB such as [128, 64, 128], found {color!r}"
            )
    if len(set(chosen)) < len(chosen):
        twice = next(color for color, count in Counter(chosen).items() if count > 1)
        raise UserError(f"{path}: {prefix}colors and ignore have {list(twice)} twice; a color is one class")
    by_name = dict(zip(colors, chosen, strict=False))
    return ColorLabels(tuple(by_name[label] for label in classes), tuple(chosen[len(colors) :]))


def _check_swap(swap: Any, classes: list[str], path: Path, prefix: str) -> None:
    pairs = swap if isinstance(swap, list) else [swap]
    named = [name for pair in pairs if isinstance(pair, list) for name in pair]
    whole = all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    if not whole or len(set(map(str, named))) < len(named) or not set(map(str, named)) <= set(classes):
        raise UserError(
            f"{path}: {prefix}swap must be pairs of classes, each class once, such as "
            f'[["{classes[0]}", "{classes[1]}"]], found {swap!r}'
        )


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], path: Path, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"{path}: unknown key {prefix}{key}; {hint}Known: {', '.join(known)}.")


def _get(table: Mapping[str, Any], key: str, kind: type, path: Path, prefix: str, default: Any = None) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        names = {"str": "a string", "dict": "a table", "list": "a list", "bool": "true or false"}
        found = "it is missing" if value is None else f"found {value!r}"
        raise UserError(f"{path}: {prefix}{key} must be {names[kind.__name__]}, {found}; see docs/data.md")
    return value


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Of the training images: their number, and the median of their shorter sides in pixels."""

    train_images: int
    short_side: int


def image_facts(data: str, root: Path | None) -> ImageFacts | None:
    """The facts of a folder, from its lists and the headers of up to 64 images; None for other protocols.

    Raises:
        UserError: for a folder without `dataset.toml`, or a list that cannot be read.
    """
    if data != OWN_DATA:
        return None
    items = read(root).items("train")
    step = max(1, len(items) // SAMPLE)
    sides = [_short_side(item.image) for item in items[::step]]
    known = [side for side in sides if side]
    return ImageFacts(train_images=len(items), short_side=int(median(known)) if known else 0)


def _short_side(path: Path) -> int:
    try:
        return min(header(path).size)
    except UserError:  # the data check reports it, with all the others
        return 0
