"""The Ray adapter of the halving rule, beside Ray's own scheduler on the same trials."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, SplitScore
from segstrat.store import Store
from study.on_ray.adapters import ArmFairASHA
from study.planning.trials import PlannedTrial
from study.search.base import PlannedSearch
from study.state.halving import HalvingRule, Rungs
from study.state.trial_states import Ledger

METRIC = "semseg_val_miou"
BUDGETS = {"raw": 12, "pre-trained": 8}


def curve(arm: str, quality: int, epoch: int) -> float:
    """Validation mIoU: raw trials start near .05 and end near .4, pre-trained ones start near .4 already."""
    done = epoch / BUDGETS[arm]
    return (0.05 + 0.35 * done**2 if arm == "raw" else 0.4 + 0.1 * done) + quality / 1000


class Study:
    """Eight raw and eight pre-trained trials in turn, of growing quality in a shuffled order."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(Store(folder), Rungs(HalvingRule()), METRIC)
        self.trials = []
        for order in range(16):
            arm = "raw" if order % 2 == 0 else "pre-trained"
            config = TrialConfig(epochs=BUDGETS[arm], weight_decay=order / 1000)
            planned = PlannedTrial(trial_id=f"{arm} {order}", order=order, arm=arm, axes={}, config=config)
            self.ledger.add(planned)
            self.trials.append(
                SimpleNamespace(trial_id=planned.trial_id, config={"trial": planned.to_dict()}, arm=arm)
            )

    def quality(self, order: int) -> int:
        return (order // 2 * 5 + 3) % 8

    def run(self, scheduler: TrialScheduler) -> set[str]:
        """Runs four trials at a time under a scheduler and returns those that it stopped early."""
        stopped, waiting = set(), list(enumerate(self.trials))
        for _, trial in waiting:
            scheduler.on_trial_add(None, trial)
        running = [[order, trial, 0] for order, trial in waiting[:4]]
        waiting = waiting[4:]
        while running:
            order, trial, epoch = running.pop(0)
            epoch += 1
            value = curve(trial.arm, self.quality(order), epoch)
            decision = scheduler.on_trial_result(None, trial, result(value, epoch, BUDGETS[trial.arm]))
            if decision == TrialScheduler.STOP or epoch == BUDGETS[trial.arm]:
                self.ledger.ended(trial.trial_id)
                if epoch < BUDGETS[trial.arm]:
                    stopped.add(trial.trial_id)
                if waiting:
                    running.append([*waiting.pop(0), 0])
            else:
                running.append([order, trial, epoch])
        return stopped


def result(value: float, epoch: int, epochs: int) -> dict:
    score = SplitScore(
        split="val", task="semseg", loss=1.0, miou=value, miou_thesis=value, pixel_accuracy=value,
        class_accuracy=value, iou=(value,),
    )  # fmt: skip
    report = EpochReport(
        epoch=epoch, epochs=epochs, status="completed" if epoch == epochs else "running", scores=(score,),
        learning_rate=0.1, seconds=1.0, images_per_second=1.0, data_wait=0.0,
    )  # fmt: skip
    return {"reports": [report.to_dict()], "error": "", METRIC: value, "training_iteration": epoch}


def test_a_slow_starting_arm_survives_where_rays_scheduler_stops_it(tmp_path):
    study = Study(tmp_path)
    stock = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric=METRIC,
        mode="max",
        max_t=12,
        grace_period=2,
        reduction_factor=2,
    )
    killed = study.run(stock)
    raw = [trial.trial_id for trial in study.trials if trial.arm == "raw"]
    assert len([name for name in raw if name in killed]) >= len(raw) - 1

    fair = Study(tmp_path / "fair")
    stopped = fair.run(ArmFairASHA(fair.ledger))
    survivors = {
        arm: [t.trial_id for t in fair.trials if t.arm == arm and t.trial_id not in stopped]
        for arm in BUDGETS
    }
    assert len(survivors["raw"]) >= 3
    assert len(survivors["pre-trained"]) >= 3
    best = max(range(0, 16, 2), key=fair.quality)
    assert f"raw {best}" in survivors["raw"], "the best raw trial is among them"
    assert len(stopped) >= 4, "and trials were stopped in earnest"


@pytest.mark.parametrize("error", ["", "labels are missing"])
def test_the_adapter_stops_at_the_end_and_on_an_error(tmp_path, error):
    study = Study(tmp_path)
    trial = study.trials[0]
    scheduler = ArmFairASHA(study.ledger)
    assert scheduler.on_trial_result(None, trial, result(0.1, 1, 12)) == TrialScheduler.CONTINUE
    last = result(0.2, 12, 12) if not error else {"reports": [], "error": error}
    assert scheduler.on_trial_result(None, trial, last) == TrialScheduler.STOP


def test_the_rungs_follow_the_trials_own_epochs_not_rays_iterations(tmp_path):
    study = Study(tmp_path)
    scheduler = ArmFairASHA(study.ledger)
    raw = [trial for trial in study.trials if trial.arm == "raw"]
    for trial, value in zip(raw[:3], (0.5, 0.4, 0.1), strict=True):
        for epoch in range(1, 4):
            # After a retry Ray counts its iterations from 1 again.
            report = result(value, epoch, 12) | {"training_iteration": 1}
            decision = scheduler.on_trial_result(None, trial, report)
    assert decision == TrialScheduler.STOP, "epoch 3 of 12 is its first rung"


def test_trials_are_handed_out_in_the_studys_order(tmp_path):
    planned = [row.trial for row in Study(tmp_path).ledger.rows.values()]
    search = PlannedSearch(reversed(planned))
    handed = []
    while not search.finished:
        handed.append(search.next_trial())
    assert handed == planned
    assert search.next_trial() is None
