"""Short forms of the simulations in benchmarks/: what effects and surfaces find, and how often wrongly."""

import numpy as np
import pytest

from benchmarks import simulate_effects, simulate_surfaces
from benchmarks.simulate_effects import TWO_LEVELS, Truth, compare_errors, judge_study
from benchmarks.simulate_surfaces import simulate
from study.analysis.sections.factorial_effects import BOTH, RAW


def below(share, repetitions):
    """Three standard errors of a simulated share below it."""
    return share - 3 * np.sqrt(share * (1 - share) / repetitions)


def above(share, repetitions):
    return share + 3 * np.sqrt(share * (1 - share) / repetitions)


def test_one_seed_finds_a_real_factor_and_seldom_an_absent_one():
    found, wrong = compare_errors(Truth(name="a", both={"a": 1.5}), 100)["all interactions"]
    assert found >= below(0.78, 100)
    assert wrong <= above(0.05, 100)


def test_real_interactions_add_no_false_alarms():
    _, wrong = compare_errors(Truth(name="ab", both={"a": 1.5}, crossed={"ab": 3.0}), 100)["all interactions"]
    assert wrong <= above(0.05, 100)


@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_cover_and_holm_limits_any_false_alarm(seeds):
    found = judge_study(Truth(name="a", both={"a": 1.5}), TWO_LEVELS, seeds, 40)
    assert found[RAW]["main coverage"] >= below(0.95, 160)
    assert found[RAW]["false Holm"] <= above(0.05, 40)
    assert found[BOTH]["Holm"] >= below(0.9, 40)


@pytest.mark.parametrize("search", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_surfaces_hold_the_maximum_and_its_place(search):
    found = simulate(simulate_surfaces.bowl, 0.01, 1, search, 40)
    assert found["fitted"] == 1.0
    assert found["maximum"] >= below(0.95, 40)
    assert found["location"] >= below(0.95, 40)
    # The maximum of a surface is less optimistic than the best-looking point.
    assert abs(found["bias"]) < found["best point"]


@pytest.mark.slow
def test_tables_are_printed(capsys):
    simulate_effects.main(["--repetitions", "1"])
    simulate_surfaces.main(["--repetitions", "1"])
    printed = capsys.readouterr().out
    assert printed.count("|---|") >= 4
    assert "raw − pre-trained" in printed
