"""The findings of an audit, and the stamp that lets later studies of the same files reuse a full one."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from segstrat import atomic
from segstrat.data.protocols import DataProtocol
from segstrat.errors import UserError

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
