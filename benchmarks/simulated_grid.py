"""A grid of cells whose true scores are known, and whole studies of it. No training, no Ray.

Twelve cells as in `wd_grid`: the reference, five regularized raw ones and six pre-trained ones. `SHAPES` says
by how many points each trails the best of its arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from study.analysis.answering.decision import Look, Roles, replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import Nomination, better_half, nominate

BLOCK = 100
REFERENCE = "raw 0"
RAW = tuple(f"raw {number}" for number in range(1, 6))
PRETRAINED = tuple(f"pre {number}" for number in range(6))
CELLS = (REFERENCE, *RAW, *PRETRAINED)

# Points by which the regularized raw and the pre-trained cells trail the best of their arm.
SHAPES: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "peak": ((3, 1.5, 0, 1.5, 4), (2, 1, 0, 1, 2, 6)),
    "clear": ((3, 3, 0, 3, 4), (4, 4, 0, 4, 4, 6)),
    "plateau": ((1, 0.5, 0, 0.5, 5), (1, 0.5, 0, 0.5, 1, 6)),
    "tied": ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0)),
    "tied raw": ((0, 0, 0, 0, 0), (4, 4, 0, 4, 4, 6)),
    "hidden": ((0, 1, 1, 2, 2), (1, 1, 1, 1, 1, 0)),
}
# Of a score over seeds, in points: equal, by cell, and by arm.
DEVIATIONS = {
    "equal": np.ones(12),
    "by cell": np.array([1.5, 0.7, 1, 0.7, 1, 2, 0.5, 1, 0.7, 1, 0.5, 2]),
    "raw 3": np.repeat([3, 0.5], 6),
    "pretrained 3": np.repeat([0.5, 3], 6),
}
ARMS = {"raw": np.repeat([1.0, 0.0], 6), "pretrained": np.repeat([0.0, 1.0], 6), "both": np.ones(12)}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Truth and noise; scores are mIoU, a point is 0.01.

    Args:
        means: true score of each of `CELLS`.
        deviations: of each cell's score over seeds, apart from what a seed does to all cells.
        correlation: share of a seed's variance that all cells share.
        noise: the distribution of what they do not share.
        divergence: probability that a trial of a cell diverges and scores `floor`.
        collapse: probability that a trial of a cell ends `depth` below its level, as trainings do that lose
            a class.
    """

    means: np.ndarray
    deviations: np.ndarray = field(default_factory=lambda: np.full(12, 0.01))
    correlation: float = 0.0
    noise: Literal["normal", "exponential", "t3"] = "normal"
    divergence: np.ndarray = field(default_factory=lambda: np.zeros(1))
    floor: float = 0.05
    collapse: np.ndarray = field(default_factory=lambda: np.zeros(12))
    depth: float = 0.08

    @property
    def expected(self) -> np.ndarray:
        """True mean of each cell, diverged and collapsed trials included."""
        level = self.means - self.depth * self.collapse
        return level * (1 - self.divergence) + self.floor * self.divergence

    @property
    def truth(self) -> dict[str, float]:
        """The four contrasts between the best cells."""
        means = self.expected
        gap, improvement = means[6:].max() - means[0], means[1:6].max() - means[0]
        return {
            "gap": gap,
            "improvement": improvement,
            "remaining": gap - improvement,
            "closure": improvement / gap if gap else np.nan,
        }

    def scores(self, rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        """Final scores and which trials diverged, both (seeds, cells)."""
        shape = (seeds, len(self.means))
        own = rng.normal(size=shape)
        if self.noise == "exponential":
            own = rng.exponential(size=shape) - 1
        elif self.noise == "t3":
            own = rng.standard_t(3, size=shape) / np.sqrt(3)
        scale = np.sqrt(self.correlation / (1 - self.correlation)) * np.mean(self.deviations)
        values = self.means + own * self.deviations + scale * rng.normal(size=(seeds, 1))
        if self.collapse.any():
            values = values - self.depth * (rng.random(shape) < self.collapse)
        diverged = rng.random(shape) < self.divergence
        return np.where(diverged, self.floor, values), diverged


def grid(
    shape: str, closure: float, *, gap: float = 0.08, points: float = 1.0, spread: str = "equal"
) -> Grid:
    """A grid of one of `SHAPES`.

    Args:
        closure: share of the gap that the best raw cell closes.
        gap: between the reference and the best pre-trained cell, in mIoU.
        points: mean standard deviation over seeds, in points; of a spread by arm, a factor.
        spread: one of `DEVIATIONS`.
    """
    raw, pretrained = (np.array(trails) / 100 for trails in SHAPES[shape])
    means = 0.25 + np.concatenate([[0.0], closure * gap - raw, gap - pretrained])
    deviations = DEVIATIONS[spread]
    level = deviations.mean() if spread in ("equal", "by cell") else 1.0
    return Grid(means=means, deviations=deviations / level * points / 100)


@dataclass(frozen=True)
class Outcome:
    """A whole study.

    Args:
        nomination: what screening nominated.
        looks: of the answering stage.
        trials: of both stages.
        values: final scores of the answering stage, also of trials that the looks do not ask for.
    """

    nomination: Nomination
    looks: list[Look]
    trials: int
    values: pd.DataFrame

    @property
    def last(self) -> Look:
        """The look that ended the study."""
        return self.looks[-1]


def screening_frame(
    values: np.ndarray, diverged: np.ndarray, trained: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """Screening trials as `nominate` takes them; `trained` holds the cells of each seed."""
    pairs = [(seed, CELLS.index(cell)) for seed, cells in enumerate(trained) for cell in cells]
    return pd.DataFrame(
        {
            "cell": [CELLS[cell] for _, cell in pairs],
            "pretrained": [CELLS[cell] in PRETRAINED for _, cell in pairs],
            "seed": [seed for seed, _ in pairs],
            "status": ["diverged" if diverged[pair] else "completed" for pair in pairs],
            "value": [values[pair] for pair in pairs],
            "reached": 1.0,
        }
    )


def screen(truth: Grid, rng: np.random.Generator, design: AnsweringDesign) -> pd.DataFrame:
    """All cells on the first seed, the better half of each arm on the others."""
    values, diverged = truth.scores(rng, design.screening_seeds)
    trained: list[Sequence[str]] = [CELLS]
    for _ in range(1, design.screening_seeds):
        trained.append(better_half(screening_frame(values, diverged, trained), REFERENCE))
    return screening_frame(values, diverged, trained)


def answering_values(truth: Grid, rng: np.random.Generator, seeds: int) -> pd.DataFrame:
    """Final scores on fresh seeds (seeds × cells)."""
    return pd.DataFrame(truth.scores(rng, seeds)[0], columns=list(CELLS))


def run_study(truth: Grid, rng: np.random.Generator, design: AnsweringDesign) -> Outcome:
    """Both stages of a study."""
    screened = screen(truth, rng, design)
    nomination = nominate(screened, REFERENCE, design)
    values = answering_values(truth, rng, design.max_seeds)
    looks = replay(values, nomination.roles, design)
    return Outcome(nomination, looks, len(screened) + answering_trials(nomination.roles, looks), values)


def answering_trials(roles: Roles, looks: Sequence[Look]) -> int:
    """How many trials the looks cost."""
    trained: set[tuple[str, int]] = set()
    for look in looks:
        trained |= {(cell, seed) for cell in roles.active for seed in look.used}
        roles = look.roles
    return len(trained)


def block_sizes(repetitions: int) -> list[int]:
    """Studies are drawn in blocks of one size, so that the numbers do not depend on the machine."""
    return [min(BLOCK, repetitions - start) for start in range(0, repetitions, BLOCK)]


def noisier(truth: Grid, **changes: object) -> Grid:
    """The same truth under other noise; with trials that collapse, the levels rise so that means stay."""
    collapse = changes.pop("collapse", None)
    found = replace(truth, **changes)  # type: ignore[arg-type]
    if collapse is None:
        return found
    share = 0.1 * ARMS[str(collapse)]
    return replace(found, collapse=share, means=found.means + found.depth * share)
