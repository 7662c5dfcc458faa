import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from segstrat import train as train_module
from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.image_counts import COUNTS, read_counts
from segstrat.machine import Machine
from segstrat.models import build_backbone, build_model
from segstrat.models.weights import save_backbone
from segstrat.optim import COMMON
from segstrat.records import EpochReport, read_records
from segstrat.scores import Metric
from segstrat.store import Store
from segstrat.tasks import Task
from segstrat.train import evaluate, train, train_one_epoch
from segstrat.training_state import build_training, images_per_group, some_images, training_set


def config(**fields) -> TrialConfig:
    """A run of seconds: an eighth of a ResNet-18, 32-pixel crops."""
    defaults = {
        "data": "figures",
        "model": "fcn8s",
        "width": 0.125,
        "crop_size": 32,
        "batch_size": 3,
        "epochs": 3,
        "learning_rate": 0.01,
    }
    return TrialConfig.from_dict(defaults | fields)


def science(reports: list[EpochReport]) -> list[dict]:
    """Reports without their times."""
    times = {"seconds", "images_per_second", "data_wait"}
    return [{key: value for key, value in r.to_dict().items() if key not in times} for r in reports]


def test_it_over_fits_four_images(tiny_protocol):
    settings = config(
        width=0.25, epochs=120, batch_size=4, crop_size=48, augmentation=0.0, learning_rate=0.05
    )
    *_, last = train(settings, protocol=tiny_protocol(train=4, val=1))
    assert last.status == "completed"
    assert last.value("semseg", "train", "miou") > 0.95


def test_the_same_config_twice_gives_the_same_numbers(tiny_protocol):
    settings = config(dropout=0.3, tasks=("semseg", "parts"))
    first, second = (science(list(train(settings, protocol=tiny_protocol()))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dropout": 0.3, "tasks": ("semseg", "parts")},
        {"asynchronous": True, "common_batch": 5, "head_batch": 4, "tasks": ("semseg", "parts")},
        {"optimizer": "adamw", "warmup_epochs": 1.5, "clip_gradient": 0.5, "loss": "cross_entropy+dice"},
        {"optimizer": "adamw", "asynchronous": True, "common_batch": 5, "tasks": ("semseg", "parts")},
    ],
    ids=[
        "plain",
        "dropout and two tasks",
        "asynchronous with pending gradients",
        "AdamW",
        "asynchronous AdamW",
    ],
)
def test_a_killed_trial_ends_bit_identical(tiny_protocol, tmp_path: Path, fields: dict):
    settings = config(**fields)
    protocol = tiny_protocol(mixed=settings.asynchronous)
    whole, cut = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    undisturbed = list(train(settings, protocol=protocol, store=whole))
    # Abandoning the generator is what a kill leaves behind: files, and nothing else.
    next(train(settings, protocol=protocol, store=cut))
    torch.manual_seed(99)
    rest = list(train(settings, protocol=protocol, store=cut))
    assert science(rest) == science(undisturbed[1:])
    assert science(read_records(cut)[1]) == science(undisturbed)
    states = [
        torch.load(tmp_path / name / "checkpoint-000003.pt", weights_only=True)["model"]
        for name in ("whole", "cut")
    ]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_finished_trial_is_not_trained_again(tiny_protocol, tmp_path: Path):
    settings, store = config(epochs=1), Store(tmp_path)
    assert len(list(train(settings, protocol=tiny_protocol(), store=store))) == 1
    assert list(train(settings, protocol=tiny_protocol(), store=store)) == []


def test_a_checkpoint_of_other_classes_is_refused_with_their_numbers(tiny_protocol, tmp_path: Path):
    settings, store = config(epochs=2), Store(tmp_path)
    next(train(settings, protocol=tiny_protocol(), store=store))
    protocol = tiny_protocol()
    more = Task("semseg", [*protocol.tasks["semseg"].classes, "horse"])
    other = dataclasses.replace(protocol, tasks={**protocol.tasks, "semseg": more})
    with pytest.raises(UserError, match=r"for 3 classes of task 'semseg'.*the data has 4"):
        next(train(settings, protocol=other, store=store))


