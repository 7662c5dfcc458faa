"""Trials wait for their weights alone, idle slots train ahead of time, and a kill changes nothing."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.pretraining.job import Pretraining, PretrainReport
from segstrat.records import EpochReport, Stage, write_records
from segstrat.store import Store
from study.driver.jobs import PATIENCE_SECONDS, Jobs
from study.driver.loop import Loop, Observers
from study.planning.trials import PlannedTrial
from study.search.base import NoTrial
from study.state.executor import Ended, Reported, Retried, Started, job_id
from study.state.halving import HalvingRule
from study.state.pretrainings import PlannedPretraining, PretrainState
from study.state.trial_states import TrialState, TrialStates
from tests.study.fakes import FACTS, METRIC, LocalExecutor, report

EPOCHS = 3
# The first round is screening, on seed 0; each look after it adds two seeds.
ROUNDS = [(0,), (1, 2), (3, 4)]
CELLS = [("pre-trained", 0), ("raw", 0), ("raw", 1)]


def trial(seed: int, cell: tuple[str, int], before: float = 0.0) -> PlannedTrial:
    """A trial whose config depends on the scores of earlier rounds, as that of a search does."""
    arm, number = cell
    weights = "to be pre-trained" if arm == "pre-trained" else None
    config = TrialConfig(
        epochs=EPOCHS, seed=seed, pretrained=weights is not None, weights=weights,
        weight_decay=number / 10 + round(before / 1000, 6),
    )  # fmt: skip
    return PlannedTrial(
        trial_id=config.digest(), order=len(CELLS) * seed + CELLS.index(cell), arm=arm,
        axes={"seed": seed, "cell": cell}, config=config, stage=Stage.ANSWERING if seed else Stage.SCREENING,
    )  # fmt: skip


def planned(seed: int) -> PlannedPretraining:
    pretraining = Pretraining(backbone="resnet18", seed=seed)
    return PlannedPretraining(pretraining=pretraining, file=f"w{seed}", epochs=4)


class Weights:
    """Weights that exist once their last epoch is in `epochs`, which survives a kill as files do.

    Args:
        eager: expect those that only a later look needs, or none, before those of the next one.
    """

    def __init__(self, epochs: dict[str, int], *, eager: bool = False) -> None:
        self.epochs = epochs
        self.eager = eager

    def of(self, known: PlannedTrial) -> PlannedPretraining | None:
        return planned(known.config.seed) if known.config.pretrained else None

    def of_next_look(self, trials: Sequence[PlannedTrial]) -> list[PlannedPretraining]:
        if self.eager:
            return [planned(seed) for seed in (5, 6, 3, 4, 1, 2)]
        newest = max(known.config.seed for known in trials)
        return [planned(seed) for seeds in ROUNDS if seeds[0] == newest + 1 for seed in seeds]

    def find(self, job: PlannedPretraining, seconds: float | None = None) -> bool:  # noqa: ARG002
        return self.epochs.get(job.file, 0) == job.epochs

    def epochs_done(self, job: PlannedPretraining) -> int:
        return self.epochs.get(job.file, 0)

    def placed(self, known: PlannedTrial) -> PlannedTrial:
        job = self.of(known)
        if job is None:
            return known
        assert self.find(job), "no trial starts before its weights exist"
        return dataclasses.replace(known, config=dataclasses.replace(known.config, weights=job.file))


class Rounds:
    """Proposes the cells on the seeds of a round once the round before has ended, depending on its scores."""

    def propose(self, history: Sequence[TrialState]) -> PlannedTrial | NoTrial:
        known = {(state.trial.config.seed, *state.trial.axes["cell"]) for state in history}
        for seeds in ROUNDS:
            earlier = [state for state in history if state.trial.config.seed < seeds[0]]
            missing = [(seed, cell) for seed in seeds for cell in CELLS if (seed, *cell) not in known]
            if missing and not all(state.final for state in earlier):
                return NoTrial.WAIT
            if missing:
                score = sum(state.record.reports[-1].metrics()[METRIC.name] for state in earlier)
                return trial(*missing[0], score)
        return NoTrial.DONE

    def remaining(self, _: Sequence[TrialState]) -> int:
        return 0


class Killed(Exception):
    pass


class Study:
    """A study's files: trials' records, recorded trials, and what is pre-trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: dict[str, int] = {}
        self.recorded: dict[str, dict] = {}
        self.starts: list[str] = []
        self.begun_ahead: list[tuple[int, str]] = []
        self.fail: Callable[[str, int], None] = lambda *_: None
        self.told: list[tuple[str, str]] = []

    def record(self, trials: Sequence[PlannedTrial], *_: object) -> None:
        self.recorded |= {known.trial_id: known.to_dict() for known in trials}

    def train(self, job: PlannedTrial | PlannedPretraining) -> Iterator[EpochReport | PretrainReport | None]:
        self.starts.append(job_id(job))
        newest = max(state.trial.config.seed for state in self.states.by_id.values())
        self.begun_ahead += [
            (newest, each.job.file) for each in self.pretrainings() if each.ahead and each.job == job
        ]
        return self._train_trial(job) if isinstance(job, PlannedTrial) else self._pretrain(job)

    def _pretrain(self, job: PlannedPretraining) -> Iterator[PretrainReport | None]:
        for epoch in range(self.epochs.get(job.file, 0) + 1, job.epochs + 1):
            yield None
            self.fail(job.file, epoch)
            self.epochs[job.file] = epoch
            yield PretrainReport(epoch=epoch, epochs=job.epochs, train_loss=1, top1=0.5, top5=0.5, seconds=1)

    def _train_trial(self, job: PlannedTrial) -> Iterator[EpochReport]:
        reports = []
        for epoch in range(1, EPOCHS + 1):
            value = job.order / 100 + epoch / 1000 + job.config.weight_decay
            reports.append(report(epoch, value, epochs=EPOCHS))
            write_records(Store(self.folder) / "trials" / job.trial_id, FACTS, reports)
            yield reports[-1]

    def run(
        self,
        *,
        concurrent: int = 2,
        seed: int = 0,
        eager: bool = False,
        on_tick: Callable[["Study"], None] = lambda _: None,
    ) -> TrialStates:
        self.states = TrialStates(Store(self.folder), HalvingRule.of("none"), METRIC)
        for known in map(PlannedTrial.from_dict, self.recorded.values()):
            self.states.add(known)
        for cell in CELLS:
            if trial(0, cell).trial_id not in self.recorded:
                self.states.add(trial(0, cell))
        self.states.resume()
        self.executor = LocalExecutor(self.train, concurrent=concurrent, seed=seed, max_retries=2)
        self.gave_way = []
        stop = self.executor.stop
        self.executor.stop = lambda name: (self.gave_way.append(name), stop(name))
        self.jobs = Jobs(
            self.executor, Weights(self.epochs, eager=eager), slots=concurrent, record=self.record
        )
        observers = Observers(retried=[lambda job, error: self.told.append((job, error))])
        loop = Loop(self.states, Rounds(), self.executor, observers, jobs=self.jobs, record=self.record)
        loop.run(lambda: on_tick(self))
        return self.states

    def running_ahead(self) -> list[str]:
        """Pre-trainings that run though no trial needs them, and that were not asked to end."""
        running = set(self.executor._running) - self.executor._stopping
        return [each.job.file for each in self.pretrainings() if each.ahead and each.job.file in running]

    def pretrainings(self) -> list[PretrainState]:
        return self.jobs.pretrainings([state.trial for state in self.states.in_order()])

    def history(self) -> list[tuple]:
        return [
            (state.trial.trial_id, state.trial.order, state.shown, state.record.reports)
            for state in self.states.in_order()
        ]


