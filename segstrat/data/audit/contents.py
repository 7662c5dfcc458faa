"""Checks of what a user's own images and labels show: which classes occur, what is void, what fits together.

Label files are decoded until every class has been seen, all of them where they are decoded anyway. The images
are a sample.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from segstrat.commands import tracked
from segstrat.data.audit.alignment import check_alignment
from segstrat.data.audit.headers import Findings
from segstrat.data.boundaries import BoundaryLabels
from segstrat.data.dataset import VOID, Dataset, Sample
from segstrat.data.files import FileDataset
from segstrat.data.images import SIXTEEN_BITS, header, read_wide
from segstrat.data.labels import ColorLabels, Decoder, IndexPng
from segstrat.data.loading.augment import sides
from segstrat.data.protocols import DataProtocol
from segstrat.parallel import parallel_map
from segstrat.tasks import Task

LABELS = 200
"""Label files of a split that are decoded at least, where they are not decoded anyway."""

PICTURES = 24
"""Images of a split that are looked at."""

COMPARED = 2000
"""Images of a split that are compared with those of the others, where reading them is free."""

_THUMB, _ALIKE, _PLAIN = 16, 0.995, 4.0
_THIN, _RIMS, _OFTEN = 4, 12, 0.25

_OTHER_WORDS = (("l", "r"), ("lt", "rt"), ("links", "rechts"), ("gauche", "droite"), ("izquierda", "derecha"))
"""What left and right are called elsewhere: noticed, but not exchanged unless `swap` says so."""

_MOSTLY = 0.5
_DARK = 0.25


@dataclass(frozen=True)
class LabelCounts:
    """Pixels of each label value in some label maps of a task.

    Args:
        ids: names of the images.
        counts: (N, 256) pixels of each class index and of `VOID`.
        signs: (N, 4) what tells labels that were changed, see `_signs`.
        whole: whether all label maps of the split were counted.
    """

    ids: tuple[str, ...]
    counts: np.ndarray
    signs: np.ndarray
    whole: bool

    def total(self) -> np.ndarray:
        """(256,) pixels over all label maps."""
        return self.counts.sum(0)


def count_labels(
    dataset: Dataset, task: Task, *, least: int = LABELS, further: bool = True, progress: bool = False
) -> LabelCounts:
    """Counts the labels of `least` images, and with `further` of more until every class has been seen."""
    indices = [index for index in range(len(dataset)) if task.name in dataset.tasks_of(index)]
    order = _spread(indices, len(indices) if dataset.decoded else least)
    order += sorted(set(indices) - set(order)) if further else []

    def count(index: int) -> np.ndarray:
        label_HW = dataset.labels(index)[task.name]
        return np.concatenate([np.bincount(label_HW.ravel(), minlength=256), _signs(label_HW)])

    rows: list[np.ndarray] = []
    seen = np.zeros(256, bool)
    for row in tracked(parallel_map(count, order), len(order), f"check {task.name}", progress):
        rows.append(row)
        seen |= row[:256] > 0
        if len(rows) >= least and not dataset.decoded and seen[: task.num_classes].all():
            break
    ids = tuple(dataset.ids[index] for index in order[: len(rows)])
    table = np.array(rows).reshape(-1, 260)
    return LabelCounts(ids, table[:, :256], table[:, 256:], len(rows) == len(indices))


def _signs(label_HW: np.ndarray) -> tuple[int, int, bool, bool]:
    """Facts of a label map that tell whether it was interpolated or inverted.

    Returns:
        thin stripes of a class between a lower and a higher one, in rows; borders of two classes whose
        numbers are not neighbors; whether class 0 takes most of the image's frame; whether it is somewhere,
        but not in the frame.
    """
    width = label_HW.shape[1]
    flat = np.ascontiguousarray(label_HW).ravel().astype(np.int16)
    new = np.append(True, flat[1:] != flat[:-1])
    new[::width] = True
    starts = np.flatnonzero(new)
    values, rows = flat[starts], starts // width
    lengths = np.diff(np.append(starts, flat.size))
    known = values != VOID
    beside = (rows[1:] == rows[:-1]) & known[1:] & known[:-1]
    steps = np.diff(values)
    far = int((np.abs(steps[beside]) > 1).sum())
    inner = beside[1:] & beside[:-1] & (steps[1:] * steps[:-1] > 0) & (lengths[1:-1] <= _THIN)
    frame = np.concatenate([label_HW[0], label_HW[-1], label_HW[:, 0], label_HW[:, -1]])
    enclosed = not (frame == 0).any() and (label_HW == 0).mean() > 0.01
    return int(inner.sum()), far, bool((frame == 0).mean() > _MOSTLY), bool(enclosed)


def check_labels(protocol: DataProtocol, *, progress: bool = False) -> Findings:
    """Whether labels are what they are meant to be: classes, void, sides."""
    found = Findings()
    for name, task in protocol.tasks.items():
        counts = {
            split: count_labels(dataset, task, progress=progress)
            for split, dataset in (("train", protocol.train), ("val", protocol.val), ("test", protocol.test))
            if dataset is not None
        }
        decode = _decoder(protocol.files["train"], name)
        if missing := list(_missing_classes(task, counts["train"], decode)):
            # What else is odd follows from it.
            found.errors += missing
            continue
        for split, counted in counts.items():
            if not len(counted.ids):
                continue
            found.errors += _no_information(task, split, counted)
            found.warnings += _void(task, split, counted, decode)
            found.warnings += _changed(task, split, counted)
            if split != "train":
                found.warnings += _absent(task, split, counted)
        if protocol.flip and task.swap is None:
            found.warnings += _odd_sides(task)
    return found


def check_pictures(protocol: DataProtocol, *, progress: bool = False) -> Findings:
    """Whether a sample of the images shows something, and whether the labels lie on it."""
    found = Findings()
    found.warnings += _near_copies(protocol)
    for split, dataset in (("train", protocol.train), ("val", protocol.val), ("test", protocol.test)):
        if dataset is None:
            continue
        order = _spread(range(len(dataset)), PICTURES)
        samples = list(tracked(parallel_map(dataset.read, order), len(order), f"look at {split}", progress))
        blank = [sample.id for sample in samples if sample.image.min() == sample.image.max()]
        if blank:
            found.warnings.append(
                f"{len(blank)} of {len(samples)} images of {split} have one color everywhere, e.g. {blank[0]}"
            )
        if split == "train":
            _darkness(protocol, samples, found)
        for task in protocol.tasks:
            labelled = [sample for sample in samples if task in sample.labels]
            aligned = check_alignment(task, labelled)
            found.warnings += [f"{split}: {words}" for words in aligned.warnings]
    return found


def _near_copies(protocol: DataProtocol) -> Iterator[str]:
    """Images of a split that look like training images: saved again, resized, or frames of one video."""
    paths = {
        (split, item.id): item.image
        for split, parts in protocol.files.items()
        for part in parts
        for item in part.items
    }
    known = _thumbs(protocol.train)
    names, table = list(known), np.stack(list(known.values()))
    for split, dataset in (("val", protocol.val), ("test", protocol.test)):
        if dataset is None:
            continue
        pairs = []
        for name, thumb in _thumbs(dataset).items():
            alike = table @ thumb
            twin = names[int(alike.argmax())]
            # Copies of files are found by their headers.
            same = paths[split, name].stat().st_size == paths["train", twin].stat().st_size
            if alike.max() > _ALIKE and not same:
                pairs.append((name, twin))
        if pairs:
            yield (
                f"{len(pairs):,} image(s) of {split} look like training images, e.g. {pairs[0][0]} like "
                f"{pairs[0][1]}; keep pictures of one thing, and frames of one video, in one split"
            )


def _thumbs(dataset: Dataset) -> dict[str, np.ndarray]:
    """Id -> small picture of mean 0 and length 1, of those images that show something."""

    def thumb(index: int) -> np.ndarray:
        image = np.ascontiguousarray(dataset.read(index).image)
        small = cv2.resize(image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        small -= small.mean()
        return small / np.linalg.norm(small) if small.std() > _PLAIN else np.zeros_like(small)

    order = _spread(range(len(dataset)), COMPARED if dataset.decoded else PICTURES)
    return {dataset.ids[index]: small for index, small in zip(order, parallel_map(thumb, order), strict=True)}


def _darkness(protocol: DataProtocol, samples: Sequence[Sample], found: Findings) -> None:
    """Values that use a small part of their range: another maximum is meant."""
    brightest = max(int(sample.image.max()) for sample in samples)
    if not 0 < brightest < _DARK * 255:
        return
    path = protocol.files["train"][0].items[0].image
    if header(path).depth == "16" and protocol.image_max is None:
        largest = max(
            int(read_wide(item.image).max()) for item in protocol.files["train"][0].items[:PICTURES]
        )
        found.errors.append(
            f"the largest value of {len(samples)} sampled 16-bit images is {largest} of {SIXTEEN_BITS}, so "
            f"that they would be nearly black; state what is white in dataset.toml, for example image_max = "
            f"{largest}, or image_max = {SIXTEEN_BITS} if they are meant to be dark"
        )
    elif protocol.image_max is None:
        found.warnings.append(
            f"the largest value of {len(samples)} sampled training images is {brightest} of 255, so that "
            "they are nearly black; check how they were exported"
        )


def _spread(indices: Sequence[int], wanted: int) -> list[int]:
    if not indices:
        return []
    places = np.linspace(0, len(indices) - 1, min(len(indices), wanted))
    return sorted({indices[round(place)] for place in places})


def _decoder(datasets: Sequence[FileDataset], task: str) -> Decoder | None:
    decoders = [item.labels[task].decode for part in datasets for item in part.items if task in item.labels]
    if not decoders:
        return None
    return decoders[0].decode if isinstance(decoders[0], BoundaryLabels) else decoders[0]


def _share(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"


def _missing_classes(task: Task, counted: LabelCounts, decode: Decoder | None) -> Iterator[str]:
    """Classes that no training label has, what the labels have instead, and what to write."""
    total = counted.total()
    missing = [label for label in range(task.num_classes) if not total[label]]
    if not missing:
        return
    names = ", ".join(repr(task.classes[label]) for label in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    one = len(missing) == 1
    number = f"{'class' if one else 'classes'} {names}{more} of task {task.name} {'does' if one else 'do'}"
    occurring = [
        f"{task.classes[label]!r}{_value(decode, label)} {_share(total[label], total.sum())}"
        for label in range(task.num_classes)
        if total[label]
    ]
    void = total[VOID]
    if void:
        occurring.append(f"void{_void_words(decode)} {_share(void, total.sum())}")
    shown = ", ".join(occurring[:8]) + (" …" if len(occurring) > 8 else "")
    remedy = _remedy(task, missing, decode, void=bool(void))
    yield f"{number} not occur in the training labels, which have {shown}; {remedy}"


def _value(decode: Decoder | None, label: int) -> str:
    if isinstance(decode, ColorLabels):
        return f" ({list(decode.colors[label])})"
    return f" ({decode.values[label]})" if isinstance(decode, IndexPng) else ""


def _void_words(decode: Decoder | None) -> str:
    ignored = getattr(decode, "ignore", ())
    return f" ({', '.join(map(str, ignored))})" if ignored else ""


def _remedy(task: Task, missing: Sequence[int], decode: Decoder | None, *, void: bool) -> str:
    if isinstance(decode, IndexPng) and void and len(missing) == 1 and decode.ignore == (VOID,):
        values = [VOID if label == missing[0] else value for label, value in enumerate(decode.values)]
        return (
            f"if {VOID} is {task.classes[missing[0]]!r} and not void, write values = {values} in dataset.toml"
        )
    kept = [name for label, name in enumerate(task.classes) if label not in missing]
    if len(kept) < 2 or not isinstance(decode, IndexPng):
        return "give dataset.toml the values of the classes, or the training split images with them"
    values = [value for label, value in enumerate(decode.values) if label not in missing]
    if len(kept) > 8:
        return (
            "correct values in dataset.toml, put images with them into training, or remove them from classes"
        )
    listed = ", ".join(f'"{name}"' for name in kept)
    return (
        "correct values in dataset.toml, put images with them into training, or remove them: classes = "
        f"[{listed}], values = {values}"
    )


def _no_information(task: Task, split: str, counted: LabelCounts) -> Iterator[str]:
    total = counted.total()
    occurring = np.flatnonzero(total[: task.num_classes])
    if len(occurring) == 0:
        yield (
            f"every label of task {task.name} in {split} is void, so that nothing can be learned or scored; "
            "check values and ignore in dataset.toml"
        )
    elif len(occurring) == 1 and split != "train" and counted.whole:
        yield (
            f"every label of task {task.name} in {split} is {task.classes[occurring[0]]!r} alone, so that "
            "its scores tell nothing; move images with other classes there"
        )


def _absent(task: Task, split: str, counted: LabelCounts) -> Iterator[str]:
    total = counted.total()
    empty = [name for name, count in zip(task.classes, total, strict=False) if count == 0]
    if empty and counted.whole:
        shown = ", ".join(empty[:8]) + (f" and {len(empty) - 8} more" if len(empty) > 8 else "")
        yield (
            f"{split} has no pixel of {len(empty)} {task.name} classes ({shown}); means over classes leave "
            "them out"
        )


def _void(task: Task, split: str, counted: LabelCounts, decode: Decoder | None) -> Iterator[str]:
    void, pixels = counted.counts[:, VOID], counted.counts.sum(1)
    labelled = counted.counts[:, : task.num_classes] > 0
    blank = np.flatnonzero(void == pixels)
    if len(blank) and len(blank) < len(counted.ids):
        yield (
            f"{len(blank):,} label(s) of {task.name} in {split} are void everywhere, e.g. "
            f"{counted.ids[blank[0]]}; nothing is learned or scored there"
        )
    if void.sum() > _MOSTLY * pixels.sum():
        yield (
            f"{_share(void.sum(), pixels.sum())} of the {task.name} labels in {split} are void"
            f"{_void_words(decode)} and count nowhere; check ignore in dataset.toml"
        )
    # The border of an object is void beside the object, never alone.
    alone = np.flatnonzero((void > 0) & labelled[:, 0] & ~labelled[:, 1:].any(1))
    if len(alone) and getattr(decode, "ignore", ()) == (VOID,) and labelled[:, 1:].any():
        yield (
            f"{len(alone):,} label(s) of {task.name} in {split} have only {task.classes[0]!r} and {VOID}, "
            f"which is void, e.g. {counted.ids[alone[0]]}; if {VOID} is an object there, make its number "
            "that of its class"
        )


def _changed(task: Task, split: str, counted: LabelCounts) -> Iterator[str]:
    """Labels without an object, that were resized like pictures, or whose classes 0 and 1 are exchanged."""
    classes = counted.counts[:, : task.num_classes] > 0
    rims, far, framed, enclosed = counted.signs.T
    blank = np.flatnonzero(classes[:, 0] & ~classes[:, 1:].any(1) & (counted.counts[:, VOID] == 0))
    if len(blank) and classes[:, 1:].any():
        yield (
            f"{len(blank):,} label(s) of {task.name} in {split} have {task.classes[0]!r} alone, e.g. "
            f"{counted.ids[blank[0]]}; right if nothing else is there, wrong if they were never labelled"
        )
    if rims.sum() >= max(_RIMS, _OFTEN * far.sum()):
        worst = counted.ids[int(rims.argmax())]
        yield (
            f"labels of {task.name} in {split} have thin rims of one class between two others, e.g. {worst}, "
            "as if they had been resized with interpolation; resize labels to the nearest pixel"
        )
    if enclosed.any() and framed.mean() > _MOSTLY:
        name, first = task.classes[0], counted.ids[int(enclosed.argmax())]
        yield (
            f"{enclosed.sum():,} label(s) of {task.name} in {split} have {name!r} only inside, e.g. {first}, "
            "where the others have it along the frame of the image; check that they are not inverted"
        )


def _odd_sides(task: Task) -> Iterator[str]:
    """Names that look like sides, and that mirrored images do not exchange."""
    swapped = {name for pair in sides(task.classes) for name in pair}
    for words in _OTHER_WORDS:
        other = [pair for pair in sides(task.classes, words) if not swapped & set(pair)]
        if other:
            first, second = other[0]
            yield (
                f"{first!r} and {second!r} look like the sides of something, but keep their places in "
                "mirrored "
                f'images; write swap = [["{first}", "{second}"]], swap = [] or flip = false in dataset.toml'
            )
            return
    alone = [
        name
        for name in task.classes
        if name not in swapped and re.search(r"(?<![a-z])(left|right)(?![a-z])", name.lower())
    ]
    if alone:
        yield (
            f"{alone[0]!r} has no counterpart on the other side, so a mirrored image is labelled wrong; "
            "write flip = false in dataset.toml, or swap = [] if its side does not matter"
        )
