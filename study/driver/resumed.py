"""Finds the study that `--resume` means."""

from collections.abc import Mapping
from typing import Any

from segstrat.errors import UserError
from segstrat.store import Store
from study.cli import Flags
from study.frame import read_manifest
from study.state.manifest import contains_study, read_study_manifest

MOST_NAMES = 5


def read_resumed(study: Store, flags: Flags, space: str) -> Mapping[str, Any]:
    """The manifest of the study that is resumed.

    Args:
        space: name of the space; '' if the study was named by `--name` alone.

    Raises:
        UserError: if there is none; it names the studies that could be meant.
    """
    if contains_study(study):
        return read_study_manifest(study)
    names = studies_of(Store(flags.storage), space)
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    what = f"of space {space}" if space else "in that folder"
    if names:
        raise UserError(
            f"--resume: {study.uri} contains no study; {what} there are: {shown}; name one with --name"
        )
    raise UserError(
        f"--resume: {study.uri} contains no study, and there is none {what} in {flags.storage}; leave out "
        "--resume to start one, or give the --storage that it was started with"
    )


def studies_of(storage: Store, space: str, data: str = "") -> list[str]:
    """Names of the studies in a folder; of one space and one data protocol, unless their name is ''."""
    found = []
    for name in storage.names():
        try:
            manifest = read_manifest(storage / name)
        except (UserError, OSError):
            continue
        if manifest and space in ("", manifest.get("space")) and data in ("", _data(manifest)):
            found.append(name)
    return found


def _data(manifest: Mapping[str, Any]) -> str:
    data = manifest.get("data")
    return str(data.get("name")) if isinstance(data, Mapping) else ""