def test_weights_that_are_not_finite_end_the_trial_as_diverged(tiny_protocol, tmp_path: Path, monkeypatch):
    plain = train_module.train_one_epoch

    def spoiled(objective, *arguments):
        metrics = plain(objective, *arguments)
        with torch.no_grad():
            next(objective.model.parameters()).fill_(math.nan)
        return metrics

    monkeypatch.setattr(train_module, "train_one_epoch", spoiled)
    settings = config(epochs=3, validate_every=3)
    (report,) = train(settings, protocol=tiny_protocol(), store=Store(tmp_path))
    assert report.status == "diverged"
    assert report.message == "weights were not finite after epoch 1"


def test_a_validation_loss_that_is_not_finite_ends_the_trial_as_diverged(tiny_protocol, monkeypatch):
    plain = train_module.score_splits

    def infinite(trial, *, final):
        return tuple(dataclasses.replace(score, loss=math.nan) for score in plain(trial, final=final))

    monkeypatch.setattr(train_module, "score_splits", infinite)
    (report,) = train(config(epochs=1), protocol=tiny_protocol())
    assert report.status == "diverged"
    assert report.message == "the loss on val was not finite after epoch 1"


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(tiny_protocol, tmp_path: Path):
    settings, store = config(learning_rate=1e12, epochs=5), Store(tmp_path)
    reports = list(train(settings, protocol=tiny_protocol(), store=store))
    assert reports[-1].status == "diverged"
    assert len(reports) < 5
    assert "not finite at step" in reports[-1].message
    assert list(train(settings, protocol=tiny_protocol(), store=store)) == []


def test_a_label_that_is_not_a_class_is_reported_clearly(tiny_protocol):
    protocol = tiny_protocol()
    protocol.train.samples[2].labels["semseg"][20:24, 20:24] = 7
    with pytest.raises(UserError, match=r"pixels have a label outside 0…2 .* check the label files"):
        next(train(config(augmentation=0.0, crop_size=48), protocol=protocol))


def test_reports_survive_their_file(tiny_protocol, tmp_path: Path):
    store = Store(tmp_path)
    reports = list(train(config(epochs=2), protocol=tiny_protocol(), store=store))
    facts, read = read_records(store)
    assert read == reports
    assert facts["realised_weight_decay"] == 5e-4
    assert facts["train_images"] == 6
    assert reports[0].metrics()["semseg_val_miou"] == reports[0].value("semseg", "val", "miou")


def test_the_test_split_is_scored_at_the_last_epoch_only(tiny_protocol, tmp_path: Path):
    store = Store(tmp_path)
    settings = config(epochs=2, tasks=("semseg", "parts"))
    first, last = train(settings, protocol=tiny_protocol(test=3, mixed=True), store=store)
    assert {score.split for score in first.scores} == {"train", "val"}
    scored = {(score.split, score.task) for score in last.scores}
    # No test image is labelled for parts.
    everywhere = itertools.product(("train", "train_clean", "val"), settings.tasks)
    assert scored == {*everywhere, ("test", "semseg")}
    assert last.value("semseg", "test", "miou") > 0
    facts, reports = read_records(store)
    assert reports[-1] == last
    assert facts["test_images"] == 3
    assert facts["constant_miou"].keys() == {"semseg", "parts"}
    assert facts["constant_miou"]["semseg"].keys() == {"val", "test"}


def test_clean_training_scores_are_those_of_training_images_without_augmentation_and_dropout(
    tiny_protocol, tmp_path: Path
):
    settings = config(epochs=2, dropout=0.9, augmentation=2.0)
    protocol = tiny_protocol()
    # The images that are trained on are those that are validated on, so both scores must agree.
    protocol = dataclasses.replace(protocol, val=protocol.train)
    *_, last = train(settings, protocol=protocol)
    clean, val, seen = (
        next(score for score in last.scores if score.split == split)
        for split in ("train_clean", "val", "train")
    )
    assert dataclasses.replace(clean, split="val") == val
    assert seen.miou != clean.miou


def test_clean_training_scores_use_images_from_all_over_the_training_set(tiny_protocol):
    train_set = tiny_protocol(train=40).train
    assert some_images(train_set, 41) is train_set
    chosen = [train_set.ids.index(name) for name in some_images(train_set, 20).ids]
    assert len(chosen) == 20
    assert min(chosen) < 10
    assert max(chosen) >= 30


