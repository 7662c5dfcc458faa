"""The Optuna search against a known objective: without Ray, without training."""

import dataclasses
import math
import random
from collections import Counter

import optuna
import pytest

from segstrat.errors import UserError
from segstrat.records import EpochReport, SplitScore, TrialFacts, write_records
from segstrat.store import Store
from study.cli import parse
from study.driver.prepare import plan_study
from study.planning.distribution import Distribution
from study.planning.sampling import STARTUP_POINTS
from study.planning.space import load_space
from study.planning.trials import PlannedTrial, plan
from study.search.optuna import DATABASE, PARALLEL, OptunaSearch
from study.state.halving import HalvingRule, Rungs
from study.state.trial_states import Ledger

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


def reports(trial: PlannedTrial, upto: int) -> list[EpochReport]:
    found = []
    for epoch in range(1, upto + 1):
        value = objective(trial) * epoch / trial.config.epochs
        score = SplitScore(
            split="val", task="semseg", loss=1.0, miou=value, miou_thesis=value, pixel_accuracy=value,
            class_accuracy=value, iou=(value,),
        )  # fmt: skip
        found.append(
            EpochReport(
                epoch=epoch,
                epochs=trial.config.epochs,
                scores=(score,),
                learning_rate=0.1,
                seconds=1.0,
                status="completed" if epoch == trial.config.epochs else "running",
                images_per_second=1.0,
                data_wait=0.0,
                message="",
            )
        )
    return found


class Driver:
    """Runs a search's trials in memory, `at_once` at a time, in an order that a seed picks."""

    def __init__(self, space, folder, *, rule: HalvingRule = NEVER, known: list[PlannedTrial] | None = None):
        self.trials = list(known or plan(space, "figures", weights="w", budget=0.1))
        self.ledger = Ledger(Store(folder), Rungs(rule), space.metric)
        for trial in self.trials:
            self.ledger.add(trial)
        self.ledger.recall(resume=True)
        self.search = OptunaSearch(
            space,
            self.trials,
            self.ledger.waiting(),
            self.ledger,
            folder=Store(folder),
            budget=0.1,
            on_proposed=self.trials.append,
        )
        self.ledger.on_final = self.search.record

    def run(self, *, at_once: int = 3, seed: int = 0, stop_after: int = 10**6) -> "Driver":
        rng = random.Random(seed)
        running: list[PlannedTrial] = []
        done = 0
        while done < stop_after:
            while len(running) < at_once and (trial := self.search.next_trial()) is not None:
                self.ledger.started(trial.trial_id)
                running.append(trial)
            if not running:
                assert self.search.finished
                break
            trial = running.pop(rng.randrange(len(running)))
            for report in reports(trial, trial.config.epochs):
                if self.ledger.reported(trial.trial_id, [report]):
                    break
            self.ledger.ended(trial.trial_id)
            done += 1
        return self

    def proposals(self) -> dict[int, str]:
        return {trial.order: trial.trial_id for trial in self.trials}


def arm(driver: Driver, name: str) -> list[PlannedTrial]:
    return [trial for trial in driver.trials if trial.arm == name]


def test_every_arm_gets_its_points_and_they_draw_near_the_optimum(space, tmp_path):
    driver = Driver(space, tmp_path).run()
    assert Counter(trial.arm for trial in driver.trials) == {"raw": SAMPLES, "pre-trained": SAMPLES}
    for name in ("raw", "pre-trained"):
        ours = sorted(arm(driver, name), key=lambda trial: trial.order)
        values = [objective(trial) for trial in ours if trial.axes["weight_decay"] > 0]
        startup, late = values[:STARTUP_POINTS], values[-8:]
        assert sum(late) / len(late) > sum(startup) / len(startup)
    startup = [
        {
            (t.axes["weight_decay"], t.axes["dropout"])
            for t in arm(driver, name)
            if t.order < 2 * STARTUP_POINTS
        }
        for name in ("raw", "pre-trained")
    ]
    assert startup[0] == startup[1]
    assert (0.0, 0.0) in startup[0], "gap closure is measured from the unregularized point"


