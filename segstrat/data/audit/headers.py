"""Checks of image and label files from their headers alone: before anything is decoded or trained."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segstrat.data.files import Item
from segstrat.data.images import STORED, TRANSPOSED, Header, header
from segstrat.data.labels import LOSSY, SUFFIXES, IndexPng
from segstrat.data.protocols import DataProtocol
from segstrat.errors import UserError
from segstrat.parallel import parallel_map

_LOGITS_COPIES = 3
"""Copies of the logits of a whole image that evaluation needs at once."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the trials of a study ask of the images.

    Args:
        stride: of the coarsest map of any network.
        smallest_crop: side of the smallest crop.
        largest_crop: side of the largest crop.
    """

    stride: int
    smallest_crop: int
    largest_crop: int


@dataclass(frozen=True)
class Files:
    """An item of a split, the headers of its files, and what cannot be read."""

    split: str
    item: Item
    image: Header | None = None
    labels: Mapping[str, Header] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def turned(self) -> bool:
        """Whether the orientation tag is obeyed."""
        if self.image is None or self.image.orientation == 1 or self.item.format == STORED:
            return False
        return self.item.format.orientation == "upright" or not self.as_stored()

    def as_stored(self) -> bool:
        """Whether a label has the size of the stored picture, and not of the upright one."""
        sizes = [label.size for label in self.labels.values()]
        return (
            self.image is not None
            and self.image.size != self.image.upright_size()
            and self.image.size in sizes[:1]
        )

    def size(self) -> tuple[int, int]:
        """Height and width of the image as it is read."""
        assert self.image is not None
        return self.image.upright_size() if self.turned() else self.image.size


@dataclass
class Findings:
    """Sentences: what makes results wrong, and what may."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_headers(protocol: DataProtocol, tasks: Iterable[str] | None = None) -> list[Files]:
    """The headers of all files of a protocol."""
    wanted = set(protocol.tasks if tasks is None else tasks)

    def read(position: tuple[str, Item]) -> Files:
        split, item = position
        problems = []
        image, labels = None, {}
        try:
            image = header(item.image)
            for task, label in item.labels.items():
                if task in wanted and label.path.suffix.lower() in SUFFIXES:
                    labels[task] = header(label.path)
        except UserError as error:
            problems.append(str(error))
        return Files(split, item, image, labels, tuple(problems))

    positions = [
        (split, item) for split, parts in protocol.files.items() for part in parts for item in part.items
    ]
    return list(parallel_map(read, positions))


def check_headers(files: Sequence[Files], protocol: DataProtocol) -> Findings:
    """What the headers say about the data, whatever trains on it."""
    readable = [entry for entry in files if entry.image is not None]
    found = Findings()
    for problem in dict.fromkeys(problem for entry in files for problem in entry.problems):
        found.errors.append(problem)
    found.errors += _label_errors(readable)
    if not protocol.own:
        return found
    for check in (_orientation, _depths):
        check(readable, found)
    found.errors += _one_file_twice(readable)
    found.warnings += [
        *_counted(readable, lambda e: _header(e).alpha, "has an alpha channel", "have an alpha channel",
                  "what is transparent becomes black"),
        *_counted(readable, lambda e: _header(e).mode == "CMYK", "is in CMYK", "are in CMYK",
                  "they are converted without a color profile"),
        *_counted(readable, lambda e: _header(e).pages > 1, "has several pages", "have several pages",
                  "only the first is read; save every page as a file of its own"),
        *_label_modes(readable),
    ]  # fmt: skip
    _palettes(readable, found)
    _copies(readable, found)
    return found


