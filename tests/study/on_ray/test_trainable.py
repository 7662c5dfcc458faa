"""The trainable alone: what a step returns, exact resume, what is refused. No Ray is started."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.predict import load_trial
from segstrat.train import train
from study.on_ray.trainable import SCORES, SETTINGS, SegmentationTrial, flat_metrics
from tests.study.fakes import report

CLOCKS = ("seconds", "images_per_second", "data_wait")


@pytest.fixture
def start(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`start(field=value, …)` makes a trainable of a tiny trial, as Tune's worker would."""
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    trainables = []

    def make(**config: object) -> SegmentationTrial:
        trainables.append(SegmentationTrial(tiny(tiny_data) | config))
        return trainables[-1]

    yield make
    for trainable in trainables:
        trainable.stop()


def tiny(data: Path) -> dict:
    return {
        "data": "folder", "data_root": str(data), "cache": False, "precision": "float32",
        "backbone": "squeezenet1_1", "width": 0.25, "crop_size": 32, "batch_size": 4, "epochs": 4,
        "learning_rate": 0.02,
    }  # fmt: skip


def exact(result: dict) -> dict:
    """What a trial's result says of the training: all but clocks, and what Tune adds."""
    mine = {name for name in result if name.endswith(SCORES)} | {"epoch", "epochs", "status", "learning_rate"}
    return {name: value for name, value in result.items() if name in mine}


def test_a_step_is_an_epoch_and_its_metrics_are_those_of_the_training(start, tiny_data):
    trial = start()
    config = TrialConfig.from_dict(
        {name: value for name, value in tiny(tiny_data).items() if name not in SETTINGS}
    )
    for expected in train(config, machine=Machine(data_root=tiny_data, precision="float32")):
        result = trial.train()
        assert exact(result) == exact(flat_metrics(expected, config))
        assert result["epoch"] == result["training_iteration"] == expected.epoch
        assert result["done"] == (expected.epoch == 4)
        assert set(CLOCKS) <= set(result)
        assert {"semseg_val_miou", "semseg_train_loss"} <= set(result)
        assert not {"reports", "error"} & set(result)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_trial_continues_from_a_checkpoint_bit_for_bit(start, tmp_path, epoch):
    first, second = start(), start(learning_rate=0.5)
    before = [first.train() for _ in range(epoch)]
    second.train()
    folder = str(tmp_path / "saved")
    first.save(folder)
    assert {name for name in first.store.names() if name.endswith(".pt")}, "its own state stays"
    second.reset(first.config)
    second.restore(folder)
    if epoch == 4:
        assert exact(second.train()) == exact(before[-1]), "a trial that has ended says so again"
        return
    while not before[-1]["done"]:
        before.append(first.train())
        assert exact(second.train()) == exact(before[-1])
    assert before[-1]["epoch"] == 4


def test_a_checkpoint_is_a_trained_model(start, tmp_path):
    trial = start()
    trial.train()
    folder = tmp_path / "saved"
    trial.save(str(folder))
    trained = load_trial(folder)
    assert trained.config == trial.trial.config
    assert trained.checkpoint == "checkpoint-000001.pt"


def test_its_state_leaves_nothing_behind(start):
    trial = start()
    trial.train()
    folder = trial.store.local_path
    assert folder.is_dir()
    trial.stop()
    assert not folder.exists()


def test_validation_scores_stand_until_the_next_validation(start, tmp_path):
    trial = start(validate_every=2, epochs=3)
    first, second = trial.train(), trial.train()
    assert math.isnan(first["semseg_val_miou"])
    assert second["semseg_val_miou"] > 0
    trial.save(str(tmp_path / "saved"))
    other = start(validate_every=2, epochs=5)
    other.restore(str(tmp_path / "saved"))
    third = other.train()
    assert third["epoch"] == 3
    assert third["semseg_val_miou"] == second["semseg_val_miou"]
    assert third["semseg_train_loss"] != second["semseg_train_loss"]


def test_a_diverged_trial_has_ended_and_has_no_validation_score(start):
    trial = start(learning_rate=1e30, epochs=3)
    result = trial.train()
    while not result["done"]:
        result = trial.train()
    assert result["status"] == "diverged"
    assert math.isnan(result["semseg_val_miou"])
    before = flat_metrics(report(1, 0.5), trial.trial.config)
    assert before["semseg_val_miou"] == 0.5
    assert math.isnan(
        (before | flat_metrics(report(2, 0.5, status="diverged"), trial.trial.config))["semseg_val_miou"]
    )


