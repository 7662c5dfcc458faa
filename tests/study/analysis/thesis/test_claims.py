"""p-values of claims in a study whose number of seeds follows from what the seeds show."""

import numpy as np

from study.analysis.answering.design import AnsweringDesign
from study.analysis.intervals import Interval
from study.analysis.thesis.claim_effects import Effect, p_value
from study.analysis.thesis.claims import adjust

LOOKS = AnsweringDesign().looks


def smallest_p(rng):
    """Of a difference that does not exist, at the look where it seems most real."""
    values = rng.normal(size=LOOKS[-1])
    return min(p_value(values[:seeds], 0.0) for seeds in LOOKS)


def test_stopping_where_a_difference_seems_real_calls_few_absent_ones_real():
    rng = np.random.default_rng(0)
    p = [smallest_p(rng) for _ in range(2000)]
    effects = [Effect("", Interval(1.0, 0.5, 1.5, 3, "t"), p=value) for value in p]
    ordinary, adjusted = (
        np.mean([adjust([effect], looks)[0].side != "" for effect in effects]) for looks in (1, len(LOOKS))
    )
    assert ordinary > 0.14
    assert adjusted < 0.05
