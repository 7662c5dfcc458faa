"""What screening nominates, on simulated screening stages whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.simulated_grid import REFERENCE, grid, screen
from segstrat.errors import UserError
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.nominate import better_half, nominate

DESIGN = AnsweringDesign(raw_candidates=2, pretrained_candidates=2)


def rows(cell, values, *, status="completed", reached=1.0):
    """One row per seed."""
    return [
        {"cell": cell, "pretrained": cell.startswith("pre"), "seed": seed, "status": status, "value": value,
         "reached": reached}
        for seed, value in enumerate(values)
    ]  # fmt: skip


def frame(*cells):
    return pd.DataFrame([row for cell in cells for row in cell])


PRE = rows("pre 0", [0.4, 0.41])


def test_the_best_of_each_arm_and_never_the_reference():
    trials = frame(
        rows("raw 0", [0.5, 0.5]), rows("raw 1", [0.2, 0.2]), rows("raw 2", [0.3, 0.31]),
        rows("raw 3", [0.29, 0.29]), PRE, rows("pre 1", [0.42, 0.41]), rows("pre 2", [0.2, 0.21]),
    )  # fmt: skip
    roles = nominate(trials, "raw 0", DESIGN).roles
    assert (roles.reference, roles.raw, roles.pretrained) == ("raw 0", ("raw 2", "raw 3"), ("pre 1", "pre 0"))


def test_a_missing_seed_neither_helps_nor_harms():
    """Seed 1 is hard for every cell; the cell that was not trained there must not win by that."""
    trials = frame(
        rows("raw 0", [0.40, 0.20]), rows("raw 1", [0.41]), rows("raw 2", [0.42, 0.22]),
        rows("raw 3", [0.405, 0.2]), PRE,
    )  # fmt: skip
    assert nominate(trials, "raw 0", DESIGN).roles.raw[0] == "raw 2"
    ranking = nominate(trials, "raw 0", DESIGN).ranking.set_index("cell")
    assert ranking.loc["raw 1", "score"] == pytest.approx(ranking.loc["raw 2", "score"] - 0.01, abs=0.003)


def test_an_interim_value_never_ranks_with_a_final_one():
    trials = frame(
        rows("raw 0", [0.2]), rows("raw 1", [0.5], status="stopped", reached=0.25), rows("raw 2", [0.3]),
        rows("raw 3", [0.25]), rows("raw 4", [0.6], status="stopped", reached=0.5), PRE,
    )  # fmt: skip
    found = nominate(trials, "raw 0", DESIGN)
    assert found.roles.raw == ("raw 2", "raw 3")
    raw = [cell for cell in found.ranking["cell"] if cell.startswith("raw")]
    assert raw == ["raw 2", "raw 3", "raw 0", "raw 4", "raw 1"]


def test_a_diverged_trial_ranks_with_the_worst():
    trials = frame(
        rows("raw 0", [0.2, 0.2, 0.2]), rows("raw 1", [0.30, 0.31, 0.30]), rows("raw 2", [0.34, 0.34]),
        PRE,
    )  # fmt: skip
    last = {**rows("raw 2", [0.9])[0], "seed": 2, "status": "diverged"}
    trials = pd.concat([trials, pd.DataFrame([last])], ignore_index=True)
    assert nominate(trials, "raw 0", DESIGN).roles.raw[0] == "raw 1"


def test_what_clearly_trails_is_left_out_and_what_may_be_best_is_not():
    design = AnsweringDesign(raw_candidates=4, pretrained_candidates=4)
    trials = frame(
        rows("raw 0", [0.20, 0.20]), rows("raw 1", [0.30, 0.301]), rows("raw 2", [0.299, 0.30]),
        rows("raw 3", [0.298, 0.303]), rows("raw 4", [0.15, 0.148]), PRE, rows("pre 1", [0.405, 0.405]),
    )  # fmt: skip
    roles = nominate(trials, "raw 0", design).roles
    assert set(roles.raw) == {"raw 1", "raw 2", "raw 3"}
    assert len(roles.pretrained) == 2, "every pre-trained setting is nominated"


def test_each_arm_is_judged_by_its_own_spread():
    """The raw arm varies by three points; pooled with a steady pre-trained one it would look decided."""
    trials = frame(
        rows("raw 0", [0.20, 0.21]), rows("raw 1", [0.30, 0.24]), rows("raw 2", [0.26, 0.30]),
        rows("raw 3", [0.24, 0.26]),
        *(rows(f"pre {number}", [0.4 + 1e-4 * (number % 2), 0.4]) for number in range(6)),
    )  # fmt: skip
    found = nominate(trials, "raw 0", AnsweringDesign())
    assert found.spreads[False][0] > 1.3 * found.spreads[True][0], "that of both arms is the smallest"
    assert set(found.roles.raw) == {"raw 1", "raw 2", "raw 3"}


def test_one_seed_tells_no_spread_and_nominates_by_rank():
    trials = frame(*(rows(f"raw {number}", [0.2 + number / 100]) for number in range(5)), PRE[:1])
    found = nominate(trials, "raw 0", DESIGN)
    assert found.roles.raw == ("raw 4", "raw 3")
    assert found.spreads[False][1] == 0


def test_ties_take_the_order_of_the_rows():
    trials = frame(*(rows(f"raw {number}", [0.3, 0.3]) for number in (0, 3, 1, 2)), PRE)
    assert nominate(trials, "raw 0", DESIGN).roles.raw == ("raw 3", "raw 1")


def test_without_candidates_there_is_no_nomination():
    with pytest.raises(UserError, match="no pre-trained cell"):
        nominate(frame(rows("raw 0", [0.2]), rows("raw 1", [0.2])), "raw 0")
    failed = rows("raw 1", [np.nan], status="failed", reached=0.0)
    with pytest.raises(UserError, match="no regularized raw cell"):
        nominate(frame(rows("raw 0", [0.2]), failed, PRE), "raw 0")
    with pytest.raises(UserError, match="no screening trial of the reference"):
        nominate(frame(rows("raw 1", [0.2]), PRE), "raw 0")


def test_a_further_seed_trains_the_better_half_without_the_reference():
    trials = frame(
        *(rows(f"raw {number}", [0.2 + number / 100]) for number in range(6)),
        *(rows(f"pre {number}", [0.4 - number / 100]) for number in range(6)),
    )
    assert better_half(trials, "raw 0") == ["raw 5", "raw 4", "raw 3", "pre 0", "pre 1", "pre 2"]


def test_screening_costs_three_quarters_and_keeps_the_best_cells():
    design, rng = AnsweringDesign(), np.random.default_rng(0)
    truth = grid("peak", 0.5)
    kept = {"raw": 0, "pretrained": 0}
    for _ in range(100):
        screened = screen(truth, rng, design)
        assert len(screened) <= 0.75 * 24
        roles = nominate(screened, REFERENCE, design).roles
        kept["raw"] += "raw 3" in roles.raw
        kept["pretrained"] += "pre 2" in roles.pretrained
    assert kept["raw"] >= 95
    assert kept["pretrained"] >= 95


def tuned(setting, **by_value):
    """The trials of a setting at each of its tuned values."""
    return [
        row | {"setting": setting}
        for value, scores in by_value.items()
        for row in rows(f"{setting} ({value})", scores)
    ]


TUNED = (
    tuned("raw 0", low=[0.20, 0.21], high=[0.25, 0.26]),
    tuned("raw 1", low=[0.30, 0.31], high=[0.10, 0.11]),
    tuned("raw 2", low=[0.29, 0.30], high=[0.28, 0.29]),
    tuned("raw 3", low=[0.15, 0.16], high=[0.20, 0.22]),
    tuned("pre 0", low=[0.40, 0.41], high=[0.39, 0.40]),
    tuned("pre 1", low=[0.35, 0.36], high=[0.42, 0.43]),
)


def test_every_setting_competes_at_its_own_tuned_value():
    roles = nominate(frame(*TUNED), "raw 0", DESIGN).roles
    assert roles.reference == "raw 0 (high)", "the reference is tuned by the same rule"
    assert roles.raw == ("raw 1 (low)", "raw 2 (low)")
    assert roles.pretrained == ("pre 1 (high)", "pre 0 (low)")


def test_a_value_of_the_reference_that_may_be_best_is_trained_again():
    """Half a point apart with a noise of half a point: screening cannot tell, the answering stage will."""
    close = tuned("raw 0", low=[0.246, 0.262], high=[0.255, 0.255], bad=[0.10, 0.11])
    roles = nominate(frame(close, *TUNED[1:]), "raw 0", DESIGN).roles
    assert roles.references == ("raw 0 (high)", "raw 0 (low)")
    assert set(roles.references) < set(roles.active)


def test_a_tuned_value_that_diverges_is_not_chosen():
    trials = frame(*TUNED)
    best = trials["cell"] == "raw 1 (low)"
    trials.loc[best, "status"] = "diverged"
    roles = nominate(trials, "raw 0", DESIGN).roles
    assert roles.raw[0] == "raw 2 (low)"


def test_a_further_seed_trains_the_better_half_of_settings_and_of_their_values():
    trials = frame(
        *(tuned(f"raw {n}", a=[0.2 + n / 100], b=[0.25 + n / 100], c=[0.1]) for n in range(5)),
        *(tuned(f"pre {n}", a=[0.4 + n / 100], b=[0.3], c=[0.35]) for n in range(3)),
    )
    assert better_half(trials, "raw 0") == [
        "raw 4 (b)", "raw 4 (a)", "raw 3 (b)", "raw 3 (a)",
        "pre 2 (a)", "pre 2 (c)", "pre 1 (a)", "pre 1 (c)", "raw 0 (b)", "raw 0 (a)",
    ]  # fmt: skip
