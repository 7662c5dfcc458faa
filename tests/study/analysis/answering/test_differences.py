"""Moderated variances of paired differences, against their formula and against their purpose."""

import numpy as np
import pandas as pd
import pytest

from study.analysis.answering.differences import PRIOR_DEGREES, paired_differences, residual_deviation

ARMS = {"a": "raw", "b": "raw", "c": "raw", "d": "pretrained", "e": "pretrained"}


def table(seeds=6, raw=0.01, pretrained=0.01, rng=None):
    rng = rng or np.random.default_rng(0)
    spread = [raw, raw, raw, pretrained, pretrained]
    values = 0.3 + rng.normal(0, 0.02, (seeds, 1)) + rng.normal(size=(seeds, 5)) * spread
    return pd.DataFrame(values, columns=list(ARMS))


def pairs_of(values, arms=ARMS):
    return paired_differences(values.to_numpy(), list(values.columns), arms)


def test_a_variance_is_a_mixture_of_its_own_and_of_all_cells():
    values = table()
    n = len(values)
    found = pairs_of(values)
    raw = values[["a", "b", "c"]].to_numpy()
    residuals = raw - raw.mean(0) - (raw - raw.mean(0)).mean(1, keepdims=True)
    of_raw = (residuals**2).sum() / ((n - 1) * 2)
    within = (PRIOR_DEGREES * 2 * of_raw + (n - 1) * (values["a"] - values["b"]).var()) / (n + 3)
    at = found.index(["a", "b"])
    assert found.error[at[0], at[1]] ** 2 == pytest.approx(max(within, 2 * of_raw) / n)
    of_pre = (values["d"] - values["e"]).var() / 2
    level = (values[["d", "e"]].mean(axis=1) - values[["a", "b", "c"]].mean(axis=1)).var()
    pooled = level + (1 - 1 / 3) * of_raw + (1 - 1 / 2) * of_pre
    between = (PRIOR_DEGREES * pooled + (n - 1) * (values["d"] - values["a"]).var()) / (n + 3)
    at = found.index(["d", "a"])
    assert found.error[at[0], at[1]] ** 2 == pytest.approx(max(between, pooled) / n)
    assert (found.degrees == n - 1 + PRIOR_DEGREES).all()


def test_a_dropped_cell_keeps_its_part_in_the_spread_of_its_arm():
    values = table(seeds=8)
    partial = values.copy()
    partial.loc[3:, "c"] = np.nan
    without = pairs_of(values[["a", "b", "d", "e"]])
    found = pairs_of(partial)
    assert found.cells == ("a", "b", "d", "e")
    assert found.deviations["raw"] != without.deviations["raw"]
    assert found.deviations["pretrained"] == without.deviations["pretrained"]
    assert residual_deviation(values.to_numpy()) == pytest.approx(
        residual_deviation(np.vstack([values.to_numpy(), np.full((1, 5), np.nan)]))
    ), "a row without scores changes nothing"


def test_each_arm_has_its_own_spread():
    found = pairs_of(table(seeds=40, raw=0.03, pretrained=0.003))
    assert found.deviations["raw"] == pytest.approx(0.03, rel=0.2)
    assert found.deviations["pretrained"] == pytest.approx(0.003, rel=0.3)
    assert found.error_within("raw") == pytest.approx(0.03 * np.sqrt(2 / 40), rel=0.2)


@pytest.mark.parametrize(("raw", "pretrained"), [(0.01, 0.01), (0.03, 0.005), (0.005, 0.03)])
def test_limits_hold_with_few_seeds(raw, pretrained):
    """One-sided 97.5 % limits of differences within and between the arms, from four seeds."""
    rng = np.random.default_rng(1)
    missed = {("a", "b"): 0, ("d", "a"): 0, ("a", "d"): 0}
    runs = 1500
    for _ in range(runs):
        found = pairs_of(table(4, raw, pretrained, rng))
        for left, right in missed:
            missed[left, right] += found.lower([left], [right], [0.025])[0, 0] > 0
    assert all(count / runs < 0.04 for count in missed.values()), missed


def test_cells_that_agree_on_every_seed_are_no_certainty():
    values = table()
    values["b"] = values["a"]
    values["c"] = values["a"]
    found = pairs_of(values)
    at = found.index(["a", "b"])
    assert found.error[at[0], at[1]] > 0
    constant = pd.DataFrame(0.3, index=range(4), columns=list(ARMS))
    assert np.isnan(pairs_of(constant).error).all()
