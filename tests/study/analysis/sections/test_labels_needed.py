"""One statement over several numbers of labels."""

import numpy as np
import pandas as pd
import pytest

from study.analysis.answering.decision import Roles, replay
from study.analysis.answering.design import AnsweringDesign
from study.analysis.sections.labels_needed import LabelsNeeded, joint_interval


@pytest.fixture
def fractions(make_trial):
    """`fractions(gaps, noise)`: a gap between pre-trained and raw at each label fraction, five seeds."""

    def make(gaps, noise=0.002, seed=1):
        rng = np.random.default_rng(seed)
        return [
            make_trial(
                {"pretrained": pre, "weight_decay": decay, "label_fraction": fraction, "seed": number},
                float(0.4 + pre * gap + rng.normal(0, noise)),
            )
            for fraction, gap in gaps.items()
            for number in range(5)
            for pre in (False, True)
            for decay in (0.0, 1e-3)
        ]

    return make


ROLES = {"pretrained": "arm", "weight_decay": "treatment", "label_fraction": "nuisance", "seed": "seed"}


def test_a_study_of_label_fractions_says_where_pretraining_pays(study_writer, answer_of, fractions):
    folder = study_writer(fractions({0.25: 0.06, 0.5: 0.01, 1.0: 0.0}), roles=ROLES)
    answer = answer_of(folder)
    (found,) = answer.sections["labels_needed"]
    assert isinstance(found, LabelsNeeded)
    assert found.images == (30, 60, 120)
    assert found.pays == [30]
    assert found.pays_no_more == [120]
    assert found.sentence in answer.lines
    assert "worth more than 1 point with 30; worth less with 120; open with 60." in found.sentence


def test_a_context_whose_trials_are_missing_is_named(study_writer, answer_of, fractions):
    trials = fractions({0.25: 0.06, 0.5: 0.05, 1.0: 0.04})
    for entry in trials:
        if entry["axes"]["label_fraction"] == 0.25:
            entry["status"] = "unfinished"
    (found,) = answer_of(study_writer(trials, roles=ROLES)).sections["labels_needed"]
    assert found.left_out == (30,)
    assert found.sentence.endswith("not said with 30.")


def test_other_studies_say_nothing_of_labels(study_writer, answer_of, grid):
    answer = answer_of(study_writer(grid((0.25, 0.3, 0.2), (0.4, 0.4, 0.3))))
    assert answer.sections["labels_needed"] == []


def test_the_error_is_shared_once():
    """A plan of several contexts has its share already; one of an earlier version has not."""
    rng = np.random.default_rng(3)
    values = pd.DataFrame(rng.normal([0.2, 0.21, 0.29], 0.01, (8, 3)), columns=["reference", "raw", "pre"])
    roles = Roles(reference="reference", raw=("raw",), pretrained=("pre",))
    plan = AnsweringDesign(max_seeds=8)
    shared = plan.of_comparisons(4)
    look = replay(values, roles, shared)[-1]
    assert joint_interval(values, look, shared, 4) == look.remaining
    assert joint_interval(values, look, plan, 4) == look.remaining
    alone = joint_interval(values, look, plan, 1)
    assert alone.low > look.remaining.low