@pytest.fixture
def new_study(tmp_path: Path) -> Callable[[], Study]:
    return lambda: Study(tmp_path / f"study{len(list(tmp_path.iterdir()))}")


def test_a_pre_trained_trial_waits_for_its_weights_and_a_raw_one_for_nothing(new_study) -> None:
    study = new_study()
    states = study.run(concurrent=2)
    assert all(state.shown == "completed" for state in states.in_order())
    pretrained, *raw = (trial(0, cell).trial_id for cell in CELLS)
    assert study.starts[:2] == ["w0", raw[0]], "weights first: a trial waits for them"
    assert study.starts.index(raw[1]) < study.starts.index(pretrained)
    configs = [PlannedTrial.from_dict(values).config for values in study.recorded.values()]
    assert len(configs) == 15
    for config in configs:
        assert config.weights == (f"w{config.seed}" if config.pretrained else None)


def test_idle_slots_train_the_weights_of_the_next_look_and_no_others(new_study) -> None:
    study = new_study()
    study.run(concurrent=6)
    assert set(study.begun_ahead) == {(0, "w1"), (0, "w2"), (2, "w3"), (2, "w4")}
    alone = new_study()
    alone.run(concurrent=1)
    assert alone.begun_ahead == []
    assert study.history() == alone.history()
    assert alone.starts.count("w1") == 1