def check_needs(files: Sequence[Files], protocol: DataProtocol, needs: Needs) -> Findings:
    """What speaks against training and scoring these files with the networks of a study."""
    found = Findings()
    readable = [entry for entry in files if entry.image is not None]
    if needs.smallest_crop < needs.stride:
        found.errors.append(
            f"crops of {needs.smallest_crop} pixels are smaller than the stride of the network, "
            f"{needs.stride}; set crop_size to at least {needs.stride}"
        )
    small = [e for e in readable if e.split != "train" and min(e.size()) < needs.stride]
    if small:
        height, width = small[0].size()
        found.errors.append(
            f"{small[0].item.image} of {small[0].split} is {width}×{height} pixels{_others(small)}, smaller "
            f"than the stride of the network, {needs.stride}; remove it from its list, or enlarge it and its "
            "label"
        )
    training = [entry for entry in readable if entry.split == "train"]
    if len(training) == 1:
        found.warnings.append(
            "there is one training image; batch normalization needs at least two in a batch"
        )
    mostly = [e for e in training if max(e.size()) * 2 <= needs.largest_crop]
    if mostly:
        height, width = mostly[0].size()
        found.warnings.append(
            f"{mostly[0].item.image.name} is {width}×{height} pixels{_others(mostly)}, less than half of the "
            f"crop of {needs.largest_crop}; most of what the network sees of it is padding"
        )
    found.warnings += _memory(readable, protocol)
    return found


def _memory(files: Sequence[Files], protocol: DataProtocol) -> Iterator[str]:
    scored = [entry for entry in files if entry.split != "train"]
    if not scored:
        return
    largest = max(scored, key=lambda entry: entry.size()[0] * entry.size()[1])
    height, width = largest.size()
    classes = max(task.num_classes for task in protocol.tasks.values())
    needed = height * width * classes * 4 * _LOGITS_COPIES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory / 2:
        yield (
            f"{largest.item.image} is {width}×{height} pixels; scoring it whole takes about "
            f"{needed / 1e9:.0f} GB of the {memory / 1e9:.0f} GB here; cut it into tiles, or make a smaller "
            "copy of the data with `uv run python -m segstrat.data.shrink`"
        )


def _header(entry: Files) -> Header:
    assert entry.image is not None
    return entry.image


def _others(files: Sequence[Files]) -> str:
    return f" (and {len(files) - 1} more like it)" if len(files) > 1 else ""


def _counted(
    files: Sequence[Files], test: Callable[[Files], bool], one: str, many: str, then: str
) -> Iterator[str]:
    hits = [entry for entry in files if test(entry)]
    if hits:
        number = f"{len(hits):,} images {many}, e.g. {hits[0].item.image.name}" if len(hits) > 1 else ""
        yield f"{number or f'{hits[0].item.image.name} {one}'}: {then}"


def _label_errors(files: Sequence[Files]) -> list[str]:
    """Labels of another size, with several pages, turned or changed by their compression."""
    wrong = defaultdict(list)
    for entry in files:
        for task, label in entry.labels.items():
            path = entry.item.labels[task].path
            if label.format in LOSSY:
                wrong["is a lossy picture, which changes class numbers at every edge; export PNG"].append(
                    path
                )
            if label.pages > 1:
                wrong["has several pages; save the label alone"].append(path)
            if label.orientation != 1:
                wrong["has an orientation tag; save the label as it is shown, without the tag"].append(path)
            if label.size != entry.size():
                (height, width), (rows, columns) = entry.size(), label.size
                wrong[
                    f"is {columns}×{rows} pixels, its image {entry.item.image.name} is {width}×{height}; a "
                    "label map must have the size of its image"
                ].append(path)
    return [
        f"{paths[0]}{f' (and {len(paths) - 1} more)' if len(paths) > 1 else ''} {words}"
        for words, paths in wrong.items()
    ]


