"""Both stages of a study with known effects: without Ray, without training."""

import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from segstrat.records import EpochReport, Stage, write_records
from segstrat.store import Store
from study.analysis.answering.design import AnsweringDesign
from study.cli import make_settings, parse
from study.driver.loop import Loop, Observers
from study.driver.stages import as_screening, contexts_to_answer, study_facts, two_stage_search
from study.planning.space import load_space
from study.planning.trials import PlannedTrial, plan
from study.search.base import History, NoTrial
from study.search.optuna import OptunaSearch
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates, count_final
from tests.study.fakes import FACTS, LocalExecutor, report

SPACE = "wd_grid"
BUDGET = 0.2
# Final mIoU of each arm by weight decay; pre-trained is 10 points ahead, regularization gains 4.
RAW = {0.0: 0.30, 1e-4: 0.31, 5e-4: 0.34, 1e-3: 0.32, 5e-3: 0.30, 2e-2: 0.20}
PRETRAINED = {0.0: 0.40, 1e-4: 0.41, 5e-4: 0.42, 1e-3: 0.44, 5e-3: 0.40, 2e-2: 0.30}


def effect(trial: PlannedTrial) -> float:
    values = PRETRAINED if trial.config.pretrained else RAW
    return values[trial.config.weight_decay]


def train(trial: PlannedTrial, final: float | None = None) -> Iterator[EpochReport]:
    """A curve that ends at the cell's mIoU, with a seed effect that the arms share and noise of its own."""
    config = trial.config
    shared = random.Random(config.seed).gauss(0, 0.01)
    own = random.Random(trial.trial_id).gauss(0, 0.004)
    end = (effect(trial) if final is None else final) + shared + own
    for epoch in range(1, config.epochs + 1):
        yield report(epoch, end * (0.5 + 0.5 * epoch / config.epochs), epochs=config.epochs)


class Enough(Exception):
    pass


class Study:
    """A study of two stages in one folder, run in this process."""

    def __init__(self, folder, *, space=SPACE, max_seeds=10, known=None, design=None, seeds=(0, 1)):
        self.space = load_space(space) if isinstance(space, str) else space
        flags = parse(["--space", self.space.name, "--budget", str(BUDGET)])
        settings = make_settings(flags, {}, {"name": "x", "seeds": seeds, "max_seeds": max_seeds})
        planned = plan(self.space, "figures", seeds=seeds, budget=BUDGET, weights="w")
        self.trials = list(known or as_screening(planned))
        self.states = TrialStates(Store(folder), HalvingRule(), self.space.metric)
        for trial in self.trials:
            self.states.add(trial)
        self.states.resume()
        self.design = design or AnsweringDesign(max_seeds=max_seeds)
        self.watched: list = []
        screening = OptunaSearch(self.space, BUDGET) if self.space.search == "tpe" else None
        self.history = History(Store(folder), study_facts(self.space, self.design))
        self.search = two_stage_search(
            settings,
            self.space,
            self.design,
            self.trials,
            history=self.history,
            weights="w",
            screening=screening,
        )

    def run(self, *, at_once=3, seed=0, stop_after=10**6, train=train) -> "Study":
        executor = LocalExecutor(train, concurrent=at_once, seed=seed)
        before = count_final(self.states.by_id.values())

        def on_tick() -> None:
            if count_final(self.states.by_id.values()) - before >= stop_after:
                raise Enough

        def record(state) -> None:
            write_records(self.states.folder(state.trial), FACTS, list(state.record.all_reports))
            self.watched.append(self.search.progress(self.states.in_order()))

        observers = Observers(finished=[record])
        with contextlib.suppress(Enough):
            Loop(self.states, self.search, executor, observers, record=self.trials.extend).run(on_tick)
        return self

    def answering(self) -> list[PlannedTrial]:
        return [trial for trial in self.trials if trial.stage is Stage.ANSWERING]

    def by_order(self) -> dict[int, str]:
        return {trial.order: trial.trial_id for trial in self.trials}

    def progress(self):
        (found,) = self.search.progress(self.states.in_order()).values()
        return found


def decays(cells: tuple[str, ...]) -> set[str]:
    return {cell.partition("weight_decay=")[2] for cell in cells}