@pytest.mark.parametrize("concurrent", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_trained_ahead_never_delays_a_trial(new_study, concurrent: int, seed: int) -> None:
    study = new_study()

    def check(running: Study) -> None:
        waiting = [job_id(job) for job in running.executor._queued]
        states = {state.job.file: state for state in running.pretrainings()}
        needed = [name for name in waiting if name not in states or not states[name].ahead]
        assert not (needed and running.running_ahead())
        assert len(running.executor._running) <= concurrent

    study.run(concurrent=concurrent, seed=seed, eager=True, on_tick=check)
    alone = new_study()
    alone.run(concurrent=1)
    assert study.history() == alone.history(), "whatever the timing"


def test_a_pre_training_that_gives_way_continues_after_its_last_epoch(new_study) -> None:
    study = new_study()
    trained: list[tuple[str, int]] = []
    study.fail = lambda name, epoch: trained.append((name, epoch))
    study.run(concurrent=4, eager=True)
    gave_way = {name for name in study.gave_way if name.startswith("w")}
    assert gave_way & {"w3", "w4", "w5", "w6"}
    assert any(study.starts.count(name) > 1 for name in gave_way)
    assert len(trained) == len(set(trained)), "no epoch was trained twice"
    assert {(f"w{seed}", epoch) for seed in range(5) for epoch in range(1, 5)} <= set(trained)


def test_a_kill_at_any_moment_changes_nothing(new_study) -> None:
    undisturbed = new_study()
    ticks = 0

    def count(_: Study) -> None:
        nonlocal ticks
        ticks += 1

    undisturbed.run(concurrent=3, on_tick=count)
    assert ticks > 60
    for moment in range(1, ticks // 2, 2):
        study, left = new_study(), iter(range(moment - 1, -1, -1))

        def kill(_: Study, left: Iterator[int] = left) -> None:
            if next(left, None) == 0:
                raise Killed

        with pytest.raises(Killed):
            study.run(concurrent=3, seed=moment, eager=moment % 2 == 0, on_tick=kill)
        study.run(concurrent=2)
        assert study.history() == undisturbed.history()
        assert study.recorded.keys() == undisturbed.recorded.keys()


def test_a_pre_training_whose_process_dies_is_continued(new_study) -> None:
    study, deaths = new_study(), []

    def die(name: str, epoch: int) -> None:
        if (name, epoch) == ("w1", 3) and len(deaths) < 2:
            deaths.append(epoch)
            raise OSError("the process died")

    study.fail = die
    study.run()
    assert len(deaths) == 2
    assert [(error, "pre-training of resnet18, seed" in job) for job, error in study.told] == [
        ("the process died", True)
    ] * 2
    undisturbed = new_study()
    undisturbed.run()
    assert study.history() == undisturbed.history()


def test_one_that_fails_for_good_ends_the_study_with_its_sentence(new_study) -> None:
    study = new_study()

    def diverge(name: str, epoch: int) -> None:
        if name == "w0":
            raise UserError("resnet18 diverged in epoch 1")

    study.fail = diverge
    with pytest.raises(UserError, match="pre-training of resnet18, seed 0 on figures: resnet18 diverged in"):
        study.run()


def test_one_that_fails_ahead_of_time_ends_the_study_only_when_it_is_needed(new_study) -> None:
    study = new_study()

    def diverge(name: str, epoch: int) -> None:
        if name == "w3":
            raise UserError("diverged")

    study.fail = diverge
    with pytest.raises(UserError, match="seed 3"):
        study.run(concurrent=6)
    looked = [state for state in study.states.in_order() if 1 <= state.trial.config.seed <= 2]
    assert all(state.final for state in looked)
    assert any(state.trial.config.seed == 3 for state in study.states.in_order())


def test_a_job_that_waits_too_long_gets_the_slot_of_one_ahead_of_time() -> None:
    """A lost node: fewer jobs run than slots are counted."""
    now, stopped = [0.0], []

    class Recorder:
        def __init__(self) -> None:
            self.started: list[str] = []

        def start(self, job: object) -> None:
            self.started.append(job_id(job))

        def stop(self, name: str) -> None:
            stopped.append(name)

    executor, epochs = Recorder(), {"w0": 4}
    jobs = Jobs(executor, Weights(epochs), slots=4, clock=lambda: now[0])
    trials = [trial(0, cell) for cell in CELLS]
    jobs.add(trials[:1])
    jobs.start(trials)
    jobs.handle(Started(trials[0].trial_id))
    jobs.start(trials)
    assert executor.started == [trials[0].trial_id, "w1", "w2"]
    for name in ("w1", "w2"):
        jobs.handle(Started(name))
    jobs.handle(Retried(trials[0].trial_id, "its node was lost"))
    jobs.start(trials)
    now[0] = PATIENCE_SECONDS
    jobs.start(trials)
    assert stopped == []
    now[0] += 1
    jobs.start(trials)
    assert stopped == ["w2"]
    jobs.handle(Reported("w2", ()))
    jobs.handle(Ended("w2"))
    jobs.handle(Started(trials[0].trial_id))
    jobs.start(trials)
    assert executor.started[-1] == "w2", "it is continued once slots are idle again"
