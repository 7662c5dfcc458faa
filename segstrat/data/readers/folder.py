"""Any folder of images and index-PNG masks, described by a `dataset.toml` in it."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image, UnidentifiedImageError

from segstrat.data.dataset import VOID
from segstrat.data.files import Item, LabelFile, find_image, read_ids
from segstrat.data.labels import IndexPng
from segstrat.data.readers import existing_root
from segstrat.errors import UserError
from segstrat.tasks import Task

_TOP = ("name", "root", "images", "splits", "tasks")
_SPLITS = ("train", "val", "test")
_TASK = ("labels", "classes", "values", "ignore")


SAMPLE = 64


@dataclass(frozen=True)
class FolderData:
    """What a `dataset.toml` describes; paths are relative to its folder."""

    name: str
    root: Path
    images: Path
    splits: dict[str, Path]
    tasks: dict[str, Task]
    labels: dict[str, tuple[Path, IndexPng]]

    def items(self, split: str) -> list[Item]:
        """Items of a split; each is labelled for every task that has a file with its id, at least one."""
        return [self._item(name) for name in read_ids(self.splits[split])]

    def _item(self, name: str) -> Item:
        files = {
            task: LabelFile(folder / f"{name}.png", decode) for task, (folder, decode) in self.labels.items()
        }
        present = {task: file for task, file in files.items() if file.path.exists()}
        # Without any label file, all stay: the first is then reported as missing.
        return Item(name, find_image(self.images, name), present or files)


def read(root: Path | None) -> FolderData:
    """Reads `dataset.toml` in the data root (docs/data.md shows one).

    Raises:
        UserError: if it is missing, is not TOML, or a key is missing, unknown or of another type.
    """
    path = existing_root(root, "protocol folder") / "dataset.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; it describes images, splits and classes, see docs/data.md"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); see docs/data.md") from error
    _check_keys(content, _TOP, path, "")
    base = path.parent / _get(content, "root", str, path, "", default=".")
    splits = _get(content, "splits", dict, path, "")
    _check_keys(splits, _SPLITS, path, "splits.")
    tables = _get(content, "tasks", dict, path, "")
    labels, tasks = {}, {}
    for task, table in tables.items():
        prefix = f"tasks.{task}."
        if not isinstance(table, dict):
            raise UserError(f"{path}: tasks.{task} must be a table with {', '.join(_TASK)}")
        _check_keys(table, _TASK, path, prefix)
        tasks[task], decode = _task(task, table, path, prefix)
        labels[task] = (base / _get(table, "labels", str, path, prefix), decode)
    if not tasks:
        raise UserError(f"{path}: tasks is empty; add a table [tasks.semseg] with labels and classes")
    return FolderData(
        name=_get(content, "name", str, path, "", default=path.parent.name),
        root=path.parent,
        images=base / _get(content, "images", str, path, ""),
        splits={
            split: base / _get(splits, split, str, path, "splits.")
            for split in _SPLITS
            if split in splits or split != "test"
        },
        tasks=tasks,
        labels=labels,
    )


def _task(name: str, table: Mapping[str, Any], path: Path, prefix: str) -> tuple[Task, IndexPng]:
    classes = _get(table, "classes", list, path, prefix)
    values = tuple(_get(table, "values", list, path, prefix, default=list(range(len(classes)))))
    ignore = tuple(_get(table, "ignore", list, path, prefix, default=[VOID]))
    if len(classes) < 2 or not all(isinstance(label, str) for label in classes):
        raise UserError(f"{path}: {prefix}classes must be a list of at least two names")
    if len(values) != len(classes):
        raise UserError(
            f"{path}: {prefix}values has {len(values)} entries for {len(classes)} classes; give one per class"
        )
    if not all(type(value) is int and 0 <= value <= 255 for value in (*values, *ignore)):
        raise UserError(f"{path}: {prefix}values and ignore must be whole numbers from 0 to 255")
    if len(set(values) | set(ignore)) < len(values) + len(set(ignore)):
        raise UserError(f"{path}: {prefix}values and ignore share a value; remove it from one of them")
    return Task(name, classes), IndexPng(values, ignore)


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], path: Path, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"{path}: unknown key {prefix}{key}; {hint}Known: {', '.join(known)}.")


def _get(table: Mapping[str, Any], key: str, kind: type, path: Path, prefix: str, default: Any = None) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        expected = {"str": "a string", "dict": "a table", "list": "a list"}[kind.__name__]
        found = "it is missing" if value is None else f"found {value!r}"
        raise UserError(f"{path}: {prefix}{key} must be {expected}, {found}; see docs/data.md")
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
    if data != "folder":
        return None
    described = read(root)
    names = read_ids(described.splits["train"])
    step = max(1, len(names) // SAMPLE)
    sides = [_short_side(find_image(described.images, name)) for name in names[::step]]
    known = [side for side in sides if side]
    return ImageFacts(train_images=len(names), short_side=int(median(known)) if known else 0)


def _short_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, UnidentifiedImageError):  # the data check reports it, with all the others
        return 0
