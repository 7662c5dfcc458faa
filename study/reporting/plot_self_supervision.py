"""What self-supervision learned: loss, error on images that it did not see, probes and reconstructions.

`self-supervision.json` in a study's folder has one entry per file of weights, see `MaskedLearner.finish`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from segstrat.store import DamagedFileError, Store, read_with_copy, say_once, write_with_copy
from study.frame import SELF_SUPERVISION, read_self_supervision
from study.reporting.figure_files import Picture
from study.reporting.figure_style import BLUE, GREEN, MUTED, new_panel


@dataclass(frozen=True)
class SelfSupervision:
    """The runs of a study, in the order of their seeds.

    Args:
        runs: each with `seed`, `losses`, `errors`, `nearest_patch_error`, `turns_found`, where there were
            classes `probe` and `probe_of_random_features`, and `examples`, a JPEG in base64.
        shows_example: whether a page shows that picture.
    """

    runs: Sequence[Mapping[str, Any]]
    shows_example: bool = True

    @property
    def sentence(self) -> str:
        """Errors of all runs, and what the linear probes found."""
        last = [run["errors"][-1] for run in self.runs]
        copied = [run["nearest_patch_error"] for run in self.runs]
        words = (
            f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}: the squared error of masked patches in "
            f"images that were held out is {_range(last)} of that of each image's mean color; copying the "
            f"nearest patch has {_range(copied)}."
        )
        turns = [run["turns_found"] for run in self.runs if "turns_found" in run]
        if turns:
            words += f" Of their four turns {_range(turns, percent=True)} are found (guessing: 25 %)."
        probes = [run["probe"] for run in self.runs if "probe" in run]
        if not probes:
            return words
        random = [run["probe_of_random_features"] for run in self.runs if "probe" in run]
        return (
            f"{words} A linear probe of the features classifies {_range(probes, percent=True)} of images, "
            f"of random features {_range(random, percent=True)}."
        )

    @property
    def example(self) -> str:
        """The picture of the first run, as a page contains it."""
        return f"data:image/jpeg;base64,{self.runs[0]['examples']}"


def _range(values: Sequence[float], *, percent: bool = False) -> str:
    low, high = (f"{100 * end:.0f} %" if percent else f"{end:.2f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def self_supervision_of(store: Store) -> SelfSupervision | None:
    """The runs of a study; None where it has none."""
    runs = read_self_supervision(store)
    found = SelfSupervision(runs) if runs else None
    try:
        if found:
            _ = found.sentence, found.example
    except (KeyError, TypeError, ValueError, IndexError) as error:
        say_once(
            f"{store.uri}/{SELF_SUPERVISION} cannot be read ({error}); the report shows no self-supervision"
        )
        return None
    return found


def add_runs(store: Store, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds runs, by file of weights, to those of a study."""
    try:
        before = read_with_copy(store, SELF_SUPERVISION)
    except (FileNotFoundError, DamagedFileError):
        before = {}
    write_with_copy(store, SELF_SUPERVISION, {**before, **runs})


def self_supervision_table(found: SelfSupervision) -> pd.DataFrame:
    """`run epoch loss error`: of every epoch; `run` is the position in `found.runs`."""
    rows = [
        {"run": index, "epoch": epoch, "loss": loss, "error": error}
        for index, run in enumerate(found.runs)
        for epoch, (loss, error) in enumerate(zip(run["losses"], run["errors"], strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=["run", "epoch", "loss", "error"])


def draw_self_supervision(table: pd.DataFrame, copied: float) -> Figure:
    """Loss and held-out error over the epochs, one line per run.

    Args:
        copied: error of copying the nearest patch.
    """
    with new_panel("Self-supervision: error of masked patches") as (figure, ax):
        for run, lines in table.groupby("run"):
            first = run == 0
            ax.plot(
                lines["epoch"], lines["error"], color=BLUE, lw=1.4, label="held-out images" if first else None
            )
            scale = lines["error"].iloc[-1] / lines["loss"].iloc[-1] if lines["loss"].iloc[-1] else 1.0
            ax.plot(
                lines["epoch"], lines["loss"] * scale, color=GREEN, lw=1, ls="--",
                label="training loss, scaled to the same end" if first else None,
            )  # fmt: skip
        ax.axhline(1.0, color=MUTED, lw=0.8, ls=":", label="mean color")
        ax.axhline(copied, color=MUTED, lw=0.8, ls="-.", label="nearest patch")
        ax.set_xlabel("epoch")
        # The first epochs may be far worse than the mean color; where all ends must be seen.
        ends = table.groupby("run")["error"].last()
        ax.set_ylim(0, 1.1 * max(1.0, copied, float(ends.max())))
        if table["epoch"].max() == 1:
            ax.plot(table["epoch"], table["error"], "o", color=BLUE)
            ax.set_xticks([1])
        figure.legend(loc="outside lower center", ncols=2, labelcolor=MUTED)
    return figure


def self_supervision_picture(found: SelfSupervision | None) -> Picture | None:
    """Loss and error of every run; None without any."""
    if found is None:
        return None
    copied = sum(run["nearest_patch_error"] for run in found.runs) / len(found.runs)
    return Picture(
        "self-supervision",
        "Self-supervision",
        f"{found.sentence} Validation and test images and all labels of the study were not read.",
        (draw_self_supervision(self_supervision_table(found), copied),),
    )
