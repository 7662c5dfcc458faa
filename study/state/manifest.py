"""manifest.json: what a study was asked, its code (by a digest without comments), data and machine."""

import ast
import datetime
import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segstrat.errors import UserError
from segstrat.store import Store, copy_name, write_with_copy
from study.frame import MANIFEST, SCHEMA, read_manifest
from study.planning.trials import PlannedTrial

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("torch", "torchvision", "timm", "ray", "optuna", "numpy", "scipy", "pandas", "pyarrow"),
    *("opencv-python-headless", "pillow"),
)
# What showing and resuming a study need.
NEEDED = ("study", "question", "options", "data", "scheduler", "metric", "trials")


def describe_code() -> dict[str, Any]:
    """Commit, whether the tree differs from it, and a digest of the library's code without its comments."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "code": code_digest(ROOT / "segstrat"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def new_manifest(content: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a study that starts now; `content` holds what only the caller knows."""
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        **describe_code(),
        "versions": versions(),
        "parent": None,
        **content,
    }


def contains_study(folder: Store) -> bool:
    """Whether a folder contains a study, even one that has lost its manifest."""
    return any(folder.exists(name) for name in (MANIFEST, copy_name(MANIFEST), "trials"))


def read_study_manifest(study: Store) -> dict[str, Any]:
    """The manifest of an existing study.

    Raises:
        UserError: if there is none, or if it is of another schema.
    """
    manifest = read_manifest(study)
    if not manifest:
        advice = "give a folder such as results/wd_grid-figures"
        if study.exists("trials"):
            advice = "it has trials: restore the manifest from a copy"
        raise UserError(f"{study.uri} contains no study (no {MANIFEST}); {advice}")
    if manifest.get("schema") != SCHEMA:
        raise UserError(
            f"{study.uri} was written with schema {manifest.get('schema')!r}; this version reads {SCHEMA}"
        )
    if missing := [name for name in NEEDED if manifest.get(name) is None]:
        raise UserError(f"{(study / MANIFEST).uri} lacks {', '.join(missing)}; restore it from a copy")
    return manifest


class ManifestFile:
    """The manifest of a running study, to which a search adds trials.

    Attributes:
        content: read it only.
    """

    def __init__(self, study: Store, content: Mapping[str, Any]) -> None:
        self._study = study
        self.content = content
        self._written: Mapping[str, Any] = {}
        self.write()

    def add_trials(self, trials: Sequence[PlannedTrial], **content: Any) -> None:
        """Takes trials, new ones and known ones, and further content, to be written with the next change."""
        by_id = {trial["trial_id"]: trial for trial in self.content["trials"]}
        by_id |= {trial.trial_id: trial.to_dict() for trial in trials}
        self.content = {
            **self.content,
            "trials": sorted(by_id.values(), key=lambda trial: trial["order"]),
            **content,
        }

    def put_trials(self, trials: Sequence[PlannedTrial], **content: Any) -> None:
        """Records trials that are about to start, together with further content."""
        self.add_trials(trials, **content)
        self.write()

    def update(self, **content: Any) -> None:
        """Records further content."""
        self.content = {**self.content, **content}
        self.write()

    def write(self) -> None:
        """Writes what has changed since the last time, if anything has."""
        if self.content != self._written:
            write_manifest(self._study, self.content)
            self._written = self.content


def write_manifest(study: Store, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest and its copy, each atomically."""
    write_with_copy(study, MANIFEST, manifest)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_digest(folder: Path) -> str:
    """Digest of all Python files below a folder, as Python reads them: comments and layout do not count.

    Docstrings are left out, too. The same code has different digests under different versions of Python,
    whose syntax trees differ.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + meaning(path.read_bytes()))
    return digest.hexdigest()[:16]


def meaning(source: bytes) -> bytes:
    """The syntax tree of a module without docstrings, as text; the source itself if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree).encode()
