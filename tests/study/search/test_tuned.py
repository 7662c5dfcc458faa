"""A learning rate that is chosen for each setting in screening: both stages, without training."""

import dataclasses
import random

import pytest

from segstrat.records import Stage
from study.cli import make_settings, parse
from study.driver.stages import as_screening, contexts_to_answer, study_facts, two_stage_search
from study.planning.space import load_space
from study.planning.trials import plan
from study.search.base import History, NoTrial, answerable_contexts
from study.search.two_stage import BetterHalf, split_by_seed
from study.state.trial_states import TrialState
from tests.study.fakes import report
from tests.study.search.test_two_stage import BUDGET, PRETRAINED, RAW, Study

RATES = (0.01, 0.05, 0.2)
BEST_RATE = {
    "raw weight_decay=0": 0.05,
    "raw weight_decay=0.0005": 0.2,
    "pre-trained weight_decay=0.001": 0.01,
}


def tuned_space():
    space = load_space("wd_grid")
    return dataclasses.replace(
        space,
        axes=space.axes | {"learning_rate": list(RATES)},
        roles=space.roles | {"learning_rate": "tuned"},
    )


def train(trial):
    """The mIoU of `test_two_stage`, at the setting's best rate; three points less at each other one."""
    config = trial.config
    best = BEST_RATE.get(trial.setting, 0.05)
    own = random.Random(trial.trial_id).gauss(0, 0.002)
    end = (PRETRAINED if config.pretrained else RAW)[config.weight_decay] + own
    end -= 0.03 * (config.learning_rate != best)
    for epoch in range(1, config.epochs + 1):
        yield report(epoch, end * (0.5 + 0.5 * epoch / config.epochs), epochs=config.epochs)


def tuned_study(folder, known=None) -> Study:
    """Two screening seeds, of which the second one trains the better half."""
    space = tuned_space()
    planned = as_screening(plan(space, "figures", seeds=(0, 1), budget=BUDGET, weights="w"))
    study = Study(folder, space=space, known=known or split_by_seed(planned)[0])
    flags = parse(["--space", space.name, "--budget", str(BUDGET)])
    settings = make_settings(flags, {}, {"name": "x", "seeds": (0, 1), "max_seeds": 10})
    _, later = split_by_seed(planned)
    study.screening = BetterHalf(contexts_to_answer(study.history, planned), study.history, later)
    study.search = two_stage_search(
        settings,
        space,
        study.design,
        planned,
        history=study.history,
        weights="w",
        screening=study.screening,
    )
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tuned_study(tmp_path_factory.mktemp("tuned")).run(train=train)


def test_all_values_together_are_one_context():
    history = History(None, study_facts(tuned_space()))
    states = [TrialState(trial=trial) for trial in plan(tuned_space(), "figures", weights="w")]
    (context,) = answerable_contexts(history.study(states))
    trials = context.trials
    assert set(trials.loc[trials["reference"], "setting"]) == {"raw weight_decay=0"}
    assert trials["cell"].nunique() == 36


def test_settings_answer_at_their_best_values(finished):
    roles = finished.progress().roles
    assert roles.reference == "raw weight_decay=0 (learning_rate=0.05)"
    assert "raw weight_decay=0.0005 (learning_rate=0.2)" in roles.raw
    assert "pre-trained weight_decay=0.001 (learning_rate=0.01)" in roles.pretrained
    look = finished.progress().looks[-1]
    assert look.roles.active_references == (roles.reference,), "three points are soon told apart"
    assert look.label == "narrows"
    for cell in look.leaders.values():
        setting, _, rate = cell.partition(" (learning_rate=")
        assert float(rate.rstrip(")")) == BEST_RATE.get(setting, 0.05)
    assert finished.search.propose(finished.states.in_order()) is NoTrial.DONE


def test_the_second_seed_tries_the_better_values_of_the_better_settings(finished):
    second = [trial for trial in finished.trials if trial.stage is Stage.SCREENING and trial.config.seed == 1]
    by_setting = {}
    for trial in second:
        by_setting.setdefault(trial.setting, []).append(trial.config.learning_rate)
    assert len(by_setting) == 3 + 3 + 1, "three raw and three pre-trained settings, and the reference"
    assert {len(rates) for rates in by_setting.values()} == {2}
    assert "raw weight_decay=0" in by_setting
    for setting, rates in by_setting.items():
        assert BEST_RATE.get(setting, 0.05) in rates


def test_the_cost_is_known_beforehand(tmp_path, finished):
    study = tuned_study(tmp_path)
    expected = study.screening.remaining(study.states.in_order())
    assert expected == sum(
        trial.stage is Stage.SCREENING and trial.config.seed == 1 for trial in finished.trials
    )


def test_a_resumed_study_chooses_the_same_values(tmp_path, finished):
    first = tuned_study(tmp_path).run(train=train, stop_after=40)
    second = tuned_study(tmp_path, first.trials).run(train=train, at_once=2, seed=3)
    assert second.by_order() == finished.by_order()
