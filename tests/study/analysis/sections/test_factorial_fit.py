"""Effects of a factorial design: against averages by hand, exact error degrees, incomplete designs."""

import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study.analysis.sections.factorial_fit import Factor, SeedwiseSpan, fit_factorial, holm

TWO_LEVELS = [Factor(axis, (0, 1)) for axis in "abcd"]


def grid(factors, seeds=1, seed=0, sd=0.01, mean=lambda _: 0.0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(seeds):
        for levels in itertools.product(*(factor.levels for factor in factors)):
            row = {factor.axis: level for factor, level in zip(factors, levels, strict=True)}
            rows.append(row | {"seed": number, "value": mean(row) + sd * rng.normal()})
    return pd.DataFrame(rows)


def effect(fit, axis, level, other=None):
    table = fit.table
    chosen = table[(table["axis"] == axis) & (table["level"] == level)]
    chosen = chosen[chosen["other_axis"].isna() if other is None else chosen["other_axis"] == other]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_main_effect_is_the_difference_of_averages_over_all_other_factors():
    values = grid(TWO_LEVELS)
    means = values.groupby("b")["value"].mean()
    row = effect(fit_factorial(values, TWO_LEVELS), "b", 1)
    assert row["estimate"] == pytest.approx(means[1] - means[0])


def test_interaction_is_the_difference_of_differences():
    factors = [Factor("t", ("one", "two")), Factor("w", (0, 1, 2))]
    values = grid(factors, seeds=2)
    means = values.groupby(["t", "w"])["value"].mean()
    expected = (means["two", 2] - means["one", 2]) - (means["two", 0] - means["one", 0])
    table = fit_factorial(values, factors).table
    row = table[(table["kind"] == "interaction") & (table["other_level"] == 2)].iloc[0]
    assert row["estimate"] == pytest.approx(expected)


def test_one_seed_pools_interactions_and_several_seeds_pool_seed_by_cell():
    one = fit_factorial(grid(TWO_LEVELS), TWO_LEVELS).errors
    assert (one["main"].degrees, one["interaction"].degrees) == (11, 5)
    three = fit_factorial(grid(TWO_LEVELS, seeds=3, seed=3), TWO_LEVELS).errors
    # The seed's interactions with main effects (8) are not an error of interactions.
    assert (three["main"].degrees, three["interaction"].degrees) == (30, 22)


def test_effects_that_vary_over_seeds_are_compared_with_that_variation():
    values = grid(TWO_LEVELS, seeds=3)
    tilts = 0.05 * np.random.default_rng(1).normal(size=(3, 4))
    values["value"] += (tilts[values["seed"]] * values[list("abcd")]).sum(axis=1)
    error = fit_factorial(values, TWO_LEVELS).errors["main"]
    assert error.degrees == 8
    assert "seed × main effects" in error.source
    # By hand: the variance of each factor's effect over seeds, averaged over factors.
    per_seed = [
        values.groupby(["seed", axis])["value"].mean().unstack().diff(axis=1).iloc[:, 1] for axis in "abcd"
    ]
    expected = np.sqrt(np.mean([effects.var(ddof=1) for effects in per_seed]) * 16 / 4)
    assert error.sd == pytest.approx(expected)


def test_two_cells_over_several_seeds_give_the_paired_t_interval():
    factors = [Factor("tasks", ("semseg", "semseg+parts"))]
    values = grid(factors, seeds=4)
    differences = values.pivot(index="seed", columns="tasks", values="value").diff(axis=1).iloc[:, 1]
    low, high = stats.t.interval(0.95, 3, differences.mean(), differences.sem())
    row = fit_factorial(values, factors).table.iloc[0]
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def test_a_shift_of_a_whole_seed_changes_nothing():
    values = grid(TWO_LEVELS, seeds=2)
    shifted = values.assign(value=values["value"] + 0.2 * values["seed"])
    numbers = ["estimate", "low", "high"]
    before, after = (fit_factorial(each, TWO_LEVELS).table[numbers] for each in (values, shifted))
    np.testing.assert_allclose(before.to_numpy(float), after.to_numpy(float), atol=1e-12)


def test_a_real_interaction_widens_the_one_seed_interval_of_a_main_effect():
    def width(fit):
        row = effect(fit, "c", 1)
        return row["high"] - row["low"]

    plain = fit_factorial(grid(TWO_LEVELS), TWO_LEVELS)
    crossed = fit_factorial(grid(TWO_LEVELS, mean=lambda row: 0.05 * row["a"] * row["b"]), TWO_LEVELS)
    assert width(crossed) > 1.5 * width(plain)
    assert effect(crossed, "a", 1, "b")["estimate"] == pytest.approx(
        0.05 + effect(plain, "a", 1, "b")["estimate"]
    )


def test_too_few_degrees_of_freedom_give_estimates_without_intervals():
    factors = [Factor("a", (0, 1)), Factor("b", (0, 1))]
    fit = fit_factorial(grid(factors), factors)
    assert fit.table["estimate"].notna().all()
    assert fit.table[["low", "high", "p", "adjusted_p"]].isna().all(axis=None)
    assert not fit.errors["main"].known


def test_identical_values_are_not_certainty():
    fit = fit_factorial(grid(TWO_LEVELS, seeds=2, sd=0.0, mean=lambda row: row["a"]), TWO_LEVELS)
    assert effect(fit, "a", 1)["estimate"] == pytest.approx(1.0)
    assert fit.table["low"].isna().all()


def rank_and_residual(design, y):
    left, values, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, values > 1e-9 * values.max()]
    return basis.shape[1], y - basis @ (basis.T @ y)


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("order", [0, 1])
def test_a_span_by_seeds_is_that_of_the_whole_matrix(missing, order):
    """Cells, blocks, and products of terms and blocks as the columns of one matrix."""
    rng = np.random.default_rng(int(100 * missing) + order)
    cells = np.array(list(itertools.product(range(2), range(3))))
    own = np.column_stack([np.ones(6), *([cells[:, 0], *np.eye(3)[:, 1:][cells[:, 1]].T] if order else ())])
    cell, seed = (part.ravel() for part in np.meshgrid(np.arange(6), np.arange(5)))
    kept = rng.permutation(len(cell))[int(missing * len(cell)) :]
    cell, seed = cell[kept], pd.factorize(seed[kept])[0]
    y = rng.normal(size=len(cell))
    blocks = np.eye(seed.max() + 1)[seed]
    products = (own[cell][:, :, None] * blocks[:, None, :]).reshape(len(cell), -1)
    whole = np.hstack([np.eye(6)[cell], products])
    rank, residuals = rank_and_residual(whole, y)
    span = SeedwiseSpan.of(np.eye(6), own, cell, seed)
    assert span.rank == rank
    squares, degrees = span.residual(y)
    assert squares == pytest.approx(residuals @ residuals, abs=1e-12)
    assert degrees == len(y) - rank

    contrasts = np.array([[1.0, -1, 0, 0, 0, 0], [1, 1, 1, -1, -1, -1], [0, 1, 0, 0, -1, 0]])
    wanted = np.hstack([contrasts, np.zeros((3, products.shape[1]))])
    inverse = np.linalg.pinv(whole)
    determined = np.abs(wanted @ inverse @ whole - wanted).max(axis=1) < 1e-9
    expected = np.where(determined[:, None], wanted @ inverse, np.nan)
    np.testing.assert_allclose(span.weights(contrasts), expected, atol=1e-9)
    assert determined.any() == (order == 0)