def test_counts_of_single_images_reproduce_the_scores_exactly(tiny_protocol, tmp_path: Path):
    store = Store(tmp_path)
    *_, last = train(config(tasks=("semseg", "parts")), protocol=tiny_protocol(test=4), store=store)
    counts = read_counts(store)
    assert counts.keys() == {(task, split) for split in ("val", "test") for task in ("semseg", "parts")}
    for (task, split), images in counts.items():
        assert images.miou() == last.value(task, split, "miou")
        assert images.confusion is not None
        for axis, table in ((1, images.labeled), (0, images.predicted)):
            np.testing.assert_array_equal(images.confusion.sum(axis), table.sum(0))
        np.testing.assert_array_equal(images.confusion.diagonal(), images.hits.sum(0))
    assert counts["semseg", "val"].ids == ("val0", "val1", "val2")
    labelled = counts["semseg", "val"].labeled
    assert labelled.sum(1).tolist() == [47 * 48] * 3, "void pixels count nowhere"
    constant = read_records(store)[0]["constant_miou"]["semseg"]["val"]
    by_hand = [labelled[:, k].sum() / labelled.sum() / 3 for k in range(3)]
    assert constant == pytest.approx(max(by_hand))


def test_boundaries_of_single_images_reproduce_their_score_and_change_no_other(tiny_protocol, tmp_path: Path):
    settings = config(
        tasks=("semseg", "parts"),
        epochs=16,
        crop_size=48,
        augmentation=0.0,
        learning_rate=0.05,
        validate_every=8,
    )
    plain = list(train(settings, protocol=tiny_protocol(test=2)))
    settings = dataclasses.replace(settings, boundary_tolerance=0.3)
    reports = list(train(settings, protocol=tiny_protocol(test=2), store=Store(tmp_path)))
    scores = [score for report in reports for score in report.scores]
    assert all((score.boundary_f1 is None) == (score.split == "train") for score in scores)
    unscored = [
        dataclasses.replace(
            report, scores=tuple(dataclasses.replace(score, boundary_f1=None) for score in report.scores)
        )
        for report in reports
    ]
    assert science(unscored) == science(plain)
    for (task, split), images in read_counts(Store(tmp_path)).items():
        metric = Metric(task, "boundary_f1")
        assert images.miou(score=metric.from_counts) == metric.of_report(reports[-1], split) > 0
        assert images.boundary.shape == (len(images.ids), 4, images.hits.shape[1])
    assert read_records(Store(tmp_path))[1] == reports


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_lost_counts_are_computed_again_from_the_checkpoint(tiny_protocol, tmp_path: Path, tolerance: float):
    settings, store = config(epochs=2, boundary_tolerance=tolerance), Store(tmp_path)
    protocol = tiny_protocol(test=2)
    list(train(settings, protocol=protocol, store=store))
    written, (facts, reports) = store.read(COUNTS), read_records(store)
    store.write(COUNTS, written[:-50])
    assert list(train(settings, protocol=protocol, store=store)) == []
    assert store.read(COUNTS) == written
    assert read_records(store) == (facts, reports)


def test_records_say_completed_only_after_the_counts_are_written(tiny_protocol, tmp_path: Path, monkeypatch):
    settings, store = config(epochs=2), Store(tmp_path)
    write = Store.write

    def fail(self: Store, name: str, data: bytes) -> None:
        if name == COUNTS:
            raise OSError("no space")
        write(self, name, data)

    monkeypatch.setattr(Store, "write", fail)
    with pytest.raises(OSError, match="no space"):
        list(train(settings, protocol=tiny_protocol(), store=store))
    assert read_records(store)[1][-1].status == "running"
    monkeypatch.undo()
    (last,) = train(settings, protocol=tiny_protocol(), store=store)
    assert last.status == "completed"
    assert read_counts(store)["semseg", "val"].miou() == last.value("semseg", "val", "miou")


def test_validation_every_other_epoch_and_always_the_last(tiny_protocol):
    reports = train(config(epochs=5, validate_every=2), protocol=tiny_protocol())
    assert [r.value("semseg", "val", "miou") is not None for r in reports] == [False, True, False, True, True]


def test_paired_arms_share_the_initialization_and_other_seeds_do_not(tiny_protocol, tmp_path: Path):
    def digest(**fields) -> str:
        store = Store(tmp_path / str(fields))
        next(train(config(**fields), protocol=tiny_protocol(), store=store))
        return read_records(store)[0]["init_digest"]

    assert digest(weight_decay=0.1) == digest(weight_decay=0.0) != digest(seed=1)


