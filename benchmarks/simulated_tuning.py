"""Does choosing a learning rate for each setting in screening lead to false answers?

Every cell of `simulated_grid` is trained at three rates. One of them, drawn at random, is the best of its
cell and scores what the grid says; each other one trails by a penalty. The truth compares cells at their best
rates. Screening may prefer a wrong rate: for the reference that makes regularization look helpful, for the
best pre-trained cell it makes the gap look closed. So every rate that may be best answers.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.simulated_grid import CELLS, PRETRAINED, REFERENCE, Grid, Outcome, answering_trials, grid
from study.analysis.answering.decision import replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import best_values, better_half, nominate

RATES = 3
GAP, MARGIN = 0.08, 0.01
ALL, BEST = "all that may be best", "the best of screening"
# Shape of the grid, by how much the other rates trail (mIoU), and which rates answer.
CASES = (
    ("peak", 0.005, ALL),
    ("peak", 0.01, ALL),
    ("peak", 0.02, ALL),
    ("tied raw", 0.01, ALL),
    ("hidden", 0.01, ALL),
    ("tied raw", 0.01, BEST),
)
NAMES = [f"{cell} ({rate})" for cell in CELLS for rate in range(RATES)]


def tuned_table(repetitions: int) -> str:
    """False answers where each cell has one of three learning rates."""
    lines = [
        "| grid | other rates trail by, points | rates that answer | “closes” at the margin, % "
        "| “narrows” without a gain, % | reference's rate wrong in screening, % | trials |",
        "|" + " --- |" * 7,
    ]
    for shape, penalty, rates in CASES:
        false, wrong, trials = [], 0, 0
        for closure, label in ((1 - MARGIN / GAP, "closes"), (0.0, "narrows")):
            rng = np.random.default_rng(4)
            truth = grid(shape, closure, gap=GAP)
            found = [run_tuned_study(truth, penalty, rng, rates) for _ in range(repetitions)]
            false.append(sum(study.last.label == label for study, _ in found))
            wrong += sum(lost for _, lost in found)
            trials += sum(study.trials for study, _ in found)
        shares = [f"{100 * count / repetitions:.1f}" for count in (*false, wrong / 2)]
        cost = f"{trials / 2 / repetitions:.0f}"
        lines.append(f"| {' | '.join([shape, f'{100 * penalty:g}', rates, *shares, cost])} |")
    return "\n".join(lines)


def run_tuned_study(
    truth: Grid, penalty: float, rng: np.random.Generator, rates: str = ALL
) -> tuple[Outcome, bool]:
    """Both stages of a study that chooses a rate for each cell.

    Args:
        penalty: by how much the rates that are not best trail, in mIoU.
        rates: which rates of a setting answer: `ALL` (what studies do) or `BEST`.

    Returns:
        the outcome, and whether screening prefers a wrong rate of the reference.
    """
    design = AnsweringDesign()
    trails = np.full((len(CELLS), RATES), penalty)
    trails[np.arange(len(CELLS)), rng.integers(RATES, size=len(CELLS))] = 0.0
    screening = _scores(truth, trails, rng, design.screening_seeds)
    trained: list[Sequence[str]] = [NAMES]
    for _ in range(1, design.screening_seeds):
        trained.append(better_half(_frame(screening, trained), REFERENCE))
    screened = _frame(screening, trained)
    answers = screened["cell"].isin(best_values(screened)["cell"]) if rates == BEST else slice(None)
    nomination = nominate(screened[answers], REFERENCE, design)
    answering = pd.DataFrame(_scores(truth, trails, rng, design.max_seeds), columns=NAMES)
    looks = replay(answering, nomination.roles, design)
    trials = len(screened) + answering_trials(nomination.roles, looks)
    wrong = trails.ravel()[NAMES.index(nomination.roles.reference)] > 0
    return Outcome(nomination, looks, trials, answering), bool(wrong)


def _scores(truth: Grid, trails: np.ndarray, rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Final scores (seeds, cells × rates); every rate of a cell has noise of its own."""
    own = np.stack([truth.scores(rng, seeds)[0] for _ in range(RATES)], axis=2)
    return (own - trails).reshape(seeds, -1)


def _frame(values: np.ndarray, trained: Sequence[Sequence[str]]) -> pd.DataFrame:
    pairs = [(seed, name) for seed, names in enumerate(trained) for name in names]
    settings = [name.partition(" (")[0] for _, name in pairs]
    return pd.DataFrame(
        {
            "cell": [name for _, name in pairs],
            "setting": settings,
            "pretrained": [setting in PRETRAINED for setting in settings],
            "seed": [seed for seed, _ in pairs],
            "status": "completed",
            "value": [values[seed, NAMES.index(name)] for seed, name in pairs],
            "reached": 1.0,
        }
    )
