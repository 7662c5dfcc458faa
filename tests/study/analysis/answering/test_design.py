"""The plan of the looks: how the error is spent, and what an extension costs."""

import numpy as np
import pytest
from scipy import stats

from segstrat.errors import UserError
from study.analysis.answering.design import AnsweringDesign, look_seeds
from study.analysis.spending import spent_error, tail_probabilities


def test_boundaries_agree_with_published_ones():
    """O'Brien–Fleming type spending, five looks (Jennison & Turnbull 2000; issue: 4.88 … 2.01)."""
    looks = (4, 7, 10, 15, 20)
    found = tail_probabilities(looks, tuple(spent_error(n / 20, 0.025, "obrien-fleming") for n in looks))
    assert stats.norm.isf(found) == pytest.approx([4.88, 3.61, 2.97, 2.36, 2.01], abs=0.01)


def test_five_of_twenty_seeds_may_settle_an_effect_of_six_and_a_half_standard_errors():
    """The power family spends enough for Student's t with four degrees of freedom; the other one does not."""
    power, late = (
        AnsweringDesign(max_seeds=20, looks=(5, 10, 15, 20), spending=family)
        for family in ("power", "obrien-fleming")
    )
    assert power.spent == pytest.approx([0.05 * (n / 20) ** 1.75 for n in power.looks])
    assert stats.t.isf(power.tail_probability(1), 4) < 6.5 < 15 < stats.t.isf(late.tail_probability(1), 4)
    assert stats.t.isf(power.tail_probability(4), 19) < 2.4, "at a small price at the last look"


def test_a_recorded_plan_of_an_earlier_version_keeps_what_it_was_made_with():
    plan = AnsweringDesign(max_seeds=5).to_dict()
    for later in ("exponent", "first_share"):
        del plan[later]
    found = AnsweringDesign.from_dict(plan)
    assert (found.spending, found.exponent, found.first_share) == ("power", 2.0, 0.5)
    del plan["spending"]
    assert AnsweringDesign.from_dict(plan).spending == "obrien-fleming"


def test_looking_again_and_again_errs_as_often_as_planned():
    """Plain 95 % intervals after every look err in 15 % and more."""
    design = AnsweringDesign(max_seeds=20, looks=(4, 8, 12, 16, 20))
    rng = np.random.default_rng(0)
    sums = rng.normal(0, 1, (40_000, 20)).cumsum(axis=1)
    crossed = np.zeros(len(sums), dtype=bool)
    naive = np.zeros(len(sums), dtype=bool)
    for number, seeds in enumerate(design.looks, start=1):
        z = sums[:, seeds - 1] / np.sqrt(seeds)
        crossed |= stats.norm.sf(z) < design.tail_probability(number)
        naive |= z > 1.96
    assert crossed.mean() == pytest.approx(0.025, abs=0.003)
    assert naive.mean() > 0.06


def test_a_single_look_is_an_ordinary_interval():
    design = AnsweringDesign.single_look(5)
    assert design.looks == (5,)
    assert design.tail_probability(1) == pytest.approx(0.025)
    assert design.tail_probability(1, comparisons=3) == pytest.approx(0.025 / 3)


def test_an_extension_spends_at_most_half_as_much_again():
    design = AnsweringDesign(max_seeds=10)
    longer = design.extended(20).extended(40)
    assert longer.looks[: len(design.looks)] == design.looks, "looks that were taken stay as they were"
    assert longer.spent[: len(design.looks)] == design.spent
    assert longer.spent[-1] == pytest.approx(0.05 + 0.025 + 0.0125)
    assert list(longer.spent) == sorted(longer.spent)
    for number in range(1, len(design.looks) + 1):
        assert longer.tail_probability(number) == pytest.approx(design.tail_probability(number))
    assert AnsweringDesign.from_dict(longer.to_dict()) == longer
    assert (design.confidence, design.extended(20).confidence, longer.confidence) == (0.95, 0.925, 0.9125)
    with pytest.raises(UserError, match="larger number"):
        longer.extended(40)


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 10, 20, 50])
def test_looks_are_increasing_and_end_with_the_last_seed(seeds):
    looks = AnsweringDesign(max_seeds=seeds).looks
    assert looks[-1] == seeds
    assert list(looks) == sorted(set(looks))
    assert look_seeds(20, (0.2, 1.0), 3) == (4, 20)


@pytest.mark.parametrize("looks", [(3, 3, 10), (5, 4, 10), (3, 5), (0, 10)])
def test_looks_that_make_no_sense_are_refused(looks):
    with pytest.raises(UserError, match="increasing"):
        AnsweringDesign(max_seeds=10, looks=looks)
    with pytest.raises(UserError, match="at least one"):
        AnsweringDesign(max_seeds=0)