def test_accumulation_gives_the_gradient_of_the_large_batch(tiny_protocol):
    # AlexNet has no batch norm; dropout is off, so that the images of a batch do not interact.
    def weights(**fields) -> torch.Tensor:
        settings = config(model="fcn32s", backbone="alexnet", width=0.125, crop_size=64, epochs=1, **fields)
        protocol = tiny_protocol()
        model = build_model(settings, {"semseg": protocol.tasks["semseg"]})
        list(train(settings, protocol=protocol, model=model, machine=Machine(precision="float32")))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    large = weights(batch_size=6)
    small = weights(batch_size=2, accumulation_steps=3)
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tasks", [("semseg",), ("parts",), ("semseg", "parts")])
def test_mixed_labels_train_each_head_on_its_own_images(tiny_protocol, tasks):
    protocol = tiny_protocol(train=6, mixed=True)
    settings = config(tasks=tasks, asynchronous=True, batch_size=2)
    counts = images_per_group(training_set(protocol.train, settings), tasks)
    assert counts == {COMMON: 3 * len(tasks)} | dict.fromkeys(tasks, 3)
    *_, last = train(settings, protocol=protocol)
    for task in tasks:
        assert math.isfinite(last.value(task, "train", "loss"))
        assert last.value(task, "val", "miou") > 0


def test_every_valid_pixel_is_counted_once(tiny_protocol):
    trial = build_training(config(augmentation=0.0, batch_size=2), Machine(), tiny_protocol(val=2))
    expected = sum(int((batch.labels["semseg"] != 255).sum()) for batch in trial.train_loader.epoch(0))
    metrics = train_one_epoch(trial.objective, trial.train_loader.epoch(0), trial.update, 2)
    assert int(metrics.matrices["semseg"].counts[:-1].sum()) == expected
    # The label maps of 48 × 48 pixels have one void row on top.
    counts = evaluate(trial.objective, trial.val_loader).matrices["semseg"].counts
    assert int(counts[:-1].sum()) == 2 * 47 * 48
    assert int(counts[-1].sum()) == 2 * 48


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "dice", "optimizer": "adamw"},
        {"loss": "focal", "class_weights": "effective_number"},
        {"loss": "ohem", "asynchronous": True},
        {"loss": "focal+ohem", "class_weights": "inverse_frequency", "accumulation_steps": 1},
    ],
)
def test_every_loss_trains_several_tasks_in_half_precision(tiny_protocol, fields: dict):
    settings = config(**fields, tasks=("semseg", "parts"), epochs=1)
    machine = Machine(precision="bfloat16")
    (report,) = train(settings, protocol=tiny_protocol(mixed=settings.asynchronous), machine=machine)
    assert report.status == "completed"
    assert all(math.isfinite(score.loss) for score in report.scores)


def test_the_loss_that_is_reported_is_the_plain_cross_entropy(tiny_protocol):
    # With no step to speak of, all losses score the same network.
    still = {"learning_rate": 1e-30, "epochs": 1, "freeze_batch_norm": True}
    plain, dice = (
        next(train(config(**still, loss=loss), protocol=tiny_protocol())).scores
        for loss in ("cross_entropy", "dice")
    )
    assert plain == dice


def test_class_weights_come_from_the_training_labels_and_are_recorded(tiny_protocol, tmp_path: Path):
    protocol, store = tiny_protocol(), Store(tmp_path)
    settings = config(epochs=1, class_weights="inverse_frequency", tasks=("semseg", "parts"))
    list(train(settings, protocol=protocol, store=store))
    labels = torch.cat([torch.tensor(s.labels["semseg"].ravel()) for s in protocol.train.samples]).long()
    counts = torch.bincount(labels, minlength=256)[:3].double()
    recorded = read_records(store)[0]["class_weights"]
    assert recorded["semseg"] == pytest.approx((counts.sum() / (3 * counts)).tolist())
    assert len(recorded["parts"]) == 3


def test_listed_class_weights_are_those_of_the_first_task(tiny_protocol):
    def weights(**fields) -> dict:
        return build_training(config(**fields), Machine(), tiny_protocol()).facts.class_weights

    both = weights(class_weights=(1.0, 5.0, 2.0), tasks=("parts", "semseg"))
    assert both == {"parts": [1.0, 5.0, 2.0], "semseg": [1.0, 1.0, 1.0]}
    assert weights() == {}
    with pytest.raises(UserError, match="2 weights for the 3 classes of task 'semseg'; give one for each"):
        weights(class_weights=(1.0, 5.0))


