"""Does screening keep a raw cell that is best in the end and slow to start?

Every cell's curve rises to its final score at its own rate. The best raw cell ends 1.5 points ahead of the
next and starts late in one of several ways. One cell of each arm may hardly learn anything, as with the
strongest weight decay. Compared are rungs within the epoch budget (`study.state.halving`), halving over seeds
(`study.analysis.answering.nominate.better_half`), and both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.simulated_grid import CELLS, PRETRAINED, REFERENCE, Grid, grid
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import better_half, nominate
from study.state.halving import Competitor, Decision, HalvingRule, decide

BEST = "raw 3"
EPOCHS = 40
SEEDS = 2
START = 0.10
"""The score of a constant prediction, from which every curve starts."""
WITHOUT_EFFECT = 0.15
"""Share of the others' gain that a cell makes which never learns."""


@dataclass(frozen=True)
class Start:
    """How the best raw cell starts: its rate, and the share of the training before it begins to learn."""

    rate: float
    flat: float = 0.0


STARTS = {
    "as fast as the others": Start(3.0),
    "slow": Start(1.5),
    "very slow": Start(0.5),
    "not at all for a fifth": Start(3.0, flat=0.2),
}


@dataclass(frozen=True)
class Method:
    """How a study screens.

    Args:
        rule: of the rungs.
        halves: whether only the better half of each arm is trained on the second seed.
        ranked: whether a trial is judged at the rungs by its rank, on the first and on the second seed.
    """

    rule: HalvingRule
    halves: bool
    ranked: tuple[bool, bool] = (False, False)


BY_RANK = HalvingRule(least_shares=())
METHODS = {
    "rank at 1/4 and 1/2": Method(BY_RANK, halves=False, ranked=(True, True)),
    "rank at 1/2": Method(HalvingRule(fractions=(0.5,), least_shares=()), halves=False, ranked=(True, True)),
    "better half on the second seed": Method(BY_RANK, halves=True),
    "the same, and its trials by rank": Method(BY_RANK, halves=True, ranked=(False, True)),
    "better half, and trailing (the study's)": Method(HalvingRule(), halves=True),
}


def screening_table(repetitions: int) -> str:
    """How often the best raw cell is among the candidates, and the share of the full grid's epochs."""
    lines = [
        "| screening | best raw cell starts | kept among the candidates, % | epochs, % of the full grid | "
        "the same where a cell of each arm learns nothing, % |",
        "|" + " --- |" * 5,
    ]
    truth = grid("peak", 0.5)
    for name, method in METHODS.items():
        for start_name, start in STARTS.items():
            rng = np.random.default_rng(0)
            kept, epochs, with_failures = 0, 0.0, 0.0
            for _ in range(repetitions):
                screened = _screen(truth, start, method, rng, failures=False)
                kept += BEST in nominate(screened, REFERENCE, AnsweringDesign()).roles.raw
                epochs += screened["reached"].sum() / (SEEDS * len(CELLS))
                screened = _screen(truth, start, method, rng, failures=True)
                with_failures += screened["reached"].sum() / (SEEDS * len(CELLS))
            shares = [f"{100 * value / repetitions:.0f}" for value in (kept, epochs, with_failures)]
            lines.append(f"| {name} | {start_name} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _screen(
    truth: Grid, start: Start, method: Method, rng: np.random.Generator, *, failures: bool
) -> pd.DataFrame:
    final, _ = truth.scores(rng, SEEDS)
    if failures:
        for cell in (CELLS[5], PRETRAINED[-1]):
            place = CELLS.index(cell)
            final[:, place] = START + WITHOUT_EFFECT * (final[:, place] - START)
    rates = np.where(np.isin(CELLS, PRETRAINED), 6.0, 3.0)
    flat = np.zeros(len(CELLS))
    rates[CELLS.index(BEST)], flat[CELLS.index(BEST)] = start.rate, start.flat
    wobble = rng.normal(0, 0.007, (SEEDS, EPOCHS, 12))
    parts: list[pd.DataFrame] = []
    for seed in range(SEEDS):
        chosen: Sequence[str] = CELLS
        if method.halves and seed:
            chosen = better_half(pd.concat(parts, ignore_index=True), REFERENCE)
        for arm in (CELLS[:6], PRETRAINED):
            cells = [cell for cell in arm if cell in chosen]
            curves = _Curves(final[seed], rates, flat, wobble[seed])
            parts.append(_judged(cells, seed, method, curves, rng))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class _Curves:
    """Scores of all cells over the epochs of one seed: one value per cell, `wobble` one per epoch."""

    final: np.ndarray
    rates: np.ndarray
    flat: np.ndarray
    wobble: np.ndarray

    def value(self, cell: str, epoch: int) -> float:
        place = CELLS.index(cell)
        share = max(0.0, (epoch / EPOCHS - self.flat[place]) / (1 - self.flat[place]))
        rate = self.rates[place]
        gained = (self.final[place] - START) * float(np.expm1(-rate * share) / np.expm1(-rate))
        return START + gained + float(self.wobble[epoch, place])


def _judged(
    cells: Sequence[str], seed: int, method: Method, curves: _Curves, rng: np.random.Generator
) -> pd.DataFrame:
    """The trials of one arm and seed, judged at the rungs in a shuffled order."""
    cells = [cells[place] for place in rng.permutation(len(cells))]
    rungs = method.rule.rung_epochs(EPOCHS)
    shown = {cell: [curves.value(cell, rung or 0) for rung in rungs] for cell in cells}
    group = [
        Competitor(
            epochs=rungs,
            values=tuple(shown[cell]),
            learned=tuple(max(0.0, value - START) for value in shown[cell]),
            ended=True,
            exempt=cell == REFERENCE,
            ranked=method.ranked[seed],
        )
        for cell in cells
    ]
    rows = []
    for cell, decisions in zip(cells, decide(group, method.rule), strict=True):
        row = {
            "cell": cell,
            "pretrained": cell in PRETRAINED,
            "seed": seed,
            "status": "completed",
            "value": float(curves.final[CELLS.index(cell)]),
            "reached": 1.0,
        }
        if Decision.STOP in decisions:
            rung = decisions.index(Decision.STOP)
            reached = (rungs[rung] or 0) / EPOCHS
            row |= {"status": "stopped", "value": shown[cell][rung], "reached": reached}
        rows.append(row)
    return pd.DataFrame(rows)
