"""Checks of a protocol's data before anything trains on it.

`uv run python -m segstrat.data.audit d1 --root DIR` reads every file and leaves a stamp; a study reads a few
files, or the stamp.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segstrat import atomic
from segstrat.commands import tracked
from segstrat.data.audit.contents import check_labels, check_pictures
from segstrat.data.audit.headers import Files, Needs, check_headers, check_needs, read_headers
from segstrat.data.dataset import Dataset
from segstrat.data.protocols import DataProtocol
from segstrat.errors import UserError, listed
from segstrat.parallel import parallel_map

AUDIT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Findings of an audit.

    Args:
        full: whether every image was read, now or when the stamp was written.
        images: split -> number of images.
        labelled: task -> split -> number of images that are labelled for it.
        errors: problems that a study refuses, one sentence each that names the file and the fix.
        warnings: what a user should know.
        pixels: task -> split -> labelled pixels of each class; empty in a quick audit.
    """

    protocol: str
    full: bool
    images: dict[str, int]
    labelled: dict[str, dict[str, int]]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pixels: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def check(self) -> None:
        """Raises the first error.

        Raises:
            UserError: if there is one; the others are counted.
        """
        if self.errors:
            others = f" ({len(self.errors) - 1} more like it)" if len(self.errors) > 1 else ""
            raise UserError(self.errors[0] + others)


def find_stamp(protocol: DataProtocol, folder: Path) -> AuditReport | None:
    """The report of an earlier full audit of the same files, or None.

    Raises:
        UserError: if a stamp cannot be read.
    """
    for path in sorted(folder.glob("*.json")):
        try:
            stamp = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"audit stamp {path} cannot be read ({error}); delete it") from error
        if stamp["version"] == AUDIT_VERSION and protocol.parts and protocol.parts <= set(stamp["parts"]):
            return AuditReport(**stamp["report"])
    return None


def leave_stamp(report: AuditReport, protocol: DataProtocol, folder: Path) -> None:
    """Writes the report of a full audit for later studies.

    Raises:
        UserError: if the folder cannot be written.
    """
    stamp = {
        "version": AUDIT_VERSION,
        "parts": sorted(protocol.parts),
        "report": dataclasses.asdict(report),
    }
    target = folder / f"{protocol.name}-{protocol.digest}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(target, json.dumps(stamp).encode())
    except OSError as error:
        raise UserError(
            f"audit stamp {target} cannot be written ({error.strerror}); choose another --cache-dir"
        ) from error


QUICK_IMAGES = 8
"""Images of each split that the quick audit decodes."""


def audit(
    protocol: DataProtocol,
    *,
    full: bool = False,
    needs: Needs | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> AuditReport:
    """Checks that files decode, sizes agree, labels are classes, counts are official, and no split leaks.

    The headers of all files are read. Of a user's own data, also as many labels as show that every class
    occurs. A quick audit decodes `QUICK_IMAGES` images of each split, unless a full one of the same files,
    sizes and reader version left its stamp: then the findings of that one are returned.

    Args:
        full: decode every image, count the classes' pixels, compare images across splits by content.
        needs: what the trials of a study ask of the images.
        cache_dir: folder of the stamps, which a full audit writes; None: no stamps.
        progress: draw a progress bar.
    """
    folder = None if cache_dir is None else Path(cache_dir) / "audits"
    stamp = None if full or folder is None else find_stamp(protocol, folder)
    files = read_headers(protocol)
    report = stamp or _fresh_report(protocol, files, full=full, progress=progress)
    if stamp is None and full and folder is not None:
        leave_stamp(report, protocol, folder)
    if needs is None:
        return report
    found = check_needs(files, protocol, needs)
    return dataclasses.replace(
        report, errors=[*report.errors, *found.errors], warnings=[*report.warnings, *found.warnings]
    )


def _fresh_report(
    protocol: DataProtocol, files: Sequence[Files], *, full: bool, progress: bool
) -> AuditReport:
    splits: dict[str, Dataset] = {"train": protocol.train, "val": protocol.val}
    if protocol.test is not None:
        splits["test"] = protocol.test
    readings = _read_all(splits, full, progress)
    headers = check_headers(files, protocol)
    broken = [reading.error for reading in readings if reading.error]
    report = AuditReport(
        protocol=protocol.name,
        full=full,
        images={split: len(dataset) for split, dataset in splits.items()},
        labelled=_count_labelled(protocol, splits),
        errors=list(dict.fromkeys([*_shared_ids(splits), *headers.errors, *broken])),
        warnings=[*_count_differences(protocol, splits), *headers.warnings],
        pixels=_count_pixels(readings, protocol, splits) if full else {},
    )
    if full:
        report.warnings.extend(_same_images(readings))
    if protocol.own and not report.errors:
        images = check_pictures(protocol, progress=progress)
        labels = check_labels(protocol, progress=progress)
        for found in (images, labels):
            report.errors.extend(found.errors)
            report.warnings.extend(found.warnings)
    elif full:
        report.warnings.extend(_empty_classes(report, protocol))
    return report


@dataclass(frozen=True)
class _Reading:
    split: str
    id: str
    error: str = ""
    digest: bytes = b""
    pixels: Mapping[str, np.ndarray] = field(default_factory=dict)


def _read_all(splits: Mapping[str, Dataset], full: bool, progress: bool) -> list[_Reading]:
    def read(position: tuple[str, int]) -> _Reading:
        split, index = position
        dataset = splits[split]
        try:
            sample = dataset.read(index)
        except UserError as error:
            return _Reading(split, dataset.ids[index], error=str(error))
        pixels = {task: np.bincount(label.ravel(), minlength=256) for task, label in sample.labels.items()}
        digest = hashlib.blake2b(np.ascontiguousarray(sample.image).data, digest_size=16).digest()
        return _Reading(split, sample.id, digest=digest, pixels=pixels)

    positions = [
        (split, index)
        for split, dataset in splits.items()
        for index in (range(len(dataset)) if full else _spread(len(dataset), QUICK_IMAGES))
    ]
    return list(tracked(parallel_map(read, positions), len(positions), "audit", progress))


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, wanted))})


