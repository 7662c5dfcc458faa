import math

import numpy as np
import pytest
from scipy import stats

from study.analysis.intervals import Interval, mean_interval, ratio_interval, seeds_needed

DRAWS = {
    "normal": (lambda rng, n: rng.normal(0.0, 1.0, n), 0.0),
    "skewed": (lambda rng, n: rng.exponential(1.0, n), 1.0),
    "heavy-tailed": (lambda rng, n: rng.standard_t(3, n), 0.0),
}


def coverage(draw, truth, n, runs=500):
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(runs):
        interval = mean_interval(draw(rng, n))
        hits += interval.low <= truth <= interval.high
    return hits / runs


@pytest.mark.parametrize("kind", DRAWS)
def test_95_percent_intervals_cover_at_five_seeds(kind):
    draw, truth = DRAWS[kind]
    assert 0.92 <= coverage(draw, truth, 5) <= 0.98


@pytest.mark.parametrize("n", [3, 4, 8, 12])
def test_95_percent_intervals_cover_at_other_numbers_of_seeds(n):
    draw, truth = DRAWS["normal"]
    assert 0.92 <= coverage(draw, truth, n) <= 0.98


def test_percentile_and_bca_would_not_cover():
    """Why scipy's ready-made intervals are not used: the reason given in the module's docstring."""
    rng = np.random.default_rng(0)
    hits = dict.fromkeys(("percentile", "BCa"), 0)
    for _ in range(150):
        x = rng.normal(0.0, 1.0, 5)
        for method in hits:
            found = stats.bootstrap((x,), np.mean, method=method, n_resamples=500, rng=rng)
            hits[method] += found.confidence_interval.low <= 0 <= found.confidence_interval.high
    assert max(hits.values()) / 150 < 0.92


def test_few_seeds_get_students_t():
    x = [0.02, 0.05, 0.03]
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    interval = mean_interval(x)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.method.startswith("Student")


def test_enumerated_bootstrap_agrees_with_brute_force():
    x = np.array([0.011, 0.034, 0.02, 0.052, 0.03])
    rng = np.random.default_rng(0)
    picks = x[rng.integers(0, 5, (200_000, 5))]
    errors = picks.std(axis=1, ddof=1) / math.sqrt(5)
    with np.errstate(divide="ignore"):
        t = (picks.mean(axis=1) - x.mean()) / errors
    low_t, high_t = np.quantile(t, [0.025, 0.975])
    error = x.std(ddof=1) / math.sqrt(5)
    interval = mean_interval(x)
    assert interval.method.startswith("studentized bootstrap")
    assert interval.low == pytest.approx(x.mean() - high_t * error, rel=0.05)
    assert interval.high == pytest.approx(x.mean() - low_t * error, rel=0.05)


def test_with_many_seeds_the_interval_meets_scipys_bootstrap():
    x = np.random.default_rng(3).normal(0.03, 0.01, 60)
    found = stats.bootstrap((x,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    interval = mean_interval(x)
    assert interval.low == pytest.approx(found.low, abs=4e-4)
    assert interval.high == pytest.approx(found.high, abs=4e-4)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.2], [0.1, math.nan, 0.2]])
def test_fewer_than_three_seeds_have_no_interval(values):
    interval = mean_interval(values)
    assert not interval.known
    assert "at least 3" in interval.method
    assert not interval.above(-1)
    assert not interval.below(1)


def test_equal_values_do_not_break_the_bootstrap():
    tied = mean_interval([0.02, 0.02, 0.02, 0.02, 0.05])
    assert tied.method.startswith("Student")
    assert math.isfinite(tied.low)
    assert math.isfinite(tied.high)
    same = mean_interval([0.02] * 5)
    assert same.low == same.high == pytest.approx(0.02)


def test_gap_closure_by_hand():
    # (best regularized raw − raw) and (pre-trained − raw) of three seeds, in points.
    interval = ratio_interval([3.0, 4.0, 2.0], [9.0, 10.0, 8.0])
    assert interval.estimate == pytest.approx(1 / 3)
    # Fieller by hand: both variances of the mean and their covariance are 1/3, t² = 18.5128, so
    # (81 − t²/3) c² − 2 (27 − t²/3) c + (9 − t²/3) = 0.
    s = stats.t.ppf(0.975, 2) ** 2 / 3
    roots = sorted(np.roots([81 - s, -2 * (27 - s), 9 - s]))
    assert (interval.low, interval.high) == pytest.approx(roots)


def test_fieller_covers_the_true_ratio():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(500):
        raw, regularized, pretrained = rng.normal([0.25, 0.28, 0.33], 0.01, (5, 3)).T
        interval = ratio_interval(regularized - raw, pretrained - raw)
        hits += interval.known and interval.low <= 3 / 8 <= interval.high
    assert 0.92 <= hits / 500 <= 0.98


def test_no_ratio_without_a_gap():
    interval = ratio_interval([0.01, -0.01, 0.02], [0.001, -0.002, 0.0015])
    assert not interval.known
    assert "gap" in interval.method
    assert ratio_interval([], []).estimate is None


def test_seeds_needed_shrink_with_distance():
    x = [0.02, 0.04, 0.03, 0.035]
    near, far = seeds_needed(x, 0.025), seeds_needed(x, 0.0)
    assert far == 3
    assert near > far
    # One seed fewer would not do.
    for n, inside in ((near, True), (near - 1, False)):
        half = stats.t.ppf(0.975, n - 1) * np.std(x, ddof=1) / math.sqrt(n)
        assert bool(half < abs(np.mean(x) - 0.025)) is inside
    assert seeds_needed([0.1, 0.2], 0.0) is None
    assert seeds_needed(x, float(np.mean(x))) is None


def test_negation_swaps_the_ends():
    assert -Interval(0.1, 0.05, 0.2, 5, "m") == Interval(-0.1, -0.2, -0.05, 5, "m")
    assert -Interval(0.1, None, None, 1, "m") == Interval(-0.1, None, None, 1, "m")
