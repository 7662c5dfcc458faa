"""Studies of three starting points with known truth: how often any statement of the answer is false.

Eighteen cells: raw, self-supervised and given weights with six settings each, whose first one is the
reference of raw and of self-supervised. Every two starting points are a comparison of `simulated_grid`'s
twelve cells, and all comparisons read the same trials.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.simulated_grid import CELLS, REFERENCE, Grid, block_sizes, screening_frame
from study.analysis.answering.decision import Label, Look, replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import better_half, nominate

MARGIN = 0.01
CONTRASTS = ("gap", "improvement", "remaining")
RAW, SELF, GIVEN = range(6), range(6, 12), range(12, 18)
PAIRS = {
    "given, raw": np.array([*RAW, *GIVEN]),
    "self, raw": np.array([*RAW, *SELF]),
    "given, self": np.array([*SELF, *GIVEN]),
}
DESIGN = AnsweringDesign().of_comparisons(len(PAIRS))
# Points above the raw reference: best regularized raw; reference and best regularized self; best given.
# In each row the truth of some comparison lies at a boundary, where most labels are false.
TRUTHS: Mapping[str, tuple[float, float, float, float]] = {
    "given 1 point above the others, which are equal": (7, 0, 7, 8),
    "own images and regularization do nothing": (0, 0, 0, 8),
    "own images add 1 point, given weights 8 more": (0, 1, 1, 9),
}
# Noise, standard deviations in points and probability of a collapse: raw, self-supervised, given.
NOISES: Mapping[str, tuple[str, tuple[float, float, float], tuple[float, float, float]]] = {
    "normal": ("normal", (1, 1, 1), (0, 0, 0)),
    "t with 3 degrees": ("t3", (1, 1, 1), (0, 0, 0)),
    "collapses, all": ("normal", (1, 1, 1), (0.1, 0.1, 0.1)),
    "collapses, raw only": ("normal", (1, 1, 1), (0.1, 0, 0)),
    "raw sd 3, others 0.5": ("normal", (3, 0.5, 0.5), (0, 0, 0)),
    "raw sd 0.5, others 3": ("normal", (0.5, 3, 3), (0, 0, 0)),
    "exponential": ("exponential", (1, 1, 1), (0, 0, 0)),
}


def truth_of(
    levels: tuple[float, float, float, float],
    noise: tuple[str, tuple[float, float, float], tuple[float, float, float]],
) -> Grid:
    """A grid of eighteen cells; the best of each starting point is 3 to 6 points above its others."""
    kind, deviations, collapse = noise
    raw, own_reference, own, given = levels
    trail, trail_given = np.array([3, 3, 0, 3, 4]), np.array([4, 4, 0, 4, 4, 6])
    cells = [[0], raw - trail, [own_reference], own - trail, given - trail_given]
    share = np.repeat(collapse, 6)
    means = 0.25 + np.concatenate(cells) / 100 + Grid.depth * share
    deviation = np.repeat(deviations, 6) / 100
    return Grid(means=means, deviations=deviation, noise=kind, collapse=share)  # type: ignore[arg-type]


def pair_truth(truth: Grid, cells: np.ndarray) -> dict[str, float]:
    """The contrasts of two starting points."""
    changes = {name: getattr(truth, name)[cells] for name in ("means", "collapse")}
    return replace(truth, **changes).truth


def is_false(label: Label | None, truth: Mapping[str, float]) -> bool:
    """Whether a label says something that is not so; at a boundary, both sides are false."""
    gap, gain, remaining = (round(truth[name], 9) for name in CONTRASTS)
    return {
        Label.CLOSES: remaining >= MARGIN,
        Label.NARROWS: remaining <= MARGIN or gain <= 0,
        Label.DOES_NOT_CLOSE: remaining <= MARGIN,
        Label.NOT_NEEDED: gap >= MARGIN,
        Label.HURTS: gap >= -MARGIN,
    }.get(label or Label.UNDETERMINED, False)


def run_starts(truth: Grid, rng: np.random.Generator, design: AnsweringDesign) -> tuple[dict[str, Look], int]:
    """The last look of each comparison of one study, and its trials."""
    shown, diverged = truth.scores(rng, design.screening_seeds)
    trained = [set(range(18))]
    frames = {}
    for name, cells in PAIRS.items():
        every: list[list[str]] = [list(CELLS)]
        frames[name] = screening_frame(shown[:, cells], diverged[:, cells], every)
    for _ in range(1, design.screening_seeds):
        # A cell is trained again if it is in the better half of any comparison.
        better = {
            int(cells[CELLS.index(cell)])
            for name, cells in PAIRS.items()
            for cell in better_half(frames[name], REFERENCE)
        }
        trained.append(better)
        for name, cells in PAIRS.items():
            seeds = [[CELLS[at] for at, cell in enumerate(cells) if cell in chosen] for chosen in trained]
            frames[name] = screening_frame(shown[:, cells], diverged[:, cells], seeds)
    values, _ = truth.scores(rng, design.max_seeds)
    last, answered = {}, set()
    for name, cells in PAIRS.items():
        roles = nominate(frames[name], REFERENCE, design).roles
        looks = replay(pd.DataFrame(values[:, cells], columns=list(CELLS)), roles, design)
        for look in looks:
            answered |= {(int(cells[CELLS.index(cell)]), seed) for cell in roles.active for seed in look.used}
            roles = look.roles
        last[name] = looks[-1]
    return last, sum(map(len, trained)) + len(answered)


@dataclass(frozen=True)
class Found:
    """Counts over many studies of one truth: false statements, false studies, coverage, trials."""

    studies: int
    false: Counter[str]
    any_false: int
    uncovered: int
    trials: int


def _studies(part: tuple[Grid, int, tuple[int, int]]) -> Found:
    truth, repetitions, seed = part
    rng = np.random.default_rng(seed)
    truths = {name: pair_truth(truth, cells) for name, cells in PAIRS.items()}
    false: Counter[str] = Counter()
    any_false = uncovered = trials = 0
    for _ in range(repetitions):
        looks, cost = run_starts(truth, rng, DESIGN)
        wrong = [name for name, look in looks.items() if is_false(look.label, truths[name])]
        false.update(wrong)
        any_false += bool(wrong)
        uncovered += any(
            not interval.low <= truths[name][contrast] <= interval.high
            for name, look in looks.items()
            for contrast in CONTRASTS
            if (interval := getattr(look, contrast)).low is not None
        )
        trials += cost
    return Found(repetitions, false, any_false, uncovered, trials)


def _many_studies(truth: Grid, repetitions: int) -> list[Found]:
    """On all processors."""
    parts = [(truth, size, (5, part)) for part, size in enumerate(block_sizes(repetitions))]
    if len(parts) == 1:
        return [_studies(parts[0])]
    with ProcessPoolExecutor() as pool:
        return [*pool.map(_studies, parts)]


def starts_table(repetitions: int) -> str:
    """False statements of whole studies of three starting points."""
    heads = ["noise", "truth", *(f"{name}: false, %" for name in PAIRS)]
    heads += ["any statement false, %", "some interval misses, %", "trials"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for noise_name, noise in NOISES.items():
        for truth_name, levels in TRUTHS.items():
            truth = truth_of(levels, noise)
            found = _many_studies(truth, repetitions)
            total = sum(each.studies for each in found)
            false = sum((each.false for each in found), Counter[str]())
            counts = [*(false[name] for name in PAIRS), sum(each.any_false for each in found)]
            counts.append(sum(each.uncovered for each in found))
            cells = [noise_name, truth_name, *(f"{100 * count / total:.1f}" for count in counts)]
            lines.append(f"| {' | '.join(cells)} | {sum(each.trials for each in found) / total:.0f} |")
    return "\n".join(lines)
