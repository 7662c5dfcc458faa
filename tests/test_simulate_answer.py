"""The short form of the simulation behind docs/simulations.md."""

import numpy as np
import pytest

from benchmarks import simulate_answer
from benchmarks.simulate_answer import TABLES, main
from benchmarks.simulated_grid import CELLS, grid, noisier


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_printed_as_markdown(table, capsys):
    main(["--repetitions", "2", "--table", table])
    title, blank, header, rule, *rows = capsys.readouterr().out.strip().splitlines()
    assert (title, blank) == (f"### {table}", "")
    columns = header.count("|")
    assert columns >= 3
    assert rule.count("---") == columns - 1
    assert rows
    assert all(row.count("|") == columns for row in rows)


def test_the_same_seed_gives_the_same_table():
    assert simulate_answer.screening_table(3) == simulate_answer.screening_table(3)


def test_a_grid_has_the_truth_it_is_asked_for():
    truth = grid("peak", 0.5, gap=0.06)
    assert truth.truth["gap"] == pytest.approx(0.06)
    assert truth.truth["improvement"] == pytest.approx(0.03)
    assert truth.truth["closure"] == pytest.approx(0.5)
    values, diverged = truth.scores(np.random.default_rng(0), 4000)
    assert values.mean(axis=0) == pytest.approx(truth.means, abs=0.001)
    assert values.std(axis=0) == pytest.approx(np.full(12, 0.01), rel=0.05)
    assert not diverged.any()


def test_seeds_are_correlated_and_trials_diverge_as_asked():
    divergence = np.zeros(12)
    divergence[2] = 0.5
    truth = noisier(grid("clear", 1.0), correlation=0.6, divergence=divergence)
    values, diverged = truth.scores(np.random.default_rng(0), 4000)
    assert np.corrcoef(values[:, 0], values[:, 5])[0, 1] == pytest.approx(0.6, abs=0.05)
    assert diverged.mean(axis=0)[2] == pytest.approx(0.5, abs=0.03)
    assert truth.expected[2] < truth.means[2]
    assert len(CELLS) == values.shape[1]
