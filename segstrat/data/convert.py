"""Exports of annotation tools as a folder data set.

    uv run python -m segstrat.data.convert FORMAT SOURCE --out DIR

FORMAT is a key of `FORMATS`. DIR gets a `dataset.toml`, split lists, label maps as index PNGs, and links to
the images. Nothing is left if the export has a fault: every label is decoded once before any is written.
docs/data.md states the rules; the command repeats those that it applied.
"""

import argparse
import base64
import binascii
import csv
import json
import math
import os
import random
import re
import shlex
import shutil
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, UnidentifiedImageError
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segstrat.atomic import creating_folder, is_temporary
from segstrat.commands import StrictParser, tracked
from segstrat.data.dataset import VOID, hash_strings
from segstrat.data.images import MOST_PIXELS, SUFFIXES, header
from segstrat.data.labels import LARGEST_VALUE, stored_colors, stored_labels
from segstrat.data.palette import label_palette
from segstrat.errors import UserError, listed, unknown_name
from segstrat.parallel import parallel_map

SPLITS = ("train", "val", "test")
MOST_CLASSES = VOID
ORIGIN = "source.json"
"""The file that says what a data set was made of."""
BACKGROUND = "background"

# Values that a reader gives to void pixels, beside the numbers and colors of an export.
CROWD, BOX, IGNORED, UNLABELED, NO_DATA = -1, -2, -3, -4, -5
VOID_REASONS = {
    CROWD: "crowds (iscrowd = 1)",
    BOX: "objects with a box, but without an outline",
    IGNORED: "regions marked to be ignored",
    UNLABELED: "pixels without a label",
    NO_DATA: "no data of a GeoTIFF",
}
COLOR = 1 << 24
"""Added to the RGB value of a label that is a color, so that it differs from every number."""
_FARTHEST = 1e6

_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLIT_WORDS |= {"dev": "val", "test": "test", "testing": "test"}
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "rgb", "input", "inputs")
_LABEL_FOLDERS: tuple[str, ...] = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt")
_LABEL_FOLDERS += ("segmentationclass", "segmentations", "segmentation", "groundtruth", "ground_truth")
_LABEL_SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask")
_BESIDE_SPLITS = {*_IMAGE_FOLDERS, *_LABEL_FOLDERS, "set", "data", "split"}
_VOID_NAMES = ("void", "ignore", "ignored", "__ignore__")

_PILLOW_SUFFIXES = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WEBP": ".webp",
}


@dataclass(frozen=True)
class Labelled:
    """An image of an export and how its label map is read.

    Args:
        name: path of the image in the export without what all paths share; the id is made from it.
        labels: the label map, (H, W) integers, in the values of `Export.classes` and `Export.void`.
        where: what the labels are read from, for messages.
        split: the export's own, one of `SPLITS`, or None.
    """

    name: str
    image: Path
    labels: Callable[[], np.ndarray]
    where: str
    split: str | None = None


@dataclass
class Export:
    """What a reader finds in an export.

    Args:
        classes: label value -> class name, in class order; None if the values that occur are the classes.
        void: label value -> why its pixels are void.
        legend: what names the classes, for messages.
        rules: sentences on how labels were read.
        skipped: reason -> what was left out.
    """

    items: list[Labelled] = field(default_factory=list)
    classes: Mapping[int, str] | None = None
    void: Mapping[int, str] = field(default_factory=dict)
    legend: str = "the export"
    rules: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, names: Sequence[str]) -> None:
        """Notes what is left out."""
        if names:
            self.skipped.setdefault(reason, []).extend(names)


