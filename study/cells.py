"""`Study`: frames and manifest of one study, and what its axes mean."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segstrat.store import Store
from study.frame import load, read_manifest


@dataclass(frozen=True)
class Study:
    """A study as the analysis sees it.

    Args:
        name: the study's name.
        manifest: what was asked; may be empty.
        trials, epochs: the frames, see `study.frame`.
    """

    name: str
    manifest: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame

    @classmethod
    def open(cls, folder: str | Path | Store) -> "Study":
        """Reads a study's folder.

        Raises:
            UserError: if there are no frames, or of another version.
        """
        store = folder if isinstance(folder, Store) else Store(folder)
        trials, epochs = load(store)
        manifest = read_manifest(store)
        name = manifest.get("study") or store.uri.rstrip("/").rpartition("/")[2]
        return cls(name, manifest, trials, epochs)

    def axes(self, role: str) -> list[str]:
        """Names of the axes of a role (`arm`, `treatment`, `nuisance`) that this study varies."""
        return [axis for axis, its in self.manifest.get("roles", {}).items() if its == role]

    @property
    def tasks(self) -> list[str]:
        """Tasks that any trial learnt, the one of the study's metric first."""
        found = dict.fromkeys(task for tasks in self.trials["tasks"] for task in str(tasks).split("+"))
        metric = str(self.manifest.get("metric", ""))
        return sorted(found, key=lambda task: not metric.startswith(f"{task}_"))

    @property
    def value(self) -> str:
        """Prefix of the primary value's columns: the last epoch's, or the best's where only that is known.

        The last epoch of a completed trial is chosen by nobody; published tables may hold the best one only.
        """
        return "" if self.manifest.get("value") == "best" else "last_"

    def column(self, task: str, split: str, score: str) -> str:
        """Column of `trials` that holds the primary value of a score."""
        return f"{self.value}{task}_{split}_{score}"
