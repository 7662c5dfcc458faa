"""The Optuna search against a known objective: without Ray, without training."""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Iterator

import optuna
import pytest

from segstrat.errors import UserError
from segstrat.records import EpochReport, Stage, write_records
from segstrat.store import Store
from study.cli import make_settings, parse
from study.driver.loop import Loop, Observers
from study.driver.prepare import OpenedStudy, plan_study
from study.driver.stages import as_screening
from study.planning.space import STARTUP_POINTS, Distribution, load_space
from study.planning.trials import PlannedTrial, plan
from study.search.base import NoTrial
from study.search.optuna import DATABASE, PARALLEL, OptunaDatabase, OptunaSearch
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates, count_final
from tests.study.fakes import FACTS, LocalExecutor, report

SAMPLES = 20
BEST_DECAY = 3e-3
NEVER = HalvingRule(fractions=())


@pytest.fixture
def space():
    axes = {
        "weight_decay": Distribution(low=1e-5, high=1e-1, log=True),
        "dropout": Distribution(low=0.0, high=0.6),
    }
    return dataclasses.replace(load_space("optuna_wd_dropout"), samples=SAMPLES, sampled=axes)


def objective(trial: PlannedTrial) -> float:
    far = abs(math.log10(max(trial.axes["weight_decay"], 1e-6) / BEST_DECAY)) + trial.axes["dropout"]
    return (0.6 if trial.config.pretrained else 0.3) - 0.05 * far


def train(trial: PlannedTrial) -> Iterator[EpochReport]:
    epochs = trial.config.epochs
    for epoch in range(1, epochs + 1):
        yield report(epoch, objective(trial) * epoch / epochs, epochs=epochs)


class Enough(Exception):
    pass


class Screening(OptunaSearch):
    """The search as a screening stage."""

    def __init__(self, search: OptunaSearch) -> None:
        self._search = search

    def propose(self, history):
        proposal = self._search.propose(history)
        if isinstance(proposal, PlannedTrial):
            return dataclasses.replace(proposal, stage=Stage.SCREENING)
        return proposal


class Study:
    """A searched study in one folder, run in this process, `at_once` trials in an order that a seed picks."""

    def __init__(self, space, folder, *, rule: HalvingRule = NEVER, known: list[PlannedTrial] | None = None):
        self.trials = list(known or as_screening(plan(space, "figures", weights="w", budget=0.2)))
        self.states = TrialStates(Store(folder), rule, space.metric)
        for trial in self.trials:
            self.states.add(trial)
        self.states.resume()
        self.search = OptunaSearch(space, 0.1)
        self.database = OptunaDatabase(Store(folder), space, self.states.in_order(), Stage.SCREENING)

    def run(self, *, at_once: int = 3, seed: int = 0, stop_after: int = 10**6, train=train) -> "Study":
        executor = LocalExecutor(train, concurrent=at_once, seed=seed)
        observers = Observers(finished=[self.database.add])
        before = count_final(self.states.by_id.values())

        def on_tick() -> None:
            if count_final(self.states.by_id.values()) - before >= stop_after:
                raise Enough

        with contextlib.suppress(Enough):
            loop = Loop(self.states, Screening(self.search), executor, observers, record=self.trials.extend)
            loop.run(on_tick)
        return self

    def proposals(self) -> dict[int, str]:
        return {trial.order: trial.trial_id for trial in self.trials}


def arm(study_: Study, name: str) -> list[PlannedTrial]:
    return [trial for trial in study_.trials if trial.arm == name]


def test_every_arm_gets_its_points_and_they_draw_near_the_optimum(space, tmp_path):
    study_ = Study(space, tmp_path).run()
    assert Counter(trial.arm for trial in study_.trials) == {"raw": SAMPLES, "pre-trained": SAMPLES}
    for name in ("raw", "pre-trained"):
        ours = sorted(arm(study_, name), key=lambda trial: trial.order)
        values = [objective(trial) for trial in ours if trial.axes["weight_decay"] > 0]
        startup, late = values[:STARTUP_POINTS], values[-8:]
        assert sum(late) / len(late) > sum(startup) / len(startup)
    startup = [
        {
            (t.axes["weight_decay"], t.axes["dropout"])
            for t in arm(study_, name)
            if t.order < 2 * STARTUP_POINTS
        }
        for name in ("raw", "pre-trained")
    ]
    assert startup[0] == startup[1]
    assert (0.0, 0.0) in startup[0], "gap closure is measured from the unregularized point"


def test_which_trial_ends_first_decides_nothing(space, tmp_path):
    one = Study(space, tmp_path / "one").run(at_once=1)
    many = Study(space, tmp_path / "many").run(at_once=7, seed=5)
    assert one.proposals() == many.proposals()


def test_no_more_proposals_are_in_flight_than_the_sampler_looks_past(space, tmp_path):
    started = Study(space, tmp_path).run(at_once=1, stop_after=2 * STARTUP_POINTS)
    open_trials = [state.trial.arm for state in started.states.in_order() if not state.final]
    assert Counter(open_trials) == {"raw": PARALLEL, "pre-trained": PARALLEL}
    assert started.search.propose(started.states.in_order()) is NoTrial.WAIT
    assert started.search.remaining(started.states.in_order()) == 2 * (SAMPLES - STARTUP_POINTS - PARALLEL)


def test_proposing_changes_nothing(space, tmp_path):
    started = Study(space, tmp_path).run(stop_after=2 * STARTUP_POINTS - PARALLEL)
    history = started.states.in_order()
    assert OptunaSearch(space, 0.1).propose(history) == OptunaSearch(space, 0.1).propose(history)