def test_rays_asha_stops_on_what_it_reports(start):
    scheduler = ASHAScheduler(
        time_attr="epoch", metric="semseg_val_loss", mode="min", max_t=4, grace_period=2, reduction_factor=2
    )
    decisions = {}
    for rate in (0.02, 1e-6):
        trial, handle = start(learning_rate=rate), SimpleNamespace(trial_id=str(rate))
        scheduler.on_trial_add(None, handle)
        decisions[rate] = [scheduler.on_trial_result(None, handle, trial.train()) for _ in range(3)]
    assert set(decisions[0.02]) == {TrialScheduler.CONTINUE}
    assert decisions[1e-6][:2] == [TrialScheduler.CONTINUE, TrialScheduler.STOP]


def test_the_pre_trained_arm(start, tiny_data, tmp_path):
    from segstrat.models import build_model
    from segstrat.models.weights import save_backbone
    from segstrat.tasks import Task

    fields = {name: value for name, value in tiny(tiny_data).items() if name not in SETTINGS}
    donor = build_model(TrialConfig.from_dict(fields | {"seed": 9}), {"semseg": Task("semseg", 3)})
    path = tmp_path / "backbone.pth"
    save_backbone(path, donor.backbone)
    raw, pretrained = start().train(), start(pretrained=True, weights=str(path)).train()
    assert pretrained["semseg_train_loss"] != raw["semseg_train_loss"]
    with pytest.raises(UserError, match="expected `weights` as well"):
        SegmentationTrial.default_resource_request(tiny(tiny_data) | {"pretrained": True})
    with pytest.raises(UserError, match="absolute path"):
        start(pretrained=True, weights="nowhere.pth").train()


def test_several_tasks_have_their_own_metrics(start):
    result = start(tasks=["semseg", "boundaries"], epochs=1).train()
    for task in ("semseg", "boundaries"):
        assert 0 <= result[f"{task}_val_miou"] <= 1
        assert result[f"{task}_train_loss"] > 0
    assert result["done"]


def test_the_data_root_is_that_of_the_environment_by_default(start, tiny_data, monkeypatch):
    monkeypatch.delenv("SEGSTRAT_DATA", raising=False)
    with pytest.raises(UserError, match="SEGSTRAT_DATA"):
        start(data_root=None).train()
    monkeypatch.setenv("SEGSTRAT_DATA", str(tiny_data))
    assert start(data_root=None).train()["epoch"] == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"wieght_decay": 0.1}, "did you mean 'weight_decay'"),
        ({"epochs": 2.5}, "epochs must be int"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"gpus": 2}, "expected at most 1"),
    ],
)
def test_a_wrong_field_is_refused_before_anything_starts(config, words):
    with pytest.raises(UserError, match=words):
        SegmentationTrial.default_resource_request(config)


def test_settings_are_no_fields():
    assert not set(SETTINGS) & set(TrialConfig().to_dict())


def test_what_tune_samples_is_a_valid_config():
    space = {
        "learning_rate": tune.loguniform(1e-4, 1e-1),
        "weight_decay": tune.quniform(0, 0.1, 0.01),
        "batch_size": tune.randint(1, 9),
        "epochs": tune.lograndint(1, 9),
        "freeze_batch_norm": tune.choice([True, False]),
        "tasks": tune.choice([["semseg"], ["semseg", "parts"]]),
        "backbone": tune.choice(["resnet18", "vgg16"]),
    }
    for _ in range(20):
        config = {name: each.sample() for name, each in space.items()}
        request = SegmentationTrial.default_resource_request(config)
        assert request.bundles[0]["CPU"] >= 1


def test_resources_are_those_of_the_config_or_those_that_tune_gave(start):
    request = SegmentationTrial.default_resource_request
    assert request({}).bundles == [{"CPU": 1.0}]
    assert request({"cpus": 2, "gpus": 0.5}).bundles == [{"CPU": 2.0, "GPU": 0.5}]
    assert start().resources() == (1, 0)
    trial = start()
    trial._trial_info = SimpleNamespace(
        trial_resources=tune.PlacementGroupFactory([{"CPU": 3}]), trial_id="t", trial_name="t"
    )
    assert trial.resources() == (3, 0)
    trial.train()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    trial._trial_info.trial_resources = tune.PlacementGroupFactory([{"CPU": 1, "GPU": 2}])
    with pytest.raises(UserError, match="expected at most 1"):
        trial.resources()