def _orientation(files: Sequence[Files], found: Findings) -> None:
    """Tells how orientation tags are treated, and refuses what cannot be decided."""
    tagged = [e for e in files if _header(e).orientation != 1 and e.item.format != STORED]
    if not tagged:
        return
    name = tagged[0].item.image.name
    number = f"{len(tagged):,} of {len(files):,} images have an orientation tag, e.g. {name}"
    if tagged[0].item.format.orientation != "auto":
        found.warnings.append(f"{number}; orientation = {tagged[0].item.format.orientation!r} decides")
        return
    told = [entry for entry in tagged if _tells(entry)]
    open_ones = [entry for entry in tagged if not _tells(entry)]
    stored = [entry for entry in told if entry.as_stored()]
    if stored and (open_ones or len(stored) < len(told)):
        other = next(entry for entry in tagged if not _tells(entry) or not entry.as_stored())
        found.errors.append(
            f"{number}: the label of {stored[0].item.image.name} was made on the picture as stored, but "
            f'{other.item.image.name} would be turned; write orientation = "stored" or "upright" in '
            "dataset.toml, as the annotation tool did, and look at the contact sheet"
        )
    elif stored:
        found.warnings.append(f"{number}; they are read as stored, because the labels have that size")
    elif open_ones and told:
        found.warnings.append(
            f"{number}; they are turned upright, because {len(told):,} labels have that size and the others, "
            f"such as that of {open_ones[0].item.image.name}, do not tell"
        )
    elif open_ones:
        found.warnings.append(
            f"{number}; they are turned as it says, like in a viewer. The size of "
            f"{open_ones[0].item.image.name} does not tell whether its label was drawn so: look at the "
            'contact sheet, and write orientation = "stored" in dataset.toml if the labels lie beside their '
            "objects"
        )
    else:
        found.warnings.append(f"{number}; they are turned upright, because the labels have that size")


def _tells(entry: Files) -> bool:
    """Whether the size of the label shows on which picture it was made."""
    height, width = _header(entry).size
    return _header(entry).orientation in TRANSPOSED and height != width


def _depths(files: Sequence[Files], found: Findings) -> None:
    """Images of more than 8 bits need a stated maximum, and one for all."""
    depths = Counter(_header(entry).depth for entry in files)
    wide = [entry for entry in files if _header(entry).depth in ("16", "32", "float")]
    if not wide:
        return
    name, maximum = wide[0].item.image.name, wide[0].item.format.maximum
    if maximum is None and {"32", "float"} & set(depths):
        odd = next(entry for entry in wide if _header(entry).depth != "16")
        found.errors.append(
            f"{odd.item.image.name} has {_words(_header(odd).depth)} values, which have no natural maximum; "
            "state in dataset.toml which one is white, for example image_max = 1.0"
        )
    elif maximum is None:
        found.warnings.append(
            f"{len(wide):,} images have 16 bits, e.g. {name}; 65535 becomes white, unless dataset.toml "
            "states another image_max"
        )
    narrow = len(files) - len(wide)
    if narrow or len({_header(entry).depth for entry in wide}) > 1:
        kinds = " and ".join(f"{count:,} of {_words(depth)}" for depth, count in sorted(depths.items()))
        found.warnings.append(
            f"the images have different depths ({kinds} values), so that one brightness may mean different "
            "things; convert them in one way"
        )


def _words(depth: str) -> str:
    return {"32": "32-bit", "float": "floating-point"}.get(depth, f"{depth}-bit")


def _one_file_twice(files: Sequence[Files]) -> list[str]:
    """An image that is a label, and a label of two images, also under other names of the same file."""
    users: dict[tuple[int, int], list[tuple[str, Path]]] = defaultdict(list)
    for entry in files:
        item = entry.item
        users[_identity(item.image)].append((f"the image of {item.id}", item.image))
        for path in {label.path for label in item.labels.values()}:
            users[_identity(path)].append((f"the label of {item.id}", path))
    found = []
    for uses in users.values():
        kinds = {use.split(" of ")[0] for use, _ in uses}
        if len(kinds) > 1:
            label = next(use for use, _ in uses if use.startswith("the label"))
            image = next(use for use, _ in uses if use.startswith("the image"))
            found.append(f"{uses[0][1]} is {image} and {label}; name the folders of images and labels apart")
    return found[:1] if len(found) < 2 else [f"{found[0]} ({len(found) - 1} more like it)"]


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _label_modes(files: Sequence[Files]) -> Iterator[str]:
    """Label files of one task that are stored in different ways: their numbers may mean different things."""
    for task in sorted({task for entry in files for task in entry.labels}):
        kinds: dict[str, list[str]] = defaultdict(list)
        for entry in files:
            if task in entry.labels:
                label = entry.labels[task]
                kind = {"P": "palette", "L": "grey", "1": "grey", "LA": "grey"}.get(label.mode, label.mode)
                kinds[f"{kind} of {_words(label.depth)}"].append(entry.item.labels[task].path.name)
        # A palette image has as few bits as its classes need.
        apart = {kind for kind in kinds if not kind.startswith("palette")} | {
            "palette" for kind in kinds if kind.startswith("palette")
        }
        if len(apart) > 1:
            parts = " and ".join(
                f"{len(names):,} {kind} ({names[0]})" for kind, names in sorted(kinds.items())
            )
            yield (
                f"labels of {task} are stored in different ways, {parts}; check that one number means one "
                "class in all of them"
            )