def _shared_ids(splits: Mapping[str, Dataset]) -> list[str]:
    found = []
    names = list(splits)
    for position, left in enumerate(names):
        for right in names[position + 1 :]:
            shared = sorted(set(splits[left].ids) & set(splits[right].ids))
            if shared:
                more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
                found.append(
                    f"{left} and {right} share {shared[0]}{more}; remove these from one of the lists"
                )
    return found


def _same_images(readings: Sequence[_Reading]) -> list[str]:
    first: dict[bytes, _Reading] = {}
    found = []
    for reading in readings:
        other = first.setdefault(reading.digest, reading) if reading.digest else reading
        if other.split != reading.split and other.id != reading.id:
            found.append(
                f"{reading.id} of {reading.split} is pixel by pixel {other.id} of {other.split}; remove one"
            )
    return found


def _count_labelled(protocol: DataProtocol, splits: Mapping[str, Dataset]) -> dict[str, dict[str, int]]:
    counts = {
        split: Counter(task for index in range(len(dataset)) for task in dataset.tasks_of(index))
        for split, dataset in splits.items()
    }
    return {task: {split: counts[split][task] for split in splits} for task in protocol.tasks}


def _count_differences(protocol: DataProtocol, splits: Mapping[str, Dataset]) -> list[str]:
    found = []
    for split, official in protocol.official.items():
        difference = len(splits[split]) - official
        if difference:
            found.append(
                f"{split} has {len(splits[split]):,} images, {abs(difference):,} "
                f"{'more' if difference > 0 else 'fewer'} than the official {official:,}; scores are not "
                "comparable with published ones"
            )
    return found


def _count_pixels(
    readings: Sequence[_Reading], protocol: DataProtocol, splits: Mapping[str, Dataset]
) -> dict[str, dict[str, list[int]]]:
    totals = {(task, split): np.zeros(256, dtype=np.int64) for task in protocol.tasks for split in splits}
    for reading in readings:
        for task, counts in reading.pixels.items():
            totals[task, reading.split] += counts
    return {
        task: {split: totals[task, split][: kind.num_classes].tolist() for split in splits}
        for task, kind in protocol.tasks.items()
    }


def _empty_classes(report: AuditReport, protocol: DataProtocol) -> list[str]:
    found = []
    for task, splits in report.pixels.items():
        classes = protocol.tasks[task].classes
        for split, counts in splits.items():
            empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
            if empty:
                found.append(
                    f"{split} has no pixel of {len(empty)} {task} classes ({listed(empty, 12)}); means over "
                    "classes leave them out"
                )
    return found