def test_stopped_trials_are_pruned_and_diverged_ones_fail(space, tmp_path):
    first = plan(space, "figures", weights="w", budget=0.2)[0].trial_id

    def train_or_diverge(trial: PlannedTrial) -> Iterator[EpochReport]:
        if trial.trial_id == first:
            yield report(1, 0.0, epochs=trial.config.epochs, status="diverged")
        yield from train(trial)

    ended = Study(space, tmp_path, rule=HalvingRule()).run(train=train_or_diverge)
    states: Counter = Counter()
    for name in ("raw", "pre-trained"):
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / DATABASE}")
        assert len(study.trials) == SAMPLES - 1, "all but the unregularized point, which is not searched"
        for trial in study.trials:
            state = ended.states.by_id[trial.user_attrs["trial_id"]]
            assert trial.params["weight_decay"] == state.trial.axes["weight_decay"]
            assert (trial.value is not None) == (state.shown == "completed")
            states[state.shown, trial.state.name] += 1
        # Scores of pruned trials are those at their rung, not beyond it.
        pruned = next(trial for trial in study.trials if trial.state.name == "PRUNED")
        record = ended.states.by_id[pruned.user_attrs["trial_id"]].record
        assert max(pruned.intermediate_values) == record.stop_epoch
    assert set(states) == {("completed", "COMPLETE"), ("stopped", "PRUNED"), ("diverged", "FAIL")}


def test_a_resumed_search_proposes_what_the_undisturbed_one_did(space, tmp_path):
    whole = Study(space, tmp_path / "whole", rule=HalvingRule()).run(at_once=4)
    first = Study(space, tmp_path / "cut", rule=HalvingRule()).run(at_once=4, stop_after=25)
    for state in first.states.in_order():
        if state.record.all_reports:
            write_records(first.states.folder(state.trial), FACTS, list(state.record.all_reports))
    second = Study(space, tmp_path / "cut", rule=HalvingRule(), known=first.trials).run(at_once=2, seed=3)
    assert second.proposals() == whole.proposals()
    studies = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'cut' / DATABASE}")
    assert {study.study_name: study.n_trials for study in studies} == {
        "raw": SAMPLES - 1,
        "pre-trained": SAMPLES - 1,
    }


def test_a_failed_trial_that_succeeds_later_is_complete_too(space, tmp_path):
    trials = plan(space, "figures", weights="w", budget=0.2)
    unlucky = next(trial for trial in trials if trial.axes["dropout"] > 0)

    def train_or_fail(trial: PlannedTrial) -> Iterator[EpochReport]:
        if trial.trial_id == unlucky.trial_id:
            raise OSError("disk is full")
        yield from train(trial)

    failed = Study(space, tmp_path).run(train=train_or_fail, stop_after=len(trials))
    assert failed.states.by_id[unlucky.trial_id].shown == "failed"
    Study(space, tmp_path).run()
    study = optuna.load_study(study_name=unlucky.arm, storage=f"sqlite:///{tmp_path / DATABASE}")
    states = [each.state.name for each in study.trials if each.user_attrs["trial_id"] == unlucky.trial_id]
    assert sorted(states) == ["COMPLETE", "FAIL"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no database " * 1000),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "text", "missing"],
)
def test_a_damaged_database_is_written_again(space, tmp_path, damage):
    whole = Study(space, tmp_path).run(stop_after=12)
    for state in whole.states.in_order():
        if state.final:
            write_records(whole.states.folder(state.trial), FACTS, list(state.record.all_reports))
    counts = trials_in(tmp_path)
    damage(tmp_path / DATABASE)
    Study(space, tmp_path, known=whole.trials)
    assert trials_in(tmp_path) == counts


def trials_in(folder) -> dict[str, int]:
    studies = optuna.get_all_study_summaries(f"sqlite:///{folder / DATABASE}")
    return {study.study_name: study.n_trials for study in studies}


def test_whole_numbers_are_proposed_within_their_bounds(space, tmp_path):
    axes = {
        "batch_size": Distribution(low=2, high=9, integer=True),
        "weight_decay": Distribution(low=0.0, high=0.1),
    }
    roles = {"pretrained": "arm", "batch_size": "treatment", "weight_decay": "treatment"}
    whole = dataclasses.replace(space, sampled=axes, roles=roles, samples=12)

    def train_on(trial: PlannedTrial) -> Iterator[EpochReport]:
        epochs = trial.config.epochs
        yield from (
            report(epoch, trial.config.batch_size / 10, epochs=epochs) for epoch in range(1, epochs + 1)
        )

    ended = Study(whole, tmp_path).run(train=train_on)
    sizes = [trial.axes["batch_size"] for trial in ended.trials]
    assert all(type(size) is int and 2 <= size <= 9 for size in sizes)
    late = [trial.axes["batch_size"] for trial in ended.trials if trial.order >= 2 * STARTUP_POINTS]
    assert sum(late) / len(late) > sum(sizes) / len(sizes), "drawn to the better, larger ones"


def test_a_search_needs_a_file_system():
    remote = Store("s3://bucket/prefix?region=us-east-1")
    space = load_space("optuna_wd_dropout")
    settings = make_settings(parse(["--space", space.name]), {}, {"name": "x", "seeds": (0,)})
    with pytest.raises(UserError, match="sobol_wd_dropout"):
        plan_study(OpenedStudy(study=remote, settings=settings, space=space, design=None, recorded={}))