@dataclass(frozen=True)
class Source:
    """The files of an export.

    Args:
        given: its folder, or the one file of it that was given instead.
        scratch: folder for images that are unpacked; gone in the end.
        options: the flags that only some formats have.
    """

    given: Path
    scratch: Path
    options: argparse.Namespace

    @property
    def file(self) -> Path | None:
        """The one file that was given instead of a folder."""
        return None if self.given.is_dir() else self.given

    @property
    def root(self) -> Path:
        """Folder of the export."""
        if self.given.is_dir():
            return self.given
        folder = self.given.parent
        return folder.parent if folder.name == "annotations" else folder

    @property
    def name(self) -> str:
        """Name of the data set that is made of it."""
        return _safe(self.given.stem if self.file else self.given.resolve().name)

    def digest(self) -> str:
        """Digest of the names, sizes and times of all files."""
        stats = [(str(file), (self.root / file).stat()) for file in self.files]
        return hash_strings(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        """Every file below `root`, relative to it, without hidden ones and other folder data sets."""
        found, seen = [], set()
        for folder, folders, names in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            # A link to a folder above would be followed for ever.
            folders[:] = [] if real in seen else [name for name in folders if _is_part(Path(folder, name))]
            names = [] if real in seen else [name for name in names if not name.startswith(".")]
            seen.add(real)
            found += [PurePosixPath(Path(folder, name).relative_to(self.root).as_posix()) for name in names]
        return tuple(sorted(found))

    @cached_property
    def by_name(self) -> dict[str, list[PurePosixPath]]:
        """Files by the last part of their path."""
        names = defaultdict(list)
        for file in self.files:
            names[file.name].append(file)
        return names

    @cached_property
    def by_lower_name(self) -> dict[str, list[PurePosixPath]]:
        """Files by the last part of their path in lower case."""
        names = defaultdict(list)
        for file in self.files:
            names[file.name.lower()].append(file)
        return names

    def having(self, *suffixes: str) -> list[PurePosixPath]:
        """Files with one of these suffixes, in any case; if one file was given, only that one."""
        if self.file and self.file.suffix.lower() in suffixes:
            return [PurePosixPath(self.file.relative_to(self.root).as_posix())]
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def find(self, name: str, where: str, split: str | None = None) -> Path:
        """The file that an annotation names; its path may begin anywhere in the export.

        Args:
            where: what names the file.
            split: of several files, the one in a folder of this split is meant.

        Raises:
            UserError: if there is none or more than one.
        """
        parts = tuple(part for part in re.split(r"[/\\]", name) if part not in ("", "."))
        last = parts[-1] if parts else ""
        # A path of another machine: only its end can be found here.
        foreign = bool(re.match(r"[/\\]|\w+:", name)) or ".." in parts
        # Phones write .JPG what tools call .jpg.
        candidates = self.by_name.get(last) or self.by_lower_name.get(last.lower(), [])
        ends = {file: _common_end(file.parts, parts) for file in candidates}
        longest = max(ends.values(), default=0)
        if longest == 0 or (longest < len(parts) and not foreign):
            alike = [file for file in self.files if file.stem == PurePosixPath(last).stem]
            hint = f" (found {alike[0]})" if alike else ""
            raise UserError(
                f"{where} names {name}, which is not below {self.root}{hint}; export with the images, or put "
                "the annotations into their folder"
            )
        found = [file for file, end in ends.items() if end == longest]
        beside = [file for file in found if str(file.parent) == str(PurePosixPath(where).parent)]
        of_split = [file for file in found if split and split_of(file) == split]
        found = found if len(found) == 1 else beside if len(beside) == 1 else of_split or found
        if len(found) > 1:
            raise UserError(
                f"{where} names {name}, but there is {found[0]} and {found[1]}; remove one, or give a part "
                "of the export as SOURCE"
            )
        return self.root / found[0]


def split_of(path: PurePosixPath) -> str | None:
    """The split that the innermost telling folder of a path stands for: `images/val2017/a.jpg` -> `val`."""
    for folder in reversed(path.parts[:-1]):
        words = [word for word in re.split(r"[^a-z]+", folder.lower()) if word]
        splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
        if len(splits) == 1 and set(words) <= _SPLIT_WORDS.keys() | _BESIDE_SPLITS:
            return splits.pop()
    return None


def _split_of_list(path: PurePosixPath) -> str | None:
    """The split of an annotation file or list: by its own name, else by its folder."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else split_of(path)


def _is_part(folder: Path) -> bool:
    other = folder.name.startswith(".") or folder.name == "__MACOSX" or is_temporary(folder.name)
    return not other and not (folder / "dataset.toml").exists()


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many of the last parts are the same, in any case."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    same = (a.lower() == b.lower() for a, b in pairs)
    return next((count for count, equal in enumerate(same) if not equal), min(len(first), len(second)))


def _name(path: PurePosixPath) -> str:
    """A path without suffix and without the folders that only say which split or kind of file it is."""
    kept = [part for part in path.parts[:-1] if part.lower() not in _BESIDE_SPLITS and not _is_split(part)]
    return "/".join([*kept, path.stem])


def _is_split(folder: str) -> bool:
    return split_of(PurePosixPath(folder, "_")) is not None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; check SOURCE") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a complete JSON file ({error}); export it again") from error


def _get(record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise UserError(f"{where}: {key} {found}, which is not what the format asks for; export it again")
    return value


def _size(height: Any, width: Any, path: Path) -> tuple[int, int]:
    """Height and width of a label map as its file states them; else those of the upright image."""
    if isinstance(height, int) and isinstance(width, int) and 0 < height * width <= MOST_PIXELS:
        return height, width
    return header(path).upright_size()


# --- COCO ---


def read_coco(source: Source) -> Export:
    """COCO's instances: polygons, RLE and crowds, rasterized by pycocotools."""
    export = Export(
        legend="its categories",
        void=VOID_REASONS,
        rules=[
            "where objects overlap, the one with fewer pixels is on top; of equal ones, the later one",
            "polygons of one object are united, as in COCO: a hole needs RLE",
            "images without annotations are background",
        ],
    )
    values = {BACKGROUND: 0}
    crowds, outlines = Counter[str](), Counter[str]()
    for file, content in _documents(source, "instances", _is_instances, "COCO annotations"):
        categories = _categories(content, str(file))
        for _, name in sorted(categories.items()):
            values.setdefault(name, len(values))
        shapes: dict[Any, list[tuple[int, Any]]] = defaultdict(list)
        images = {_get(image, "id", (int, str), f"{file}, an image"): image for image in content["images"]}
        for annotation in content["annotations"]:
            where = f"{file}, annotation {annotation.get('id', '?')}"
            key = _known(annotation, "image_id", images, where, "images")
            name = _known(annotation, "category_id", categories, where, "categories")
            crowd = annotation.get("iscrowd") == 1
            shape = _coco_shape(annotation, where)
            if shape is None:
                export.skip("annotations without outline and box", [where])
            elif isinstance(shape, np.ndarray):
                shapes[key].append((BOX, shape))
            else:
                (crowds if crowd else outlines)[name] += 1
                is_void = crowd and source.options.crowds != "objects"
                shapes[key].append((CROWD if is_void else values[name], shape))
        split = _split_of_list(file)
        for key, image in images.items():
            export.items.append(_coco_image(source, file, split, image, shapes.pop(key, [])))
    if not outlines and not crowds:
        raise UserError(
            f"no annotation below {source.root} has an outline, only boxes; export polygons or masks"
        )
    if crowds and source.options.crowds != "objects":
        export.rules.append(_crowd_rule(crowds, outlines))
    _skip_unnamed(export, source)
    export.classes = {value: name for name, value in values.items()}
    return export


def _skip_unnamed(export: Export, source: Source) -> None:
    named = {item.image for item in export.items}
    images = [file for file in source.files if file.suffix.lower() in SUFFIXES]
    export.skip("images without a label", [str(file) for file in images if source.root / file not in named])


def _documents(
    source: Source, prefix: str, accepts: Callable[[Any], bool], what: str
) -> Iterator[tuple[PurePosixPath, Any]]:
    """Annotation files and their contents; those with COCO's own name, if there are any."""
    files = source.having(".json")
    files = [file for file in files if file.name.startswith(f"{prefix}_")] or files
    found = False
    for file in files:
        content = _json(source.root / file)
        if accepts(content):
            found = True
            if not content["annotations"]:
                raise UserError(f"{source.root / file} has an empty list of annotations; export it again")
            yield file, content
    if not found:
        seen = f"none of {len(files)} JSON files is one" if files else "there is no JSON file"
        raise UserError(
            f"no {what} below {source.root}: {seen}; they have the keys images, annotations and categories"
        )


def _is_instances(content: Any) -> bool:
    return _is_coco(content) and not _is_panoptic(content)


def _is_panoptic(content: Any) -> bool:
    return _is_coco(content) and any("segments_info" in each for each in content["annotations"][:1])


def _is_coco(content: Any) -> bool:
    keys = ("images", "annotations", "categories")
    return isinstance(content, dict) and all(
        isinstance(content.get(key), list) and all(isinstance(each, dict) for each in content[key])
        for key in keys
    )


def _categories(content: Any, where: str) -> dict[Any, str]:
    """Category id -> class name."""
    named: dict[Any, str] = {}
    for category in content["categories"]:
        name = _get(category, "name", str, f"{where}, a category").strip()
        name = BACKGROUND if name.lower() in (BACKGROUND, "_background_") else name
        if name in named.values():
            raise UserError(f"{where} has two categories called {name}; rename one")
        named[_get(category, "id", int, f"{where}, category {name}")] = name
    return named


def _known(annotation: Any, key: str, known: Mapping[Any, Any], where: str, what: str) -> Any:
    """The image id, or the name of the category, that an annotation refers to."""
    value = annotation.get(key)
    if not isinstance(value, int | str) or value not in known:
        raise UserError(
            f"{where} has {key} {value}, which is not among its {len(known)} {what}; export it again"
        )
    return value if what == "images" else known[value]


def _coco_shape(annotation: Any, where: str) -> Any:
    """Outline of an object: polygons, or RLE; an array with its box where it has none; None without both."""
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        _get(outline, "counts", (list, str, bytes), where)
        _get(outline, "size", list, where)
        return outline
    if isinstance(outline, list) and outline:
        outline = outline if isinstance(outline[0], list) else [outline]
        for polygon in outline:
            if not _are_coordinates(polygon) or len(polygon) % 2:
                raise UserError(f"{where} has a polygon that is not a list of points x, y; export it again")
        # pycocotools takes four numbers for a box.
        polygons = [polygon for polygon in outline if len(polygon) >= 6]
        if polygons:
            return polygons
    box = annotation.get("bbox")
    return np.array([box], dtype=float) if _are_coordinates(box) and len(box) == 4 else None


def _are_coordinates(values: Any) -> bool:
    """Whether it is a list of finite numbers; pycocotools needs memory in proportion to the largest."""
    return isinstance(values, list) and all(
        isinstance(each, int | float) and abs(each) <= _FARTHEST for each in values
    )


def _coco_image(
    source: Source, file: PurePosixPath, split: str | None, image: Any, shapes: list[tuple[int, Any]]
) -> Labelled:
    name = image.get("file_name") or str(image.get("coco_url") or "").rpartition("/")[2]
    if not name:
        raise UserError(f"{file}: image {image.get('id')} has no file_name; export it again")
    path = source.find(name, str(file), split)
    height, width = _size(image.get("height"), image.get("width"), path)
    return Labelled(
        _name(PurePosixPath(path.relative_to(source.root).as_posix())),
        path,
        partial(_paint_coco, shapes, height, width, f"{file}, image {name}"),
        f"{file}, image {name},",
        split,
    )


def _paint_coco(shapes: list[tuple[int, Any]], height: int, width: int, where: str) -> np.ndarray:
    """Label map (H, W): void below all objects, large objects below small ones."""
    labels_HW = np.zeros((height, width), np.int32, order="F")
    layers = []
    for number, (value, shape) in enumerate(shapes):
        rle = _rle(shape, height, width, where)
        layers.append((value not in VOID_REASONS, -int(coco_mask.area(rle)), number, value, rle))
    for *_, value, rle in sorted(layers, key=lambda layer: layer[:3]):
        labels_HW[coco_mask.decode(rle).view(bool)] = value
    return labels_HW


def _rle(shape: Any, height: int, width: int, where: str) -> Any:
    if isinstance(shape, list):
        return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
    if isinstance(shape, np.ndarray):
        return coco_mask.frPyObjects(shape, height, width)[0]
    counts, size = shape["counts"], shape["size"]
    if size != [height, width]:
        raise UserError(f"{where} has an RLE of {size[-1]}×{size[0]} pixels, but is {width}×{height}")
    runs = counts if isinstance(counts, list) else _runs(counts)
    # pycocotools leaves the rest of a mask as the memory was, and does not say so.
    if sum(runs) != height * width or any(run < 0 for run in runs):
        raise UserError(
            f"{where} has an RLE of {sum(runs)} pixels, but {height * width} pixels; export it again"
        )
    return coco_mask.frPyObjects(shape, height, width) if isinstance(counts, list) else shape


def _runs(counts: str | bytes) -> list[int]:
    """Lengths of the runs of a compressed RLE.

    Each is written in groups of five bits, lowest first, and from the fourth on as the difference to the one
    two before (pycocotools, `rleFrString`).
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts.encode() if isinstance(counts, str) else counts:
        value |= ((byte - 48) & 0x1F) << shift
        shift += 5
        if (byte - 48) & 0x20:
            continue
        if (byte - 48) & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def _crowd_rule(crowds: Counter[str], outlines: Counter[str]) -> str:
    rule = f"{crowds.total():,} of {crowds.total() + outlines.total():,} outlines are crowds and become void"
    only = [name for name in crowds if not outlines[name]]
    if only or crowds.total() > outlines.total() / 4:
        alone = f", all of {', '.join(only)}" if only else ""
        rule += (
            f"{alone}: some tools export objects drawn with a brush so; if these are, add --crowds objects"
        )
    return rule


def read_panoptic(source: Source) -> Export:
    """COCO's panoptic PNGs, whose colors are segment numbers."""
    export = Export(legend="its categories", void=VOID_REASONS)
    values: dict[str, int] = {}
    for file, content in _documents(source, "panoptic", _is_panoptic, "panoptic COCO annotations"):
        categories = _categories(content, str(file))
        for _, name in sorted(categories.items()):
            values.setdefault(name, len(values))
        images = {_get(image, "id", (int, str), f"{file}, an image"): image for image in content["images"]}
        split = _split_of_list(file)
        for annotation in content["annotations"]:
            where = f"{file}, image {annotation.get('image_id', '?')}"
            image = images[_known(annotation, "image_id", images, where, "images")]
            segments = {0: UNLABELED}
            for segment in _get(annotation, "segments_info", list, where):
                name = _known(segment, "category_id", categories, where, "categories")
                is_void = segment.get("iscrowd") == 1 and source.options.crowds != "objects"
                segments[_get(segment, "id", int, where)] = CROWD if is_void else values[name]
            mask = _get(annotation, "file_name", str, where)
            # The PNGs are in a folder with the name of the JSON file.
            own = source.root / file.with_suffix("") / mask
            mask_path = own if own.exists() else source.find(mask, str(file), split)
            path = source.find(_get(image, "file_name", str, where), str(file), split)
            labels = partial(_read_panoptic, mask_path, segments)
            name = _name(PurePosixPath(path.relative_to(source.root).as_posix()))
            export.items.append(Labelled(name, path, labels, str(mask_path), split))
        labelled = {annotation["image_id"] for annotation in content["annotations"]}
        missing = [str(image.get("file_name")) for key, image in images.items() if key not in labelled]
        export.skip("images without a label", missing)
    export.classes = {value: name for name, value in values.items()}
    return export


def _read_panoptic(path: Path, segments: Mapping[int, int]) -> np.ndarray:
    rgb = _colors(path) - COLOR
    # COCO's segment number is R + 256 G + 256² B.
    numbers_HW = (rgb >> 16) + (rgb & 0xFF00) + ((rgb & 0xFF) << 16)
    numbers, inverse = np.unique(numbers_HW, return_inverse=True)
    for number in numbers.tolist():
        if number not in segments:
            raise UserError(
                f"{path} has a segment {number} that is not among its segments_info; export it again"
            )
    return np.array([segments[number] for number in numbers.tolist()])[inverse].reshape(numbers_HW.shape)


# --- labelme ---

_NO_AREA = ("line", "linestrip", "point", "points")


def read_labelme(source: Source) -> Export:
    """labelme's JSON files, one an image; shapes are drawn as labelme draws them."""
    export = Export(
        legend="its shapes",
        void=VOID_REASONS,
        rules=[
            "where shapes overlap, the later one is on top, as in labelme",
            "what no shape covers is background",
        ],
    )
    files = source.having(".json")
    documents = []
    for file in files:
        content = _json(source.root / file)
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            documents.append((file, content, _labelme_image(source, file, content)))
            content["imageData"] = None
        else:
            export.skip("JSON files without shapes", [str(file)])
    used = {name for file, content, _ in documents for name in _labelme_names(file, content)}
    if not used:
        raise UserError(f"no labelme shapes in {len(files)} JSON files below {source.root}")
    order = source.root / "labels.txt"
    listed = [line.strip() for line in _lines(order)] if order.exists() else []
    names = dict.fromkeys([BACKGROUND, *(name for name in listed if name in used), *sorted(used)])
    values = {name: value for value, name in enumerate(names)}
    export.classes = {value: name for name, value in values.items()}
    values |= {"_background_": 0} | dict.fromkeys(_VOID_NAMES, IGNORED)
    for file, content, path in documents:
        flat = [str(file) for shape in content["shapes"] if shape.get("shape_type") in _NO_AREA]
        export.skip("points and lines, which have no area", flat)
        height, width = _size(content.get("imageHeight"), content.get("imageWidth"), path)
        shapes = [(values[shape["label"].strip()], shape) for shape in content["shapes"]]
        labels = partial(_paint_labelme, shapes, height, width, str(file))
        export.items.append(Labelled(_name(file), path, labels, str(file), split_of(file)))
    _skip_unnamed(export, source)
    return export


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); export it again") from error
    return [line for line in lines if line.strip()]