def test_the_best_cells_of_screening_answer_on_fresh_seeds(tmp_path):
    study = Study(tmp_path).run()
    found = study.progress()
    assert found.roles.reference == "raw weight_decay=0"
    assert "0.0005" in decays(found.roles.raw)
    assert "0.001" in decays(found.roles.pretrained)
    answering = study.answering()
    assert min(trial.config.seed for trial in answering) == 2, "screening used seeds 0 and 1"
    assert {trial.cell for trial in answering} == {
        found.roles.reference, *found.roles.raw, found.roles.pretrained[0]
    }, "the other pre-trained ones need not be trained"  # fmt: skip
    states = [study.states.by_id[trial.trial_id] for trial in answering]
    assert {state.shown for state in states} == {"completed"}, "nobody is stopped in the answering stage"
    assert any(state.shown == "stopped" for state in study.states.in_order()), "but in screening"
    assert found.looks[-1].label == "narrows"
    assert found.settled
    assert study.search.propose(study.states.in_order()) is NoTrial.DONE


def test_a_study_of_the_claims_trains_pretrained_without_regularization_beside_the_candidates(tmp_path):
    """H2 compares it with the reference; the looks are those of the study without it."""
    plain = Study(tmp_path / "plain").run()
    claims = Study(tmp_path / "claims", space=dataclasses.replace(load_space(SPACE), claims=True)).run()
    cells = [Counter(trial.cell for trial in study.answering()) for study in (plain, claims)]
    companion = "pre-trained weight_decay=0"
    assert companion in plain.progress().roles.pretrained[1:], "a candidate that no look asks for"
    assert cells[1] - cells[0] == {companion: cells[1]["raw weight_decay=0"]}
    looks = [study.progress().looks for study in (plain, claims)]
    assert looks[0] == looks[1]
    resumed = Study(tmp_path / "claims", space=claims.space, known=claims.trials)
    assert resumed.search.propose(resumed.states.in_order()) is NoTrial.DONE


def test_a_settled_context_trains_no_further_seed(tmp_path):
    study = Study(tmp_path, max_seeds=20).run()
    seeds = {trial.config.seed for trial in study.answering()}
    assert len(seeds) == study.progress().looks[-1].seeds < 20


def test_which_trial_ends_first_decides_nothing(tmp_path):
    one = Study(tmp_path / "one").run(at_once=1)
    many = Study(tmp_path / "many").run(at_once=9, seed=5)
    assert one.by_order() == many.by_order()


@pytest.mark.parametrize("ended", [5, 24, 31])
def test_a_resumed_study_proposes_what_the_undisturbed_one_did(tmp_path, ended):
    whole = Study(tmp_path / "whole").run()
    first = Study(tmp_path / "cut").run(stop_after=ended)
    second = Study(tmp_path / "cut", known=first.trials).run(at_once=2, seed=3)
    assert second.by_order() == whole.by_order()


def undecided(trial: PlannedTrial) -> Iterator[EpochReport]:
    """The remaining gap is exactly the margin."""
    best = {False: 0.34, True: 0.35}[trial.config.pretrained]
    reference = trial.config.weight_decay == 0 and not trial.config.pretrained
    yield from train(trial, 0.25 if reference else best)


def test_a_finished_study_is_extended_by_more_seeds(tmp_path):
    # Without futility, which would give up at once.
    design = AnsweringDesign(max_seeds=4, futility=0.0, hopeless=0.0)
    first = Study(tmp_path, max_seeds=4, design=design).run(train=undecided)
    looks = first.progress().looks
    assert looks[-1].label == "undetermined"
    extended = first.design.extended(8)
    second = Study(tmp_path, known=first.trials, design=extended, max_seeds=8).run(train=undecided)
    assert second.trials[: len(first.trials)] == first.trials
    again = second.progress().looks
    assert [look.label for look in again[: len(looks) - 1]] == [look.label for look in looks[:-1]]
    assert again[-1].seeds > looks[-1].seeds


