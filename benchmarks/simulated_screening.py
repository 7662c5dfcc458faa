"""Does screening keep a raw cell that is best in the end and slow to start?

Every cell's curve rises to its final score at its own rate. The best raw cell ends 1.5 points ahead of the
next and rises slowly. Compared are rungs within the epoch budget (`study.state.halving`) and halving over
seeds (`study.analysis.answering.nominate.better_half`).
"""

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
RATES = {"as fast as the others": 3.0, "slow": 1.5, "very slow": 0.5}
METHODS = {
    "rungs at 1/4 and 1/2": HalvingRule(),
    "rung at 1/2": HalvingRule(fractions=(0.5,)),
    "better half on the second seed": None,
}


def screening_table(repetitions: int) -> str:
    """How often the best raw cell is among the candidates, and the share of the full grid's epochs."""
    lines = [
        "| screening | best raw cell starts | kept among the candidates, % | epochs, % of the full grid |",
        "|" + " --- |" * 4,
    ]
    truth = grid("peak", 0.5)
    for method, rule in METHODS.items():
        for name, rate in RATES.items():
            rng = np.random.default_rng(0)
            kept, epochs = 0, 0.0
            for _ in range(repetitions):
                screened = _screen(truth, rate, rule, rng)
                kept += BEST in nominate(screened, REFERENCE, AnsweringDesign()).roles.raw
                epochs += screened["reached"].sum() / (SEEDS * len(CELLS))
            shares = [f"{100 * value / repetitions:.0f}" for value in (kept, epochs)]
            lines.append(f"| {method} | {name} | {shares[0]} | {shares[1]} |")
    return "\n".join(lines)


def _screen(truth: Grid, rate: float, rule: HalvingRule | None, rng: np.random.Generator) -> pd.DataFrame:
    final, _ = truth.scores(rng, SEEDS)
    rates = np.where(np.isin(CELLS, PRETRAINED), 6.0, 3.0)
    rates[CELLS.index(BEST)] = rate
    wobble = rng.normal(0, 0.007, (SEEDS, EPOCHS, 12))
    parts = []
    if rule is not None:
        for seed in range(SEEDS):
            for arm in (CELLS[:6], PRETRAINED):
                parts.append(_stopped(arm, seed, rule, final[seed], rates, wobble[seed], rng))
        return pd.concat(parts, ignore_index=True)
    parts = [_rows(CELLS, 0, final[0])]
    for seed in range(1, SEEDS):
        cells = better_half(pd.concat(parts, ignore_index=True), REFERENCE)
        parts.append(_rows(cells, seed, final[seed]))
    return pd.concat(parts, ignore_index=True)


def _rows(cells: object, seed: int, values: np.ndarray) -> pd.DataFrame:
    names = list(cells)  # type: ignore[call-overload]
    return pd.DataFrame(
        {
            "cell": names,
            "pretrained": [cell in PRETRAINED for cell in names],
            "seed": seed,
            "status": "completed",
            "value": [values[CELLS.index(cell)] for cell in names],
            "reached": 1.0,
        }
    )


def _curve(final: float, rate: float, epoch: int) -> float:
    share = epoch / EPOCHS
    return START + (final - START) * float(np.expm1(-rate * share) / np.expm1(-rate))


def _stopped(
    arm: tuple[str, ...],
    seed: int,
    rule: HalvingRule,
    final: np.ndarray,
    rates: np.ndarray,
    wobble: np.ndarray,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The trials of one arm and seed, judged at the rungs in a shuffled order."""
    cells = [arm[place] for place in rng.permutation(len(arm))]
    rungs = rule.rung_epochs(EPOCHS)
    shown = {
        cell: [
            _curve(final[place], rates[place], rung or EPOCHS) + wobble[rung or 0, place] for rung in rungs
        ]
        for cell in cells
        for place in (CELLS.index(cell),)
    }
    group = [
        Competitor(epochs=rungs, values=tuple(shown[cell]), ended=True, exempt=cell == REFERENCE)
        for cell in cells
    ]
    frame = _rows(cells, seed, final)
    for row, decisions in enumerate(decide(group, rule)):
        stops = [rung for rung, decision in enumerate(decisions) if decision is Decision.STOP]
        if stops:
            frame.loc[row, ["status", "value", "reached"]] = [
                "stopped", shown[cells[row]][stops[0]], (rungs[stops[0]] or 0) / EPOCHS,
            ]  # fmt: skip
    return frame
