"""Screening replayed on a recorded study: `wd_grid` on figures, 12 cells on 3 seeds, nobody stopped early.

Final validation mIoU, float32, as published in docs/example/ of version 0.1.
"""

import itertools

import pandas as pd

from study.analysis.answering.nominate import better_half, nominate

DECAYS = ("0", "1e-4", "5e-4", "1e-3", "5e-3", "2e-2")
FINAL = {
    "raw": (
        *((0.258, 0.241, 0.253), (0.239, 0.223, 0.277), (0.260, 0.252, 0.267)),
        *((0.242, 0.250, 0.279), (0.279, 0.266, 0.267), (0.0737, 0.107, 0.106)),
    ),
    "pre-trained": (
        *((0.337, 0.344, 0.336), (0.338, 0.346, 0.337), (0.339, 0.348, 0.339)),
        *((0.344, 0.350, 0.343), (0.335, 0.334, 0.336), (0.163, 0.165, 0.191)),
    ),
}
REFERENCE = "raw 0"


def recorded_trials():
    rows = [
        {"cell": f"{arm} {decay}", "pretrained": arm != "raw", "seed": seed, "value": value}
        for arm, cells in FINAL.items()
        for decay, values in zip(DECAYS, cells, strict=True)
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(status="completed", reached=1.0)


def nominated(trials, first, second):
    screened = trials[trials["seed"] == first]
    half = better_half(screened, REFERENCE)
    screened = pd.concat([screened, trials[(trials["seed"] == second) & trials["cell"].isin(half)]])
    assert len(screened) <= 0.75 * 24
    return nominate(screened, REFERENCE).roles


def test_screening_keeps_the_best_cells():
    """The best raw cell is missed in one order of seeds, where it is fourth on the first one by a tie."""
    trials = recorded_trials()
    means = trials[trials["cell"] != REFERENCE].groupby(["pretrained", "cell"])["value"].mean()
    raw, pretrained = (means[arm].idxmax() for arm in (False, True))
    roles = {order: nominated(trials, *order) for order in itertools.permutations(range(3), 2)}
    assert [order for order, found in roles.items() if raw not in found.raw] in ([], [(2, 0)])
    assert all(pretrained in found.pretrained for found in roles.values())