def test_which_trial_ends_first_decides_nothing(space, tmp_path):
    one = Driver(space, tmp_path / "one").run(at_once=1)
    many = Driver(space, tmp_path / "many").run(at_once=7, seed=5)
    assert one.proposals() == many.proposals()


def test_no_more_proposals_are_in_flight_than_the_sampler_looks_past(space, tmp_path):
    driver = Driver(space, tmp_path).run(at_once=1, stop_after=2 * STARTUP_POINTS)
    handed_out = []
    while (trial := driver.search.next_trial()) is not None:
        handed_out.append(trial.arm)
    assert Counter(handed_out) == {"raw": PARALLEL, "pre-trained": PARALLEL}
    assert not driver.search.finished


def test_stopped_trials_are_pruned_and_diverged_ones_fail(space, tmp_path):
    driver = Driver(space, tmp_path, rule=HalvingRule())
    bad = driver.search.next_trial()
    driver.ledger.started(bad.trial_id)
    diverged = dataclasses.replace(reports(bad, 1)[0], status="diverged", scores=())
    driver.ledger.reported(bad.trial_id, [diverged])
    driver.ledger.ended(bad.trial_id)
    driver.run()
    states: Counter = Counter()
    for name in ("raw", "pre-trained"):
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / DATABASE}")
        assert len(study.trials) == SAMPLES - 1, "all but the unregularized point, which is not searched"
        for trial in study.trials:
            row = driver.ledger.rows[trial.user_attrs["trial_id"]]
            assert trial.params["weight_decay"] == row.trial.axes["weight_decay"]
            assert (trial.value is not None) == (row.state == "completed")
            states[row.state, trial.state.name] += 1
        # Scores of pruned trials are those at their rung, not beyond it.
        pruned = next(trial for trial in study.trials if trial.state.name == "PRUNED")
        row = driver.ledger.rows[pruned.user_attrs["trial_id"]]
        assert max(pruned.intermediate_values) == row.stop_epoch
    assert set(states) == {("completed", "COMPLETE"), ("stopped", "PRUNED"), ("diverged", "FAIL")}


def test_a_resumed_search_proposes_what_the_undisturbed_one_did(space, tmp_path):
    whole = Driver(space, tmp_path / "whole", rule=HalvingRule()).run(at_once=4)
    first = Driver(space, tmp_path / "cut", rule=HalvingRule()).run(at_once=4, stop_after=25)
    for row in first.ledger.rows.values():
        folder = first.ledger.store / "trials" / row.trial.trial_id
        facts = TrialFacts(
            num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="", weights_digest="",
            data_digest="", train_images=1, val_images=1, device="cpu", precision="float32",
        )  # fmt: skip
        if row.reports:
            write_records(folder, facts, list(row.reports.values()))
    second = Driver(space, tmp_path / "cut", rule=HalvingRule(), known=first.trials).run(at_once=2, seed=3)
    assert second.proposals() == whole.proposals()
    studies = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'cut' / DATABASE}")
    assert {study.study_name: study.n_trials for study in studies} == {
        "raw": SAMPLES - 1,
        "pre-trained": SAMPLES - 1,
    }


def test_a_failed_trial_that_succeeds_later_is_complete_too(space, tmp_path):
    driver = Driver(space, tmp_path)
    trial = next(iter(sorted(driver.trials, key=lambda each: (each.axes["dropout"] == 0, each.order))))
    driver.ledger.started(trial.trial_id)
    driver.ledger.ended(trial.trial_id, error="disk is full")
    assert driver.ledger.rows[trial.trial_id].state == "failed"
    Driver(space, tmp_path).run()
    study = optuna.load_study(study_name=trial.arm, storage=f"sqlite:///{tmp_path / DATABASE}")
    states = [each.state.name for each in study.trials if each.user_attrs["trial_id"] == trial.trial_id]
    assert sorted(states) == ["COMPLETE", "FAIL"]


def test_a_search_needs_a_file_system():
    remote = Store("s3://bucket/prefix?region=us-east-1")
    options = dataclasses.replace(
        parse(["--space", "optuna_wd_dropout"]), data="figures", budget=1.0, scheduler="asha"
    )
    with pytest.raises(UserError, match="sobol_wd_dropout"):
        plan_study(remote, options)