def test_a_seed_on_which_a_trial_failed_is_replaced(tmp_path):
    def failing(trial: PlannedTrial) -> Iterator[EpochReport]:
        if trial.stage is Stage.ANSWERING and trial.config.seed == 3 and trial.reference:
            raise OSError("disk is full")
        yield from train(trial)

    found = Study(tmp_path).run(train=failing)
    seeds = Counter(trial.config.seed for trial in found.answering())
    assert found.progress().looks, "the look is reached all the same"
    look = found.progress().looks[0].seeds
    assert 2 + look in seeds, "one seed more than the look needs"


def test_trials_that_always_fail_end_the_study(tmp_path):
    def failing(trial: PlannedTrial) -> Iterator[EpochReport]:
        if trial.stage is Stage.ANSWERING and trial.reference:
            raise OSError("disk is full")
        yield from train(trial)

    study = Study(tmp_path).run(train=failing)
    assert "failed on too many seeds" in study.progress().problem


def test_a_diverged_trial_counts_with_the_constant_prediction(tmp_path):
    def diverging(trial: PlannedTrial) -> Iterator[EpochReport]:
        if trial.stage is Stage.ANSWERING and trial.cell == "pre-trained weight_decay=0.001":
            yield report(1, 0.0, epochs=trial.config.epochs, status="diverged")
            return
        yield from train(trial)

    found = Study(tmp_path).run(train=diverging).progress()
    assert "pre-trained weight_decay=0.001" in found.roles.pretrained
    assert found.looks, "its seeds count"
    assert found.looks[-1].leaders["pretrained"] != "pre-trained weight_decay=0.001"


def test_every_context_is_answered_for_itself(tmp_path):
    space = load_space("label_fraction")

    def by_fraction(trial: PlannedTrial) -> Iterator[EpochReport]:
        yield from train(trial, 0.2 + 0.1 * trial.config.pretrained + 0.1 * trial.config.label_fraction)

    study = Study(tmp_path, space=space, max_seeds=4).run(train=by_fraction)
    progress = study.search.progress(study.states.in_order())
    assert set(progress) == {f"semseg, label_fraction {fraction}" for fraction in (0.125, 0.25, 0.5, 1.0)}
    assert all(found.looks and found.settled for found in progress.values())
    for found in progress.values():
        contexts = {cell.partition("label_fraction=")[2].split()[0] for cell in found.roles.active}
        assert len(contexts) == 1


def test_what_is_still_screened_is_counted_apart(tmp_path):
    space = dataclasses.replace(load_space("optuna_wd_dropout"), samples=10)
    study = Study(tmp_path, space=space, seeds=(0,))
    known, design = study.states.in_order(), study.design
    assert len(known) == 16
    assert study.search.screening_left(known) == 4, "ten points in each of two arms"
    cells = 1 + design.raw_candidates + 1
    assert study.search.remaining(known) == 4 + cells * design.looks[0]


def test_optunas_points_are_screened_too(tmp_path):
    space = dataclasses.replace(load_space("optuna_wd_dropout"), samples=10)

    def near(trial: PlannedTrial) -> Iterator[EpochReport]:
        yield from train(trial, 0.3 + 0.1 * trial.config.pretrained - 0.1 * trial.config.dropout)

    study = Study(tmp_path, space=space, max_seeds=3, seeds=(0,)).run(train=near)
    stages = Counter(trial.stage for trial in study.trials)
    assert stages[Stage.SCREENING] == 2 * 10
    assert stages[Stage.ANSWERING] == 3 * len(study.progress().roles.active)


@pytest.mark.parametrize(
    ("space", "expected"),
    [("wd_grid", 1), ("label_fraction", 4), ("backbones", 0), ("regularizers", 1), ("multitask", 2)],
)
def test_contexts_of_the_spaces(space, expected):
    trials = plan(load_space(space), "figures", weights="w")
    assert len(contexts_to_answer(History(None, study_facts(load_space(space))), trials)) == expected


def test_starting_points_that_share_cells_train_them_once(tmp_path):
    """Nine cells in three comparisons, each of which alone may need seven."""
    study = Study(tmp_path, space="self_figures", seeds=(0,))
    known = study.states.in_order()
    assert len(known) == 9
    assert study.search.remaining(known) == 9 * study.design.looks[0]