def _labelme_names(file: PurePosixPath, content: Any) -> set[str]:
    names = {_get(shape, "label", str, f"{file}, a shape").strip() for shape in content["shapes"]}
    return names - {"_background_", *_VOID_NAMES}


def _labelme_image(source: Source, file: PurePosixPath, content: Any) -> Path:
    """The image file beside the labels; else the one that they contain."""
    name = _get(content, "imagePath", str, str(file)).replace("\\", "/")
    direct = source.root / file.parent / name
    if direct.is_file():
        return direct
    if isinstance(content.get("imageData"), str):
        try:
            data = base64.b64decode(content["imageData"], validate=True)
        except binascii.Error as error:
            raise UserError(f"{file}: imageData is damaged ({error}); export it again") from error
        return _unpack(source, data, _name(file), str(file))
    return source.find(name, str(file))


def _unpack(source: Source, data: bytes, name: str, where: str) -> Path:
    """Writes the content of an image file to the scratch folder."""
    try:
        with Image.open(BytesIO(data)) as image:
            suffix = _PILLOW_SUFFIXES.get(image.format or "")
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{where} contains an image that cannot be read; export it again") from error
    if suffix is None:
        raise UserError(f"{where} contains a {image.format} image; expected {', '.join(SUFFIXES)}")
    path = Path(mkdtemp(dir=source.scratch)) / f"{_safe(name)}{suffix}"
    path.write_bytes(data)
    return path


def _paint_labelme(shapes: list[tuple[int, Any]], height: int, width: int, where: str) -> np.ndarray:
    """Label map (H, W), drawn as `labelme.utils.shapes_to_label` draws."""
    canvas = Image.new("I", (width, height))
    draw = ImageDraw.Draw(canvas)
    for value, shape in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = [*_get(shape, "points", list, f"{where}, a shape")]
        if not all(_are_coordinates(point) and len(point) == 2 for point in points):
            raise UserError(f"{where} has a {kind} whose points are not pairs x, y; export it again")
        expected = {"circle": 2, "rectangle": 2, "mask": 2, "oriented_rectangle": 4}.get(kind)
        if len(points) != expected if expected else kind == "polygon" and len(points) < 3:
            raise UserError(f"{where} has a {kind} with {len(points)} points; correct it and save again")
        if kind in ("polygon", "oriented_rectangle"):
            draw.polygon([tuple(point) for point in points], fill=value, outline=value)
        elif kind == "rectangle":
            xs, ys = zip(*points, strict=True)
            draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=value, outline=value)
        elif kind == "circle":
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value, outline=value)
        elif kind == "mask":
            corner, opposite = ((int(x), int(y)) for x, y in points)
            canvas.paste(value, corner, _labelme_mask(shape, corner, opposite, where))
        elif kind not in _NO_AREA:
            raise UserError(
                f"{where} has a shape of type {kind}; expected polygon, rectangle, circle or mask"
            )
    return np.asarray(canvas)


def _labelme_mask(shape: Any, corner: tuple[int, int], opposite: tuple[int, int], where: str) -> Image.Image:
    data = _get(shape, "mask", str, f"{where}, a shape of type mask")
    try:
        with Image.open(BytesIO(base64.b64decode(data))) as image:
            bits_HW = np.asarray(image.convert("L")) > 0
    except (binascii.Error, UnidentifiedImageError, OSError) as error:
        raise UserError(f"{where} has a mask that cannot be read ({error}); save it again") from error
    width, height = opposite[0] - corner[0] + 1, opposite[1] - corner[1] + 1
    if bits_HW.shape != (height, width):
        raise UserError(
            f"{where} has a mask of {bits_HW.shape[1]}×{bits_HW.shape[0]} pixels in a box of {width}×{height}"
        )
    return Image.fromarray(bits_HW)


