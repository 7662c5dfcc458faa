"""What was planned, and what it turned out to be."""

from study.analysis.answering.design import AnsweringDesign
from study.analysis.words.plan import planned_sentence


def test_a_plan_says_what_it_can_detect():
    assert "a difference 1 point from its threshold by 20 seeds" in planned_sentence(AnsweringDesign())
    assert "no difference" in planned_sentence(AnsweringDesign.single_look(2))