def _palettes(files: Sequence[Files], found: Findings) -> None:
    """Palette labels whose colors differ: an editor that renumbers the palette renumbers the classes."""
    for task in sorted({task for entry in files for task in entry.labels}):
        listed = [
            (entry.item.labels[task].path, _colors_of(entry, task))
            for entry in files
            if task in entry.labels and entry.labels[task].mode == "P"
            and isinstance(entry.item.labels[task].decode, IndexPng)
        ]  # fmt: skip
        groups: dict[tuple[tuple[int, tuple[int, ...]], ...], list[Path]] = defaultdict(list)
        for path, colors in listed:
            groups[tuple(colors.items())].append(path)
        if len(groups) < 2:
            continue
        common, *rest = sorted(groups, key=lambda key: -len(groups[key]))
        for other in rest:
            first, second = dict(common), dict(other)
            apart = [value for value in first.keys() & second.keys() if first[value] != second[value]]
            if not apart:
                continue
            value = min(apart)
            moved = any(second[value] in first.values() for value in apart)
            message = (
                f"{len(groups[other]):,} label(s) of {task} have another palette than "
                f"{groups[common][0].name}: {value} is {list(second[value])} in {groups[other][0]} and "
                f"{list(first[value])} there"
            )
            if moved:
                found.errors.append(
                    f"{message}; colors have changed places, so one number means two classes: give the color "
                    "of each class as colors in dataset.toml"
                )
            else:
                found.warnings.append(f"{message}; check that one number means one class in all of them")
            break


def _colors_of(entry: Files, task: str) -> dict[int, tuple[int, ...]]:
    """Class value -> its color in the palette of a label."""
    colors = np.frombuffer(entry.labels[task].palette, np.uint8)
    colors = colors[: len(colors) // 3 * 3].reshape(-1, 3)
    decode = entry.item.labels[task].decode
    values = decode.values if isinstance(decode, IndexPng) else ()
    return {value: tuple(colors[value].tolist()) for value in values if value < len(colors)}


def _copies(files: Sequence[Files], found: Findings) -> None:
    """Images that are the same file content under several ids."""
    by_size: dict[int, list[Files]] = defaultdict(list)
    for entry in files:
        by_size[entry.item.image.stat().st_size].append(entry)
    same: dict[bytes, list[Files]] = defaultdict(list)
    for group in by_size.values():
        if len(group) > 1:
            for entry in group:
                same[_content(entry.item.image)].append(entry)
    groups = [group for group in same.values() if len(group) > 1]
    splits = [len({entry.split for entry in group}) for group in groups]
    across = [group for group, count in zip(groups, splits, strict=True) if count > 1]
    for split in ("val", "test"):
        whole = [entry for entry in files if entry.split == split]
        seen = [
            e
            for group in across
            for e in group
            if e.split == split and any(o.split == "train" for o in group)
        ]
        if whole and len(seen) * 2 >= len(whole):
            found.errors.append(
                f"{len(seen):,} of {len(whole):,} images of {split} are copies of training images, e.g. "
                f"{seen[0].item.id}; scores on them say nothing about new images: remove them from one split"
            )
            return
    if across:
        first, second = across[0][0], next(e for e in across[0] if e.split != across[0][0].split)
        found.warnings.append(
            f"{len(across):,} image(s) are in two splits under different ids, e.g. {first.item.id} of "
            f"{first.split} and {second.item.id} of {second.split}; remove them from one"
        )
    within = [group for group, count in zip(groups, splits, strict=True) if count == 1]
    if within:
        names = " and ".join(entry.item.id for entry in within[0][:2])
        number = sum(len(group) - 1 for group in within)
        found.warnings.append(
            f"{number:,} image(s) of {within[0][0].split} are copies of others, e.g. {names}; they count "
            "twice"
        )


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