# --- Label images ---


def _numbers(path: Path) -> np.ndarray:
    """A label image as (H, W) integers: its numbers, its colors as `COLOR` + RGB, or `NO_DATA` and below."""
    stored, empty = stored_labels(path)
    if stored.ndim == 3:
        return _color(*np.moveaxis(stored.astype(np.int64), -1, 0))
    numbers_HW = stored.astype(np.int64)
    known_HW = numbers_HW[numbers_HW != empty]
    if known_HW.min(initial=0) < 0 or known_HW.max(initial=0) > LARGEST_VALUE:
        raise UserError(f"{path} has values beyond 0–{LARGEST_VALUE:,}; labels are class numbers")
    if empty is not None:
        numbers_HW[numbers_HW == empty] = _no_data(empty)
    return numbers_HW


def _no_data(value: int) -> int:
    """Stands for a value that a file declares to be no data: void, unless a list names it as a class."""
    return NO_DATA - 1 - value if 0 <= value <= LARGEST_VALUE else NO_DATA


def _colors(path: Path) -> np.ndarray:
    """A label image as (H, W) integers, `COLOR` + RGB, whatever its mode."""
    return _color(*np.moveaxis(stored_colors(path).astype(np.int64), -1, 0))


def _color(red: Any, green: Any, blue: Any) -> Any:
    return COLOR + (red << 16) + (green << 8) + blue


def read_cvat(source: Source) -> Export:
    """CVAT's "Segmentation mask 1.1": colors of `labelmap.txt`, VOC's folders."""
    maps = source.by_name.get("labelmap.txt", [])
    if len(maps) != 1:
        seen = "there is none" if not maps else f"there are {maps[0]} and {maps[1]}"
        raise UserError(f"{source.root}: expected one labelmap.txt of Segmentation mask 1.1, {seen}")
    export = _pairs(source, "JPEGImages", "SegmentationClass", "", "", _colors)
    _use_legend(export, source, maps[0])
    # Whatever its place in the list, class 0 is the background.
    classes = export.classes or {}
    first = sorted(classes, key=lambda color: classes[color].lower() != BACKGROUND)
    export.classes = {color: classes[color] for color in first}
    splits = _cvat_splits(source)
    if splits:
        by_name = {_cvat_name(item, source): item for item in export.items}
        absent = sorted(splits.keys() - by_name.keys())
        if absent:
            raise UserError(f"{source.root}: image {absent[0]} is listed, but has no label; export it again")
        export.items = [replace(by_name[name], split=split) for name, split in splits.items()]
        export.skip("images that no list names", sorted(by_name.keys() - splits.keys()))
    return export


def _cvat_name(item: Labelled, source: Source) -> str:
    path = _without(PurePosixPath(item.image.relative_to(source.root).as_posix()), "JPEGImages")
    return str(path.with_suffix("")) if path else item.name


def _cvat_splits(source: Source) -> dict[str, str | None]:
    """Image -> split, from the lists in `ImageSets/Segmentation`; empty if there are none."""
    lists = [file for file in source.having(".txt") if file.parts[-3:-1] == ("ImageSets", "Segmentation")]
    splits = {file: _split_of_list(file) for file in lists}
    # `trainval.txt` repeats the others; `default.txt` is all that there is.
    known = {file: split for file, split in splits.items() if split}
    found: dict[str, str | None] = {}
    for file, split in (known or splits).items():
        for line in _lines(source.root / file):
            name = line.strip().strip('"')
            if found.get(name, split) != split:
                raise UserError(f"{source.root / file}: image {name} is in {found[name]}, too; keep one")
            found[name] = split
    return found


def read_roboflow(source: Source) -> Export:
    """Roboflow's semantic masks: `x_mask.png` beside `x.jpg`, names in `_classes.csv`."""
    lists = source.by_name.get("_classes.csv", [])
    if not lists:
        raise UserError(f"{source.root} has no _classes.csv; export as semantic segmentation masks")
    for file in lists[1:]:
        if _legend(source.root / file) != _legend(source.root / lists[0]):
            raise UserError(f"{file} and {lists[0]} have different classes; export all splits together")
    export = _pairs(source, None, None, "", "_mask")
    _use_legend(export, source, lists[0])
    return export