def test_thousands_of_seeds_are_fitted_without_a_matrix_of_all_of_them():
    factors = [Factor("a", (0, 1, 2, 3, 4))]
    values = grid(factors, seeds=2000, mean=lambda row: 0.01 * row["a"])
    tracemalloc.start()
    fit = fit_factorial(values, factors)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert effect(fit, "a", 4)["estimate"] == pytest.approx(0.04, abs=0.002)
    assert fit.errors["main"].degrees == 1999 * 4
    # The matrix of trials × trials would have 800 MB.
    assert memory < 50e6


def test_missing_trials_leave_estimates_unbiased_where_effects_add():
    values = grid(TWO_LEVELS, sd=0.0, mean=lambda row: 0.02 * row["a"] - 0.01 * row["d"])
    values.loc[[0, 5, 9], "value"] = np.nan
    fit = fit_factorial(values, TWO_LEVELS)
    assert effect(fit, "a", 1)["estimate"] == pytest.approx(0.02)
    assert effect(fit, "d", 1)["estimate"] == pytest.approx(-0.01)


def test_an_effect_that_the_trials_do_not_determine_has_no_estimate():
    values = grid(TWO_LEVELS, mean=lambda row: 0.02 * row["a"])
    values.loc[values["a"] == 1, "value"] = np.nan
    fit = fit_factorial(values, TWO_LEVELS)
    assert np.isnan(effect(fit, "a", 1)["estimate"])
    assert np.isfinite(effect(fit, "b", 1)["estimate"])


def test_no_values_at_all_give_an_empty_answer_and_no_error():
    fit = fit_factorial(grid(TWO_LEVELS).assign(value=np.nan), TWO_LEVELS)
    assert fit.table["estimate"].isna().all()


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02, np.nan, 0.01], [0.02, np.nan, 0.02]),
        ([], []),
    ],
)
def test_holm(p, expected):
    np.testing.assert_allclose(holm(p), expected)
