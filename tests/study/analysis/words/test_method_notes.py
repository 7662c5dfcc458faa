"""The notes on how settings were chosen."""

import pytest

from study.analysis.answer import answer_study
from study.analysis.study import Study
from study.analysis.words.method_notes import reading_notes
from study.frame import write_frames


@pytest.fixture
def notes(study_writer, make_trial):
    """Notes on a study of one stage with these raw values, by weight decay and seed."""

    def write(raw):
        trials = [
            make_trial(
                {"pretrained": pre, "weight_decay": decay, "seed": seed},
                0.4 + 0.001 * seed + 0.02 * (decay > 0) if pre else raw[decay][seed],
            )
            for seed in range(3)
            for pre in (False, True)
            for decay in (0.0, 1e-3, 5e-3)
        ]
        folder = study_writer(trials)
        write_frames(folder)
        study = Study.open(folder)
        return " ".join(reading_notes(study, answer_study(study).primary))

    return write


def test_where_all_seeds_choose_the_same_setting_its_values_are_the_winners_own(notes):
    found = notes({0.0: (0.20, 0.21, 0.22), 1e-3: (0.23, 0.24, 0.25), 5e-3: (0.26, 0.27, 0.28)})
    assert "the winner's own" in found
    assert "raw is best" not in found


def test_seeds_that_disagree_are_counted(notes):
    found = notes({0.0: (0.20, 0.21, 0.22), 1e-3: (0.23, 0.28, 0.24), 5e-3: (0.26, 0.24, 0.28)})
    assert "raw is best at weight decay" in found
    assert "of 3" in found
