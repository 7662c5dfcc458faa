"""Second-order surfaces: exact recovery, coverage of the band, the maximum and its location."""

import itertools

import numpy as np
import pytest
from scipy.stats import qmc

from study.analysis.factors.quadratic import (
    difference_interval,
    fit_quadratic,
    inside_hull,
    second_order_terms,
)

GRID = np.array(list(itertools.product(np.linspace(-1, 1, 11), repeat=2)))
POINTS = 2 * qmc.Sobol(2, scramble=True, rng=0).random_base2(4) - 1


def bowl(places, at=(0.2, -0.2)):
    return 0.3 - 0.03 * (places[:, 0] - at[0]) ** 2 - 0.02 * (places[:, 1] - at[1]) ** 2


def noisy(truth, seed, sd=0.005):
    return truth(POINTS) + sd * np.random.default_rng(seed).normal(size=len(POINTS))


def test_terms_of_two_axes():
    assert second_order_terms(np.array([[2.0, 3.0]])).tolist() == [[1, 2, 3, 4, 9, 6]]


def test_a_noise_free_surface_is_recovered():
    tiny = 1e-6 * np.random.default_rng(0).normal(size=len(POINTS))
    fit = fit_quadratic(POINTS, bowl(POINTS) + tiny, GRID)
    np.testing.assert_allclose(fit.mean, bowl(GRID), atol=1e-5)
    np.testing.assert_allclose(fit.grid[fit.best], [0.2, -0.2], atol=1e-9)


def test_statements_hold_in_at_least_their_share_of_repetitions():
    held = {"band": 0, "maximum": 0, "gain": 0, "location": 0}
    repetitions = 150
    reference = np.array([0.0, 0.0])
    for seed in range(repetitions):
        fit = fit_quadratic(POINTS, noisy(bowl, seed), GRID)
        truth = bowl(GRID)
        low, high = fit.band
        held["band"] += bool(((low <= truth) & (truth <= high))[fit.inside].all())
        largest = truth[fit.inside].max()
        held["maximum"] += fit.maximum[1] <= largest <= fit.maximum[2]
        gain = largest - bowl(reference[None])[0]
        held["gain"] += fit.gain(reference)[1] <= gain <= fit.gain(reference)[2]
        held["location"] += bool(fit.plausible[np.where(fit.inside, truth, -1).argmax()])
    # Three standard errors below 95 %.
    assert min(held.values()) >= repetitions * (0.95 - 3 * np.sqrt(0.95 * 0.05 / repetitions))


def test_the_location_is_vague_for_a_flat_surface_and_narrow_for_a_steep_one():
    flat = fit_quadratic(POINTS, noisy(lambda places: np.full(len(places), 0.3), 0), GRID)
    steep = fit_quadratic(POINTS, noisy(lambda places: 0.3 + 10 * (bowl(places) - 0.3), 0), GRID)
    assert flat.plausible.sum() > 0.6 * flat.inside.sum()
    assert steep.plausible.sum() < 0.1 * steep.inside.sum()


def test_nothing_is_read_outside_the_hull():
    corner = POINTS[(POINTS < 0.5).all(axis=1)]
    fit = fit_quadratic(
        corner, corner.sum(axis=1) + 0.01 * np.random.default_rng(0).normal(size=len(corner)), GRID
    )
    assert not fit.inside[-1]
    assert (fit.grid[fit.best] <= 0.5).all()


@pytest.mark.parametrize("count", [0, 5, 7])
def test_too_few_points_give_no_surface(count):
    assert fit_quadratic(POINTS[:count], bowl(POINTS[:count]), GRID) is None


def test_points_on_a_line_give_no_surface():
    line = np.stack([np.linspace(-1, 1, 16)] * 2, axis=1)
    assert fit_quadratic(line, noisy(bowl, 0), GRID) is None
    assert not inside_hull(GRID, line).any()


def test_hull_of_one_axis_is_the_range():
    assert inside_hull(np.array([[-1.0], [0.0], [1.0]]), np.array([[-0.5], [1.0]])).tolist() == [
        False,
        True,
        True,
    ]


def test_difference_of_two_estimates_with_symmetric_intervals():
    estimate, low, high = difference_interval((5.0, 2.0, 8.0), (1.0, -3.0, 5.0))
    assert (estimate, low, high) == (4.0, -1.0, 9.0)
