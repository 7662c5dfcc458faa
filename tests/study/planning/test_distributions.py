"""Distributions of a search space: read from Ray Tune's domains, drawn within their bounds."""

from collections import Counter

import numpy as np
import pytest
from ray import tune

from segstrat.errors import UserError
from study.planning.space import Distribution, read_distribution

UNIT = np.linspace(0, 1, 4096, endpoint=False)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (tune.uniform(0.0, 0.6), Distribution(low=0.0, high=0.6)),
        (tune.loguniform(1e-5, 1e-1), Distribution(low=1e-5, high=1e-1, log=True)),
        (tune.randint(1, 5), Distribution(low=1, high=4, integer=True)),
        (tune.lograndint(1, 65), Distribution(low=1, high=64, log=True, integer=True)),
    ],
)
def test_rays_domains_are_read(domain, expected):
    assert read_distribution("axis", domain) == expected


@pytest.mark.parametrize("domain", [tune.quniform(0, 1, 0.1), tune.randn(0, 1), 3])
def test_other_domains_are_refused(domain):
    with pytest.raises(UserError, match=r"axis 'dropout': expected tune\.uniform, .* tune\.lograndint, not"):
        read_distribution("dropout", domain)


def test_a_choice_points_to_the_grid():
    with pytest.raises(
        UserError, match=r"axis 'dropout' is a tune\.choice, .* tune\.grid_search\(\[1, 2\]\)"
    ):
        read_distribution("dropout", tune.choice([1, 2]))


def test_whole_numbers_are_equally_likely_and_both_ends_occur():
    drawn = Distribution(low=2, high=5, integer=True)
    assert Counter(drawn.quantile(u) for u in UNIT) == dict.fromkeys((2, 3, 4, 5), 1024)


def test_on_a_log_scale_each_factor_of_two_is_equally_likely():
    drawn = Distribution(low=1, high=63, log=True, integer=True)
    values = [drawn.quantile(u) for u in UNIT]
    counts = Counter(value.bit_length() for value in values)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {min(values), max(values)} == {1, 63}
    share = np.mean([Distribution(low=1e-4, high=1e-2, log=True).quantile(u) < 1e-3 for u in UNIT])
    assert share == pytest.approx(0.5, abs=1e-3)


def test_bounds_are_inside():
    drawn = Distribution(low=1e-5, high=0.05, log=True)
    assert 1e-5 in drawn
    assert 0.05 in drawn
    assert 0.0 not in drawn
