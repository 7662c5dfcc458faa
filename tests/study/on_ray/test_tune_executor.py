"""Ray Tune's calls as events of the executor; and how the halving rule differs from Ray's own scheduler."""

import threading
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from segstrat.config import TrialConfig
from segstrat.pretraining.job import PretrainReport
from segstrat.records import EpochReport
from segstrat.store import Store
from study.driver.loop import Loop
from study.on_ray.tune_executor import EventCallback, QueuedJobs, ReportingScheduler
from study.planning.trials import PlannedTrial
from study.search.base import FixedPlan
from study.state.executor import Ended, Reported, Retried, Started
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates
from tests.study.fakes import METRIC, LocalExecutor, planned, report

BUDGETS = {"raw": 12, "pre-trained": 8}


class Link:
    """What Tune's side sees of the executor."""

    def __init__(self, *, stop: bool = False) -> None:
        self.events: list = []
        self.closing = False
        self.queued: list[dict] = []
        self._stop = stop

    def next_job(self) -> dict | None:
        return self.queued.pop(0) if self.queued else None

    def send(self, event: object) -> threading.Event:
        self.events.append(event)
        return threading.Event()

    def report(self, trial_id: str, reports: tuple[EpochReport, ...]) -> bool:
        self.send(Reported(trial_id, reports))
        return self._stop


def tune_trial(trial: PlannedTrial) -> SimpleNamespace:
    return SimpleNamespace(
        trial_id=trial.trial_id, config={"job_id": trial.trial_id, "trial": trial.to_dict()},
        max_failures=2, num_failures=1, last_result={"error": "labels are missing"},
        pickled_error_file=None, is_finished=lambda: False, temporary_state=SimpleNamespace(ray_actor=None),
    )  # fmt: skip


def result(reports: list[EpochReport], error: str = "") -> dict:
    return {"reports": [each.to_dict() for each in reports], "error": error}


def test_reports_reach_the_driver_and_its_decision_reaches_tune():
    trial = tune_trial(planned(0))
    for stop, decision in ((False, TrialScheduler.CONTINUE), (True, TrialScheduler.STOP)):
        link = Link(stop=stop)
        reports = [report(1, 0.1), report(2, 0.2)]
        assert ReportingScheduler(link).on_trial_result(None, trial, result(reports)) == decision
        assert link.events == [Reported("raw0", tuple(reports))]


def test_a_trial_that_cannot_continue_ends_with_its_message():
    link, trial = Link(), tune_trial(planned(0))
    decision = ReportingScheduler(link).on_trial_result(None, trial, result([], "labels are missing"))
    assert decision == TrialScheduler.STOP
    EventCallback(link, 2).on_trial_complete(1, [], trial)
    assert link.events[-1] == Ended("raw0", "labels are missing")


def test_starts_failures_and_retries_are_events():
    link, trial = Link(), tune_trial(planned(0))
    callback = EventCallback(link, 2)
    callback.on_trial_start(1, [], trial)
    callback.on_trial_recover(1, [], trial)
    callback.on_trial_error(1, [], trial)
    assert [type(event) for event in link.events] == [Started, Retried, Ended]
    callback.on_trial_result(1, [], trial, result([report(1, 0.1)]))
    assert trial.max_failures == 3, "an epoch was gained: failures count from here"


def test_epochs_that_are_trained_again_are_no_progress():
    """Where a full disk takes no checkpoint, a trial begins anew after each failure."""
    trial = tune_trial(planned(0))
    callback = EventCallback(Link(), 2)
    limits = []
    for failures, epochs in enumerate(([1], [1], [1, 2], [1, 2], [1, 2, 3])):
        trial.num_failures = failures
        callback.on_trial_result(1, [], trial, result([report(epoch, 0.1) for epoch in epochs]))
        limits.append(trial.max_failures)
    assert limits == [2, 2, 4, 4, 6]


def test_a_pre_training_reports_and_frees_its_process_when_it_ends():
    link, trial = Link(stop=True), tune_trial(planned(0))
    trial.config = {"job_id": "w0.pth", "pretraining": {}}
    epoch = PretrainReport(epoch=1, epochs=2, train_loss=1.0, top1=0.5, top5=0.6, seconds=3.0)
    scheduler = ReportingScheduler(link)
    for reports in ([], [epoch]):
        result = {"reports": [asdict(each) for each in reports], "error": ""}
        assert scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP, "at any step"
    freed = []
    trial.temporary_state.ray_actor = SimpleNamespace(cleanup=SimpleNamespace(remote=lambda: freed.append(1)))
    trial.last_result = {"error": "", "done": True}
    EventCallback(link, 2).on_trial_complete(1, [], trial)
    assert link.events == [Reported("w0.pth", ()), Reported("w0.pth", (epoch,)), Ended("w0.pth", "")]
    assert freed, "its lock on the weights must not outlive it"


