"""Screening over two seeds: every cell ends once, and the better half of each arm twice."""

import random

from segstrat.records import Stage
from study.cli import make_settings, parse
from study.driver.stages import as_screening, contexts_to_answer, two_stage_search
from study.planning.trials import plan
from study.search.base import NoTrial
from study.search.two_stage import BetterHalf, split_by_seed
from tests.study.fakes import report
from tests.study.search.test_two_stage import BUDGET, Study, effect


def slow_train(trial):
    """As `train`, but the best raw cell stays at the bottom until the last epoch."""
    config = trial.config
    own = random.Random(trial.trial_id).gauss(0, 0.002)
    slow = trial.cell == "raw weight_decay=0.0005"
    for epoch in range(1, config.epochs + 1):
        share = 0.2 if slow and epoch < config.epochs else 0.5 + 0.5 * epoch / config.epochs
        yield report(epoch, effect(trial) * share + own, epochs=config.epochs)


def study_of_two_seeds(folder, known=None) -> Study:
    study = Study(folder, known=known or split_by_seed(as_screening(planned()))[0])
    flags = parse(["--space", study.space.name, "--budget", str(BUDGET)])
    settings = make_settings(flags, {}, {"name": "x", "seeds": (0, 1), "max_seeds": 10})
    _, later = split_by_seed(as_screening(planned(study.space)))
    screening = BetterHalf(contexts_to_answer(study.history, later), study.history, later)
    study.search = two_stage_search(
        settings,
        study.space,
        study.design,
        later,
        history=study.history,
        weights="w",
        screening=screening,
    )
    return study


def planned(space=None):
    from study.planning.space import load_space

    return plan(space or load_space("wd_grid"), "figures", seeds=(0, 1), budget=BUDGET, weights="w")


def screened(study):
    return [state for state in study.states.in_order() if state.trial.stage is Stage.SCREENING]


def test_a_cell_that_is_slow_to_start_is_a_candidate(tmp_path):
    study = study_of_two_seeds(tmp_path).run(train=slow_train)
    states = screened(study)
    first = [state for state in states if state.trial.config.seed == 0]
    second = [state for state in states if state.trial.config.seed == 1]
    assert len(first) == 12
    assert {state.shown for state in first} == {"completed"}, "nobody is stopped on the first seed"
    assert len(second) == 6, "three raw and three pre-trained cells, not the reference"
    assert not any(state.trial.reference for state in second)
    epochs = sum(state.record.reports[-1].epoch for state in states)
    assert epochs <= 0.75 * 24 * states[0].trial.config.epochs
    assert "raw weight_decay=0.0005" in study.progress().roles.raw
    assert study.search.propose(study.states.in_order()) is NoTrial.DONE


def test_nothing_is_nominated_between_two_screening_seeds(tmp_path):
    """All known trials are final then; a console that asks must not decide what is trained."""
    study = study_of_two_seeds(tmp_path).run(train=slow_train, at_once=1)
    nominations = {
        (found.roles.raw, found.roles.pretrained) for seen in study.watched for found in seen.values()
    }
    assert len(nominations) == 1
    roles = study.progress().roles
    assert {trial.cell for trial in study.answering()} == {
        *roles.references, *roles.raw, roles.pretrained[0]
    }  # fmt: skip


def test_a_resumed_study_screens_the_same_cells(tmp_path):
    whole = study_of_two_seeds(tmp_path / "whole").run(train=slow_train)
    first = study_of_two_seeds(tmp_path / "cut").run(train=slow_train, stop_after=14)
    second = study_of_two_seeds(tmp_path / "cut", first.trials).run(train=slow_train, at_once=5, seed=3)
    assert second.by_order() == whole.by_order()


def test_how_many_trials_remain_is_known_beforehand(tmp_path):
    study = study_of_two_seeds(tmp_path)
    _, later = split_by_seed(as_screening(planned(study.space)))
    screening = BetterHalf(contexts_to_answer(study.history, later), study.history, later)
    assert screening.remaining(study.states.in_order()) == 6
    study.run(train=slow_train, stop_after=18)
    assert screening.remaining(screened(study)) == 0