def test_bfloat16_on_the_cpu_still_learns(tiny_protocol):
    settings = config(epochs=20, batch_size=4, crop_size=48, augmentation=0.0, learning_rate=0.05)
    *_, last = train(settings, protocol=tiny_protocol(train=4, val=1), machine=Machine(precision="bfloat16"))
    assert last.value("semseg", "train", "miou") > 0.5


# Every field of the config, a change of it, and the other fields without which it would have no effect.
BASELINE = {"epochs": 1}
ASYNCHRONOUS = {"asynchronous": True, "tasks": ("semseg", "parts"), "common_batch": 4, "head_batch": 4}
CHANGES: dict[str, tuple[object, dict]] = {
    "tasks": (("semseg", "parts"), {}),
    "label_fraction": (0.5, {}),
    "model": ("fcn16s", {}),
    "backbone": ("resnet34", {}),
    "width": (0.25, {}),
    "output_stride": (8, {"model": "sunet64"}),
    "pretrained": (True, {"weights": "a"}),
    "weights": ("b", {"pretrained": True, "weights": "a"}),
    "pretrained_lr_factor": (1.0, {"pretrained": True, "weights": "a"}),
    "freeze_batch_norm": (True, {}),
    "weight_decay": (0.1, {}),
    "dropout": (0.5, {}),
    "stochastic_depth": (0.5, {}),
    "label_smoothing": (0.1, {"epochs": 2}),
    "augmentation": (0.5, {}),
    "crop_size": (40, {}),
    "epochs": (2, {}),
    "batch_size": (2, {}),
    "accumulation_steps": (2, {}),
    "learning_rate": (0.02, {}),
    "momentum": (0.5, {}),
    "asynchronous": (True, {"tasks": ("semseg", "parts")}),
    "common_batch": (3, ASYNCHRONOUS),
    "head_batch": (3, ASYNCHRONOUS),
    "validate_every": (2, {"epochs": 2}),
    "loss": ("dice", {}),
    "class_weights": ("inverse_frequency", {}),
    "optimizer": ("adamw", {}),
    "warmup_epochs": (0.9, {}),
    "clip_gradient": (0.1, {}),
    "boundary_tolerance": (0.01, {}),
    "initialization": ("self", {"weights": "a"}),
    "seed": (1, {}),
}


def test_every_field_of_the_config_is_varied_below():
    assert {field.name for field in dataclasses.fields(TrialConfig)} == {*CHANGES, "data"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Files of two different pre-trained backbones, by a short name."""
    files = {}
    for seed, name in enumerate("ab"):
        path = tmp_path_factory.mktemp("weights") / f"{name}.pth"
        save_backbone(path, build_backbone("resnet18", width=0.125, seed=100 + seed))
        files[name] = str(path)
    return files


@pytest.mark.parametrize("name", CHANGES)
def test_no_field_is_inert(tiny_protocol, weights: dict[str, str], name: str):
    value, context = CHANGES[name]

    def result(**fields) -> list[dict]:
        if "weights" in fields:
            fields["weights"] = weights[fields["weights"]]
        return science(list(train(config(**fields), protocol=tiny_protocol())))

    assert result(**{**BASELINE, **context, name: value}) != result(**{**BASELINE, **context})


@pytest.mark.parametrize("data", ["voc", "folder"])
def test_data_chooses_the_protocol(data: str, tmp_path: Path):
    with pytest.raises(UserError, match="VOC 2012" if data == "voc" else "dataset.toml"):
        next(train(config(data=data), machine=Machine(data_root=tmp_path)))


def test_augmenting_on_the_device_trains_as_well(tiny_protocol):
    settings = config(epochs=2)
    on_host = list(train(settings, protocol=tiny_protocol()))
    on_device = list(train(settings, protocol=tiny_protocol(), machine=Machine(device_cache=True)))
    for host, device in zip(on_host, on_device, strict=True):
        assert host.scores != device.scores, "the device cache was not used"
        assert device.value("semseg", "train", "loss") == pytest.approx(
            host.value("semseg", "train", "loss"), rel=0.05
        )
