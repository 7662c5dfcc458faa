"""The difference that a design promises to detect, against what simulated studies detect."""

import numpy as np
import pandas as pd
import pytest

from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.differences import detectable_difference, observed_seed_sd, t_quantile


@pytest.mark.parametrize(
    ("design", "seed"),
    [(AnsweringDesign.single_look(3), 0), (AnsweringDesign.single_look(10), 1), (AnsweringDesign(), 2)],
)
def test_the_difference_is_found_in_four_of_five_studies(design, seed):
    rng = np.random.default_rng(seed)
    n, sd = design.max_seeds, 0.013
    true = detectable_difference(design, sd)
    scores = rng.normal(0, sd, (4000, n, 2))
    differences = true + scores[..., 0] - scores[..., 1]
    half = t_quantile(design.tail_probability(len(design.looks)), n - 1) * differences.std(axis=1, ddof=1)
    found = (differences.mean(axis=1) > half / np.sqrt(n)).mean()
    assert found == pytest.approx(0.8, abs=3 * np.sqrt(0.8 * 0.2 / 4000))


def test_more_seeds_detect_smaller_differences_and_two_detect_none():
    found = [detectable_difference(AnsweringDesign.single_look(n), 0.01) for n in (3, 5, 20)]
    assert found == sorted(found, reverse=True)
    assert detectable_difference(AnsweringDesign.single_look(2), 0.01) is None


def test_the_spread_over_seeds_leaves_out_what_a_seed_does_to_all_settings():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.05, (400, 1))
    values = pd.DataFrame(0.3 + shared + rng.normal(0, 0.01, (400, 4)), columns=list("abcd"))
    assert observed_seed_sd(values) == pytest.approx(0.01, rel=0.1)
    assert observed_seed_sd(values.iloc[:1]) is None
    assert observed_seed_sd(values[["a"]]) is None