def test_jobs_are_handed_out_as_queued_until_the_driver_closes():
    link = Link()
    link.queued = [{"trial": {"trial_id": name}} for name in "ab"]
    search = QueuedJobs(link)
    assert [search.suggest("x")["trial"]["trial_id"] for _ in range(2)] == ["a", "b"]
    assert search.suggest("x") is None, "asked again later"
    link.closing = True
    assert search.suggest("x") == Searcher.FINISHED


def value(arm: str, quality: int, epoch: int) -> float:
    """Validation mIoU: raw trials start near .05 and end near .4, pre-trained ones start near .4 already."""
    done = epoch / BUDGETS[arm]
    return (0.05 + 0.35 * done**2 if arm == "raw" else 0.4 + 0.1 * done) + quality / 1000


def quality(order: int) -> int:
    return (order // 2 * 5 + 3) % 8


def both_arms() -> list[PlannedTrial]:
    """Eight raw and eight pre-trained trials in turn, of growing quality in a shuffled order."""
    arms = ["raw" if order % 2 == 0 else "pre-trained" for order in range(16)]
    return [planned(order, arm, BUDGETS[arm]) for order, arm in enumerate(arms)]


def stopped_by_ray(trials: list[PlannedTrial]) -> set[str]:
    """The trials that Ray's own scheduler stops, four at a time."""
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch", metric=METRIC.name, mode="max", max_t=12, grace_period=2, reduction_factor=2
    )
    waiting = [(trial, tune_trial(trial)) for trial in trials]
    for _, handle in waiting:
        scheduler.on_trial_add(None, handle)
    stopped, running, waiting = set(), [[*pair, 0] for pair in waiting[:4]], waiting[4:]
    while running:
        trial, handle, epoch = running.pop(0)
        epoch += 1
        score = value(trial.arm, quality(trial.order), epoch)
        decision = scheduler.on_trial_result(None, handle, {"epoch": epoch, METRIC.name: score})
        if decision == TrialScheduler.STOP or epoch == BUDGETS[trial.arm]:
            if epoch < BUDGETS[trial.arm]:
                stopped.add(trial.trial_id)
            if waiting:
                running.append([*waiting.pop(0), 0])
        else:
            running.append([trial, handle, epoch])
    return stopped


def test_a_slow_starting_arm_survives_where_rays_scheduler_stops_it(tmp_path):
    trials = both_arms()
    raw = {trial.trial_id for trial in trials if trial.arm == "raw"}
    assert len(raw & stopped_by_ray(trials)) >= len(raw) - 1

    def train(trial: PlannedTrial):
        for epoch in range(1, trial.config.epochs + 1):
            yield report(epoch, value(trial.arm, quality(trial.order), epoch), epochs=trial.config.epochs)

    states = TrialStates(Store(tmp_path), HalvingRule(), METRIC)
    for trial in trials:
        states.add(trial)
    Loop(states, FixedPlan(), LocalExecutor(train, concurrent=4)).run()
    survivors = {trial_id for trial_id, state in states.by_id.items() if state.shown == "completed"}
    assert len(survivors & raw) >= 3
    assert len(survivors - raw) >= 3
    best = max(range(0, 16, 2), key=quality)
    assert f"raw{best}" in survivors, "the best raw trial is among them"
    assert len(trials) - len(survivors) >= 4, "and trials were stopped in earnest"


def test_the_rungs_follow_the_trials_own_epochs():
    assert HalvingRule().rung_epochs(TrialConfig(epochs=12).epochs) == (3, 6)


@pytest.mark.parametrize("concurrent", [1, 3])
def test_the_local_executor_retries_and_gives_up(tmp_path, concurrent):
    starts: dict[str, int] = {}

    def train(trial: PlannedTrial):
        starts[trial.trial_id] = starts.get(trial.trial_id, 0) + 1
        if trial.trial_id == "raw1" or starts[trial.trial_id] == 1:
            raise OSError("disk is full")
        for epoch in range(1, 9):
            yield report(epoch, 0.5)

    states = TrialStates(Store(tmp_path), HalvingRule(), METRIC)
    for order in range(3):
        states.add(planned(order))
    Loop(states, FixedPlan(), LocalExecutor(train, concurrent=concurrent, max_retries=1)).run()
    assert {name: (state.shown, state.record.attempts) for name, state in states.by_id.items()} == {
        "raw0": ("completed", 2), "raw1": ("failed", 2), "raw2": ("completed", 2),
    }  # fmt: skip