# https://github.com/mcordts/cityscapesScripts, helpers/labels.py: the classes that are evaluated.
_CITYSCAPES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole"}
_CITYSCAPES |= {19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky"}
_CITYSCAPES |= {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"}
_CITYSCAPES |= {32: "motorcycle", 33: "bicycle"}


def read_cityscapes(source: Source) -> Export:
    """Cityscapes: its 19 evaluated classes, from labelIds or, where there are none, labelTrainIds."""
    kinds = [(folder, kind) for folder in ("gtFine", "gtCoarse") for kind in ("labelIds", "labelTrainIds")]
    found = [each for each in kinds if any(f.name.endswith(f"_{'_'.join(each)}.png") for f in source.files)]
    if not found:
        raise UserError(f"{source.root}: expected *_gtFine_labelIds.png or *_gtFine_labelTrainIds.png")
    folder, kind = found[0]
    export = _pairs(source, "leftImg8bit", folder, "_leftImg8bit", f"_{folder}_{kind}")
    # A name begins with its city.
    export.items = [replace(item, name=item.name.rpartition("/")[2]) for item in export.items]
    ids = _CITYSCAPES if kind == "labelIds" else dict(enumerate(_CITYSCAPES.values()))
    void = set(range(34)) - ids.keys() if kind == "labelIds" else {VOID}
    export.classes, export.void = ids, dict.fromkeys(void, "what Cityscapes does not evaluate")
    export.legend = "the table of Cityscapes"
    return export


def read_ade20k(source: Source) -> Export:
    """ADE20K as the Scene Parsing Benchmark publishes it: values 1–150, 0 is void."""
    export = _pairs(source, "images", "annotations", "", "")
    table = source.by_name.get("objectInfo150.txt")
    names = {value: f"class {value}" for value in range(1, 151)}
    if table:
        export.legend = str(table[0])
        rows = [line.split("\t") for line in _lines(source.root / table[0])[1:]]
        if not all(len(row) > 1 and row[0].strip().isdigit() for row in rows):
            raise UserError(f"{table[0]} is not the table of ADE20K: Idx, Ratio, Train, Val, Stuff, Name")
        synonyms = {int(row[0]): row[-1].strip() for row in rows}
        first = {value: text.split(",")[0].strip() for value, text in synonyms.items()}
        often = Counter(first.values())
        names = {value: text if often[text] == 1 else synonyms[value] for value, text in first.items()}
    else:
        export.rules.append("objectInfo150.txt is missing, so that classes are called by their numbers")
    export.classes, export.void = names, {0: "value 0, what has no class in the benchmark"}
    return export


def read_masks(source: Source) -> Export:
    """Images and label images in two folders, or beside each other with a suffix."""
    options = source.options
    export = _pairs(source, options.images, options.labels, options.image_suffix or "", options.label_suffix)
    _name_by_legend(export, source)
    return export


_LEGENDS = ("labelmap.txt", "_classes.csv", "class_dict.csv", "id2label.json", "classes.txt", "labels.txt")


def _name_by_legend(export: Export, source: Source) -> None:
    found = [source.by_name[name][0] for name in _LEGENDS if name in source.by_name]
    if found:
        _use_legend(export, source, found[0])
        export.void = {**_and_grey({VOID: f"value {VOID}"}), **export.void}
        export.void = {
            value: why for value, why in export.void.items() if value not in (export.classes or ())
        }
        export.rules.append(f"classes are named by {found[0]}")


def _use_legend(export: Export, source: Source, file: PurePosixPath) -> None:
    legend = _and_grey(_legend(source.root / file))
    void = {value for value, name in legend.items() if name.lower() in _VOID_NAMES}
    export.classes = {value: name for value, name in legend.items() if value not in void}
    export.void, export.legend = dict.fromkeys(void, VOID_REASONS[IGNORED]), str(file)


def _legend(path: Path) -> dict[int, str]:
    """Label value -> class name, from one of the lists that tools write.

    A name a line; `name:r,g,b`; JSON of number -> name; or CSV with a column for the name, and one for the
    value or three for the color.
    """
    if path.suffix == ".json":
        content = _json(path)
        if not isinstance(content, dict) or not all(str(key).isdigit() for key in content):
            raise UserError(f"{path} must map label values to class names")
        rows = [(int(key), str(name)) for key, name in content.items()]
    elif path.suffix == ".csv":
        rows = _csv_legend(path)
    else:
        rows = []
        for number, line in enumerate(line for line in _lines(path) if not line.startswith("#")):
            color = re.match(r"(.*?):(\d+),(\d+),(\d+)(?::|\s*$)", line)
            value = _color(*(int(each) for each in color.groups()[1:])) if color else number
            rows.append((value, (color[1] if color else line).strip()))
    for column in (0, 1):
        often = Counter(row[column] for row in rows)
        if twice := [name for value, name in rows if often[(value, name)[column]] > 1]:
            raise UserError(f"{path} has the name or value of {twice[-1]} twice; give each class its own")
    return dict(rows)


def _csv_legend(path: Path) -> list[tuple[int, str]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(_lines(path))]
    header, body = [cell.lower() for cell in rows[0]] if rows else [], rows[1:]
    names = [index for index, cell in enumerate(header) if "name" in cell or "class" in cell]
    colors = [header.index(cell) for cell in ("r", "g", "b") if cell in header]
    values = [index for index, cell in enumerate(header) if "value" in cell or cell in ("id", "index")]
    try:
        if len(colors) == 3:
            return [(_color(*(int(row[index]) for index in colors)), row[names[0]]) for row in body]
        return [(int(row[values[0]]), row[names[0]]) for row in body]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: expected columns with a class name and its value or r, g, b") from error


@dataclass(frozen=True)
class _Match:
    """Image -> label image; labels without image, images without label, and where labels are."""

    pairs: dict[PurePosixPath, PurePosixPath]
    alone: list[PurePosixPath]
    unlabelled: list[PurePosixPath]
    rule: str


def _pairs(
    source: Source,
    images: str | None,
    labels: str | None,
    image_suffix: str,
    label_suffix: str | None,
    decode: Callable[[Path], np.ndarray] = _numbers,
) -> Export:
    """Images with the label image of the same path; what was not given is found by the usual names.

    Args:
        images: folder of the images, somewhere in their path.
        labels: folder of the label images.
        label_suffix: end of the names of label images; None to find it.
    """
    files = source.having(*SUFFIXES)
    for given in (images, labels):
        if given and not any(_without(file, given) for file in files):
            raise UserError(f"{source.root} has no images in a folder {given}; export with images and labels")
    labels = labels or ("" if label_suffix else _most_used(files, _LABEL_FOLDERS))
    usual = ["", *_LABEL_SUFFIXES] if labels else list(_LABEL_SUFFIXES)
    tries = usual if label_suffix is None else [label_suffix]
    ways: list[tuple[str | None, str]] = [(labels, each) for each in tries]
    if not labels and label_suffix is None:
        ways.append((None, ""))
    best = _Match({}, [], [], "")
    for folder, suffix in ways:
        match = _match(files, images, folder, image_suffix, suffix)
        best = max(best, match, key=lambda each: len(each.pairs))
        if best.pairs and not best.alone and not best.unlabelled:
            break
    if not best.pairs:
        raise UserError(
            f"{source.root}: no image has a label of the same name; expected two folders such as images and "
            "masks, or labels with a suffix such as _mask (see --images, --labels, --label-suffix)"
        )
    if best.alone:
        raise UserError(
            f"{source.root / best.alone[0]} has no image of the same name ({len(best.alone)} such labels); "
            "add the images, or remove the labels"
        )
    export = Export(rules=[best.rule])
    for photo, mask in best.pairs.items():
        path = source.root / mask
        name = _name(photo.with_stem(photo.stem.removesuffix(image_suffix)))
        read = partial(decode, path)
        export.items.append(Labelled(name, source.root / photo, read, str(path), split_of(photo)))
    export.skip("images without a label", [str(file) for file in best.unlabelled])
    return export


def _match(
    files: Sequence[PurePosixPath],
    images: str | None,
    labels: str | None,
    image_suffix: str,
    label_suffix: str,
) -> _Match:
    """Pairs of the same path without folder and suffix.

    Args:
        labels: folder of the label images; empty if they are beside their images, and None if these are no
            PNGs, but all labels are.
    """
    if labels:
        inside = [file for file in files if _without(file, labels)]
    else:
        inside = [file for file in files if file.suffix.lower() == ".png" or labels == ""]
    masks = [file for file in inside if file.stem.endswith(label_suffix)]
    photos = sorted(set(files) - set(inside if labels else masks))
    folder = images or (_most_used(photos, _IMAGE_FOLDERS) if labels else "")
    photos = [file for file in photos if not folder or _without(file, folder)]
    photos = [file for file in photos if file.stem.endswith(image_suffix)]
    by_key = {_key(file, labels, label_suffix): file for file in masks}
    keys = {file: _key(file, folder, image_suffix) for file in photos}
    pairs = {file: by_key[key] for file, key in keys.items() if key in by_key}
    twice = [mask for mask, count in Counter(pairs.values()).items() if count > 1]
    if twice:
        first, second = [file for file, mask in pairs.items() if mask == twice[0]][:2]
        raise UserError(f"{first} and {second} are images of one label, {twice[0]}; remove one")
    where = f"in {labels}" if labels else "beside their images"
    rule = f"labels are {where}{f', with the suffix {label_suffix}' if label_suffix else ''}"
    alone = sorted(set(masks) - set(pairs.values()))
    return _Match(pairs, alone, [file for file in photos if file not in pairs], rule)


def _key(file: PurePosixPath, folder: str | None, suffix: str) -> tuple[str, str]:
    path = (_without(file, folder) if folder else file) or file
    return str(path.parent), path.stem.removesuffix(suffix)


@lru_cache(1 << 20)
def _without(file: PurePosixPath, folder: str) -> PurePosixPath | None:
    """The path without the folder's part, in any case, or None if it is not in there."""
    wanted = [part.lower() for part in PurePosixPath(folder).parts]
    for start in range(len(file.parts) - len(wanted)):
        if [part.lower() for part in file.parts[start : start + len(wanted)]] == wanted:
            return PurePosixPath(*file.parts[:start], *file.parts[start + len(wanted) :])
    return None


def _most_used(files: Sequence[PurePosixPath], names: Sequence[str]) -> str:
    counts = Counter(part.lower() for file in files for part in file.parts[:-1])
    best = max(names, key=lambda name: counts[name])
    return best if counts[best] else ""


# --- Hugging Face ---

_IMAGE_COLUMNS = ("image", "images", "img", "pixel_values")
_LABEL_COLUMNS = ("annotation", "label", "mask", "segmentation", "labels", "masks", "label_map", "semantic")


def read_huggingface(source: Source) -> Export:
    """Parquet files with a column of images and one of label images, as bytes or paths."""
    files = source.having(".parquet")
    if not files:
        raise UserError(f"{source.root} has no .parquet file")
    export = Export()
    for file in files:
        split = _split_of_list(file)
        for row, (image, label) in enumerate(_rows(source, file)):
            where = f"{file}, row {row}"
            if not label:
                export.skip("images without a label", [where])
                continue
            path = _cell(source, image, f"{split or file.stem}-{row:06d}", where)
            mask = _cell(source, label, "label", where)
            name = path.stem if image.get("path") else f"{split or file.stem}-{row:06d}"
            export.items.append(
                Labelled(name, path, partial(_numbers, mask), f"the label of {where},", split)
            )
    _name_by_legend(export, source)
    return export


def _rows(source: Source, file: PurePosixPath) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Image and label of each row, as `bytes` and `path`; empty where there is none."""
    path = source.root / file
    try:
        table = pq.ParquetFile(path)
        image = _column(table.schema_arrow.names, source.options.images, _IMAGE_COLUMNS, "--images", path)
        label = _column(table.schema_arrow.names, source.options.labels, _LABEL_COLUMNS, "--labels", path)
        for batch in table.iter_batches(batch_size=16, columns=[image, label]):
            for row in batch.to_pylist():
                cells = [
                    {"bytes": row[name]} if isinstance(row[name], bytes) else row[name]
                    for name in (image, label)
                ]
                if not all(cell is None or isinstance(cell, dict) for cell in cells):
                    raise UserError(f"{path}: {image} and {label} must be images, as bytes and path")
                yield cells[0] or {}, cells[1] or {}
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"{path} cannot be read as parquet ({error}); download it again, or write it anew with pyarrow"
        ) from error


def _column(names: Sequence[str], given: str | None, usual: Sequence[str], flag: str, path: Path) -> str:
    if given is not None and given not in names:
        raise unknown_name(f"column ({flag})", given, names)
    found = [given] if given else [name for name in usual if name in names]
    if not found:
        raise UserError(f"{path} has the columns {listed(names)}; say which one with {flag} NAME")
    return found[0]


def _cell(source: Source, cell: Mapping[str, Any], name: str, where: str) -> Path:
    """The file of an image: unpacked, or where its path says."""
    if cell.get("bytes"):
        given = PurePosixPath(str(cell.get("path") or name).replace("\\", "/")).stem
        return _unpack(source, cell["bytes"], given, where)
    if cell.get("path"):
        return source.find(cell["path"], where)
    raise UserError(f"{where} has a label, but no image; remove the row")


# --- Values, ids and splits ---


@dataclass(frozen=True)
class _Scan:
    """Of an image: label value -> pixels, and how labels fit where it has an orientation tag."""

    pixels: Mapping[int, int]
    fits: str


def _scan(item: Labelled) -> _Scan:
    labels_HW = item.labels()
    facts = header(item.image)
    stored, upright = facts.size, facts.upright_size()
    if labels_HW.shape not in (stored, upright):
        raise UserError(
            f"{item.where} is {labels_HW.shape[1]}×{labels_HW.shape[0]} pixels, its image {item.image.name} "
            f"{upright[1]}×{upright[0]}; a label map must have the size of its image"
        )
    values, inverse = _distinct(labels_HW)
    counts = np.bincount(inverse.ravel(), minlength=len(values)).tolist()
    pixels = {value: count for value, count in zip(values.tolist(), counts, strict=True) if count}
    fits = "both" if stored == upright else "upright" if labels_HW.shape == upright else "stored"
    return _Scan(pixels, fits if facts.orientation != 1 else "")


def _distinct(labels_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values, in order, and the index of each pixel's value; values without a pixel may be among them."""
    if labels_HW.max(initial=0) >= COLOR or labels_HW.min(initial=0) < NO_DATA:
        values, inverse = np.unique(labels_HW, return_inverse=True)
        return values, inverse.reshape(labels_HW.shape)
    return np.arange(NO_DATA, labels_HW.max(initial=0) + 1), labels_HW - NO_DATA


def _name_values(export: Export, scans: Sequence[_Scan]) -> None:
    """Names the values of label images that come without names, and finds out what is void.

    Raises:
        UserError: if some files hold colors and others numbers.
    """
    found: dict[int, str] = {}
    for item, scan in zip(export.items, scans, strict=True):
        found |= {value: found.get(value, item.where) for value in scan.pixels if value >= 0}
    numbers = {value & 0xFF if value >= COLOR else value for value in found}
    if all(value in _and_grey(dict.fromkeys(numbers, "")) for value in found):
        void = {VOID} & numbers if numbers != {0, VOID} else set()
        names = {number: f"class {number}" if number else BACKGROUND for number in sorted(numbers - void)}
        export.classes = _and_grey({**names, VOID: "object"} if VOID in names else names)
        export.void = _and_grey({VOID: f"value {VOID}"} if void else {})
        rule = "value 0 is background and 255 the object" if VOID in names else "each value is a class"
        export.rules.append(f"{rule}; rename classes in dataset.toml")
        return
    plain = next((value for value in found if value < COLOR), None)
    if plain is not None:
        color = next(value for value in found if value >= COLOR)
        raise UserError(f"{found[color]} holds colors, but {found[plain]} numbers; export all labels alike")
    colors = sorted(found)
    export.classes = {value: BACKGROUND if value == COLOR else f"#{value - COLOR:06x}" for value in colors}
    export.rules.append("each color is a class; rename them in dataset.toml")


def _name_no_data(export: Export, scans: Sequence[_Scan]) -> None:
    """What files declare to be no data: the class that is named for its value, else void."""
    assert export.classes is not None
    classes, void = dict(export.classes), dict(export.void)
    for value in {value for scan in scans for value in scan.pixels if value <= NO_DATA}:
        declared = NO_DATA - 1 - value
        if declared in classes:
            classes[value] = classes[declared]
        else:
            void[value] = void.get(declared, VOID_REASONS[NO_DATA])
    export.classes, export.void = classes, void


def _and_grey(names: Mapping[int, str]) -> dict[int, str]:
    """Also for files that hold the same numbers as grey colors."""
    return {**names, **{COLOR + value * 0x010101: name for value, name in names.items() if value <= 0xFF}}


def _keep(export: Export, kept: Sequence[str]) -> None:
    """Turns all other classes into background."""
    assert export.classes is not None
    for name in kept:
        if name not in (*export.classes.values(), BACKGROUND):
            raise unknown_name("class (--classes)", name, set(export.classes.values()))
    order = list(dict.fromkeys([BACKGROUND, *kept]))
    renamed = {value: name if name in kept else BACKGROUND for value, name in export.classes.items()}
    export.classes = dict(sorted(renamed.items(), key=lambda item: order.index(item[1])))
    export.rules.append("classes that --classes does not name are background")


def _check_values(export: Export, scans: Sequence[_Scan]) -> None:
    assert export.classes is not None
    known = export.classes.keys() | export.void.keys()
    for item, scan in zip(export.items, scans, strict=True):
        for value in sorted(scan.pixels.keys() - known):
            shown = f"color #{value - COLOR:06x}" if value >= COLOR else f"value {value}"
            raise UserError(
                f"{item.where} contains the {shown} in {scan.pixels[value]:,} pixels, but {export.legend} "
                "does not name it; add it there, or export again"
            )


def _safe(name: str) -> str:
    """A name that is a file name everywhere and an id: letters, digits and `_ . + -`."""
    text = unicodedata.normalize("NFC", name).replace("/", "__")
    text = re.sub(r"[^\w.+-]", "_", text).lstrip(".-") or "image"
    if len(text.encode()) > 180:
        text = f"{text.encode()[:160].decode(errors='ignore')}-{sha256(name.encode()).hexdigest()[:8]}"
    return text


def make_ids(items: Sequence[Labelled], root: Path) -> list[str]:
    """An id for each image, from its path; unique also where file systems ignore case.

    Folders that are above all images are left out. Names that two images share are replaced by their whole
    paths, and numbered if these are the same.
    """
    paths = [PurePosixPath(item.name).parts for item in items]
    above = len(PurePosixPath(os.path.commonpath([PurePosixPath(item.name).parent for item in items])).parts)
    ids = [_safe("/".join(path[above:])) for path in paths]
    often = Counter(name.casefold() for name in ids)
    for index, item in enumerate(items):
        if often[ids[index].casefold()] > 1 and root in item.image.parents:
            ids[index] = _safe(item.image.relative_to(root).with_suffix("").as_posix())
    taken: set[str] = set()
    for index, name in enumerate(ids):
        number = 2
        while ids[index].casefold() in taken:
            ids[index] = f"{name}-{number}"
            number += 1
        taken.add(ids[index].casefold())
    return ids


def parse_shares(text: str) -> dict[str, float]:
    """Shares of the splits in percent: `70,10,20` -> train, val, test.

    Raises:
        UserError: if they are not two or three numbers that sum to 100, with images to train and to validate.
    """
    try:
        shares = [float(each) for each in text.split(",")]
    except ValueError:
        shares = []
    valid = len(shares) in (2, 3) and all(0 <= share <= 100 for share in shares)
    if not valid or not math.isclose(sum(shares), 100, abs_tol=1e-6):
        raise UserError(
            f"--splits {text}: expected percentages train,val,test that sum to 100, such as 70,10,20"
        )
    if min(shares[:2]) == 0:
        raise UserError(f"--splits {text}: training and validation both need images")
    return {split: share for split, share in zip(SPLITS, shares, strict=False) if share}


def find_groups(ids: Sequence[str], pattern: str | None) -> list[str]:
    """The group of each image: the first group of a regular expression on its id; each its own without one.

    Raises:
        UserError: if it is not a regular expression with a group, or matches nothing in an id.
    """
    if pattern is None:
        return list(ids)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--group-by {pattern!r} is not a regular expression ({error}), see docs/data.md"
        ) from error
    if not compiled.groups:
        raise UserError(
            f"--group-by {pattern!r} has no group; put what names the video or slide in parentheses"
        )
    matches = [compiled.search(name) for name in ids]
    for name, match in zip(ids, matches, strict=True):
        if match is None or match[1] is None:
            raise UserError(
                f"--group-by {pattern!r} finds no group in the id {name!r}; ids are names without suffix"
            )
    return [match[1] for match in matches if match]


def divide(
    groups: Sequence[str], classes: Sequence[set[str]], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The split of each image, at random; images of a group stay together.

    Training first gets a group with each class, rarest first, while enough groups are left for the others.
    Then the remaining groups, large ones first, go where most images are missing.

    Args:
        groups: group of each image.
        classes: classes that occur in each image.
        shares: split -> percentage of the images.

    Raises:
        UserError: if there are fewer groups than splits.
    """
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    if len(members) < len(shares):
        raise UserError(
            f"{len(members)} images or groups cannot be divided into {len(shares)} splits; label more, or "
            "leave out the test split"
        )
    order = sorted(members)
    random.Random(seed).shuffle(order)
    within = {group: set().union(*(classes[index] for index in members[group])) for group in order}
    often = Counter(name for names in within.values() for name in names)
    chosen: dict[str, str] = {}
    for name in sorted(often, key=lambda each: (often[each], each)):
        spare = len(order) - len(chosen) >= len(shares)
        if spare and not any(name in within[group] for group in chosen):
            chosen[next(group for group in order if name in within[group])] = "train"
    missing = {split: share / 100 * len(groups) for split, share in shares.items()}
    missing["train"] -= sum(len(members[group]) for group in chosen)
    rest = sorted((group for group in order if group not in chosen), key=lambda group: -len(members[group]))
    empty = [split for split in shares if split not in chosen.values()]
    for number, group in enumerate(rest):
        candidates = empty if len(rest) - number <= len(empty) else list(shares)
        chosen[group] = max(candidates, key=missing.__getitem__)
        missing[chosen[group]] -= len(members[group])
        empty = [split for split in empty if split != chosen[group]]
    return [chosen[group] for group in groups]


def assign_splits(
    own: Sequence[str | None],
    groups: Sequence[str],
    classes: Sequence[set[str]],
    splits: str | None,
    seed: int,
) -> tuple[list[str], str]:
    """The split of each image, and a sentence on how it was found.

    The export's own splits hold if it has images to train and to validate on, and `--splits` is not given.
    With images to train and to test on alone, validation images are taken from training.

    Raises:
        UserError: if own splits share a group.
    """
    shares = parse_shares(splits or "70,10,20")
    named = set(own) if splits is None else set()
    test_alone = named == {"train", "test"}
    if test_alone or named in ({"train", "val"}, set(SPLITS)):
        where = defaultdict(set)
        for group, split in zip(groups, own, strict=True):
            where[group].add(split)
        shared = [group for group, found in where.items() if len(found) > 1]
        if shared:
            raise UserError(
                f"group {shared[0]} is in several splits of the export ({len(shared)} such groups); give "
                "--splits to divide anew"
            )
        if not test_alone:
            return [split for split in own if split], "splits: the export's own"
        both = shares["train"] + shares["val"]
        shares = {split: shares[split] * 100 / both for split in ("train", "val")}
    free = [index for index, split in enumerate(own) if not (test_alone and split == "test")]
    found = divide([groups[i] for i in free], [classes[i] for i in free], shares, seed)
    result = ["test"] * len(own)
    for index, split in zip(free, found, strict=True):
        result[index] = split
    percent = ", ".join(f"{split} {share:.0f} %" for split, share in shares.items())
    kept = "; test images are the export's own" if test_alone else ""
    return result, f"splits: at random with seed {seed}, {percent} of the images{kept}"


# --- Writing ---


@dataclass
class Converted:
    """What was written, for the console.

    Args:
        splits: split of each image that was kept.
        pixels: split -> class -> pixels.
        void: reason -> pixels.
        linked: hard link, symbolic link, copy or unpacked -> images.
    """

    classes: list[str]
    splits: list[str]
    pixels: dict[str, Counter[str]]
    void: Counter[str]
    linked: Counter[str]
    notes: list[str]
    skipped: Mapping[str, list[str]]


def convert(format_name: str, source: Path, out: Path, options: argparse.Namespace) -> Converted:
    """Writes the folder data set `out`; the command's function.

    Args:
        format_name: a key of `FORMATS`.
        source: folder of the export, or its annotation file.
        options: the flags of `make_parser`.

    Raises:
        UserError: for an unknown format, an export with a fault, or an `out` that is not empty.
    """
    if format_name not in FORMATS:
        raise unknown_name("format", format_name, FORMATS)
    chosen = FORMATS[format_name]
    for flag in ("crowds", "images", "labels", "image_suffix", "label_suffix"):
        if getattr(options, flag) is not None and flag not in chosen.flags:
            raise UserError(f"--{flag.replace('_', '-')} means nothing for {format_name}; leave it out")
    parse_shares(options.splits or "70,10,20")
    find_groups([], options.group_by)
    source, out = source.expanduser(), out.expanduser()
    if not source.exists():
        raise UserError(f"{source} does not exist; give the folder of the export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not empty; give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with creating_folder(out) as folder:
        scratch = folder / "unpacked"
        scratch.mkdir()
        files = Source(source, scratch, options)
        converted = _write(chosen.read(files), files, folder, files.name, options)
        origin = {"format": format_name, "source": str(source.absolute()), "digest": files.digest()}
        (folder / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        shutil.rmtree(scratch)
        if out.exists():
            out.rmdir()
    return converted


def imported(format_name: str, source: Path, console: Console) -> Path:
    """The data set of an export in a folder beside it, converted on first use without flags.

    Raises:
        UserError: as `convert`, or if the export is not the one that the folder was made of.
    """
    source = source.expanduser()
    options = make_parser().parse_args([format_name, str(source), "--out", "."])
    files = Source(source, source, options)
    out = files.root.resolve().parent / f"{files.name}-segstrat"
    if not (out / "dataset.toml").exists():
        try:
            show(convert(format_name, source, out, options), out, console)
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error.strerror}); convert with `uv run python -m "
                f"segstrat.data.convert {format_name} {shlex.quote(str(source))} --out DIR`"
            ) from error
        return out
    made = _json(out / ORIGIN)
    if not isinstance(made, dict) or (made.get("format"), made.get("digest")) != (
        format_name,
        files.digest(),
    ):
        raise UserError(
            f"{out} was made of another export, or {source} has changed since; remove {out}, or train on it "
            f"as it is with --data folder --data-root {shlex.quote(str(out))}"
        )
    console.print(f"{out}: converted before", markup=False, highlight=False, soft_wrap=True)
    return out


def _write(export: Export, source: Source, folder: Path, name: str, options: argparse.Namespace) -> Converted:
    if not export.items:
        raise UserError(f"{source.root} has no labelled image")
    twice = [path for path, count in Counter(item.image for item in export.items).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is labelled twice in {source.root}; give one annotation file as SOURCE")
    show = sys.stderr.isatty()
    scans = list(tracked(parallel_map(_scan, export.items), len(export.items), "reading labels", show))
    if export.classes is None:
        _name_values(export, scans)
    _name_no_data(export, scans)
    _check_values(export, scans)
    if options.classes is not None:
        _keep(export, [each.strip() for each in options.classes.split(",") if each.strip()])
    classes = _occurring(export, scans)
    table = {value: classes.index(each) for value, each in (export.classes or {}).items() if each in classes}
    kept = [index for index, scan in enumerate(scans) if table.keys() & scan.pixels.keys()]
    empty = [export.items[index].name for index in range(len(scans)) if index not in set(kept)]
    export.skip("images in which all is void", empty)
    items, scans = [export.items[index] for index in kept], [scans[index] for index in kept]
    ids = make_ids(items, source.root)
    present = [{classes[table[value]] for value in scan.pixels if value in table} for scan in scans]
    groups = find_groups(ids, options.group_by)
    splits, how = assign_splits([item.split for item in items], groups, present, options.splits, options.seed)
    linked = Counter[str]()
    for part in ("images", "labels"):
        (folder / part).mkdir()
    palette = label_palette(classes).tobytes()
    jobs = zip(items, ids, strict=True)
    written = parallel_map(lambda job: _write_one(*job, table, palette, folder, source), jobs)
    for kind in tracked(written, len(items), "writing labels", show):
        linked[kind] += 1
    pixels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS if split in splits}
    for split in pixels:
        chosen = [each for each, found in zip(ids, splits, strict=True) if found == split]
        (folder / f"{split}.txt").write_text("".join(f"{each}\n" for each in chosen), encoding="utf-8")
    void = Counter[str]()
    for scan, split in zip(scans, splits, strict=True):
        for value, count in scan.pixels.items():
            if value in table:
                pixels[split][classes[table[value]]] += count
            else:
                void[export.void[value]] += count
    notes = [*export.rules, *_notes(export, classes, pixels, scans, groups, options), how]
    (folder / "dataset.toml").write_text(_description(name, classes, pixels, notes), encoding="utf-8")
    return Converted(classes, splits, pixels, void, linked, notes, export.skipped)


def _occurring(export: Export, scans: Sequence[_Scan]) -> list[str]:
    """Names of the classes with a pixel, in class order.

    Raises:
        UserError: if they are fewer than two, or more than label maps can hold.
    """
    named = export.classes or {}
    occur = {named[value] for scan in scans for value in scan.pixels if value in named}
    classes = [name for name in dict.fromkeys(named.values()) if name in occur]
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{len(classes)} classes occur, but 8-bit label maps hold {MOST_CLASSES} and void; keep some "
            f"with --classes '{classes[1]},{classes[2]},…'"
        )
    if len(classes) < 2:
        only = f"only {classes[0]} occurs" if classes else "all of it is void"
        raise UserError(f"at least two classes must occur in the labels, but {only}; check the export")
    return classes


def _write_one(
    item: Labelled, name: str, table: Mapping[int, int], palette: bytes, folder: Path, source: Source
) -> str:
    """Writes the label map and places the image; returns how."""
    values, inverse = _distinct(item.labels())
    indices = np.array([table.get(value, VOID) for value in values.tolist()], np.uint8)
    image = Image.fromarray(indices[inverse])
    image.putpalette(palette)
    image.save(folder / "labels" / f"{name}.png")
    target = folder / "images" / f"{name}{item.image.suffix.lower()}"
    if source.scratch in item.image.parents:
        item.image.replace(target)
        return "unpacked"
    return _link(item.image, target)


def _link(path: Path, target: Path) -> str:
    """A hard link; a symbolic one to another device; a copy where neither exists."""
    # Of a symbolic link, not the link but its file is linked.
    path = path.resolve()
    try:
        os.link(path, target)
        return "hard links"
    except OSError:
        try:
            target.symlink_to(path)
            return "symbolic links"
        except OSError:
            shutil.copyfile(path, target)
            return "copies"


def _notes(
    export: Export,
    classes: Sequence[str],
    pixels: Mapping[str, Counter[str]],
    scans: Sequence[_Scan],
    groups: Sequence[str],
    options: argparse.Namespace,
) -> list[str]:
    """What the numbers do not say: classes left out or not in training, orientation, groups."""
    notes = []
    unused = [name for name in dict.fromkeys((export.classes or {}).values()) if name not in classes]
    if unused:
        notes.append(f"classes without a pixel are left out ({len(unused)}): {_few(unused)}")
    untrained = [name for name in classes if not pixels["train"][name]]
    if untrained:
        notes.append(
            f"no training image shows {_few(untrained)}: divide anew with --splits, label more, or leave "
            "them out with --classes"
        )
    fits = Counter(scan.fits for scan in scans if scan.fits)
    if fits:
        notes.append(
            f"{fits.total()} images have an orientation tag: labels fit the upright picture of "
            f"{fits['upright']}, the stored one of {fits['stored']}, and both of {fits['both']}, which are "
            "taken as upright; files are linked as they are"
        )
    if options.group_by is not None:
        notes.append(f"{len(set(groups))} groups stay together (--group-by {options.group_by})")
    return notes


def _few(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _description(name: str, classes: Sequence[str], splits: Iterable[str], notes: Sequence[str]) -> str:
    def quoted(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [f"# {note}".replace("\n", " ") for note in notes]
    lines += [f"name = {quoted(name)}", 'images = "images"', "", "[splits]"]
    lines += [f'{split} = "{split}.txt"' for split in splits]
    lines += ["", "[tasks.semseg]", 'labels = "labels"', f"classes = {quoted(list(classes))}"]
    return "\n".join([*lines, f"ignore = [{VOID}]"]) + "\n"


@dataclass(frozen=True)
class Format:
    """A kind of export: its reader, what it is, and the flags that only it has."""

    read: Callable[[Source], Export]
    about: str
    flags: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "coco": Format(read_coco, "COCO instances: polygons, RLE, crowds", ("crowds",)),
    "coco-panoptic": Format(read_panoptic, "COCO panoptic: PNGs of segments", ("crowds",)),
    "labelme": Format(read_labelme, "labelme: a JSON file an image"),
    "cvat": Format(read_cvat, "CVAT's Segmentation mask 1.1 with labelmap.txt"),
    "roboflow": Format(read_roboflow, "Roboflow's semantic masks: x_mask.png and _classes.csv"),
    "cityscapes": Format(read_cityscapes, "Cityscapes: leftImg8bit and gtFine, labelIds or labelTrainIds"),
    "ade20k": Format(read_ade20k, "ADE20K scene parsing: images and annotations, 0 is void"),
    "huggingface": Format(
        read_huggingface, "parquet with image and annotation columns", ("images", "labels")
    ),
    "masks": Format(
        read_masks,
        "images and label images in two folders, or beside each other",
        ("images", "labels", "image_suffix", "label_suffix"),
    ),
}
"""Name of a format -> how it is read."""


def make_parser() -> StrictParser:
    """The command line."""
    formats = "\n".join(f"  {name:14}{each.about}" for name, each in FORMATS.items())
    parser = StrictParser(
        prog="python -m segstrat.data.convert",
        description=f"Writes a folder data set from the export of an annotation tool.\n\nformats:\n{formats}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("format", metavar="FORMAT", help="one of the formats above")
    add("source", type=Path, metavar="SOURCE", help="folder of the export, or its annotation file")
    add("--out", type=Path, required=True, metavar="DIR", help="new folder")
    add(
        "--splits",
        metavar="70,10,20",
        help="divide into train, val and test, in percent, also where the export has splits",
    )
    add("--group-by", metavar="REGEX", help="images whose ids agree in its first group stay in one split")
    add("--seed", type=int, default=0, metavar="N", help="of the random division (default: 0)")
    add("--classes", metavar="A,B,…", help="keep these classes; all others are background")
    add(
        "--crowds",
        choices=("void", "objects"),
        help="coco: what regions with iscrowd = 1 are (default: void)",
    )
    add("--images", metavar="NAME", help="masks: folder of the images; huggingface: their column")
    add("--labels", metavar="NAME", help="masks: folder of the label images; huggingface: their column")
    add("--image-suffix", metavar="TEXT", help="masks: end of image names, such as _sat")
    add("--label-suffix", metavar="TEXT", help="masks: end of label names, such as _mask")
    return parser


def show(converted: Converted, out: Path, console: Console) -> None:
    """Prints images, classes, void, what was skipped, and the rules that were applied."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    images = Counter(converted.splits)
    how = ", ".join(f"{count:,} {kind}" for kind, count in converted.linked.items())
    counts = ", ".join(f"{split} {images[split]:,}" for split in converted.pixels)
    say(f"{out}: {len(converted.splits):,} images ({counts}); {how}")
    say("share of the labelled pixels")
    table = Table("class", *converted.pixels)
    totals = {split: counted.total() for split, counted in converted.pixels.items()}
    for name in converted.classes:
        shares = [f"{counted[name] / totals[split]:.2%}" for split, counted in converted.pixels.items()]
        table.add_row(escape(name), *shares)
    console.print(table)
    total = converted.void.total() + sum(totals.values())
    for reason, count in converted.void.items():
        say(f"void: {reason}, {count / total:.2%} of all pixels")
    for reason, names in converted.skipped.items():
        say(f"skipped: {reason}, {len(names):,} ({_few(names, 3)})")
    for note in converted.notes:
        say(f"- {note}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        options = make_parser().parse_strictly(arguments)
        console, out = Console(), options.out
        show(convert(options.format, options.source, out, options), out, console)
        run = "uv run python study/run.py --space wd_grid --weights imagenet --data folder --data-root"
        command = f"{run} {shlex.quote(str(out))}"
        for words in (
            "look at the labels first:",
            f"  {command} --dry-run",
            "then run the study:",
            f"  {command}",
        ):
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; check space and permissions", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
