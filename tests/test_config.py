import dataclasses
import json

import pytest

from segstrat.config import TrialConfig
from segstrat.errors import UserError


def test_it_survives_json():
    config = TrialConfig(tasks=("semseg", "parts"), weight_decay=0.0, pretrained=True, weights="imagenet")
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_it_is_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrialConfig().seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrialConfig("figures")  # type: ignore[misc]


def test_an_unknown_field_answers_with_the_nearest_name():
    with pytest.raises(
        UserError, match="unknown TrialConfig field 'wieght_decay': did you mean 'weight_decay'"
    ):
        TrialConfig.from_dict({"wieght_decay": 0.1})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 1.0}, r"epochs must be int, not float 1\.0"),
        ({"seed": True}, "seed must be int, not bool True"),
        ({"pretrained": 1}, "pretrained must be bool, not int 1"),
        ({"weight_decay": "1e-4"}, "weight_decay must be float, not str '1e-4'"),
        ({"weight_decay": -1.0}, r"weight_decay=-1\.0: expected a number ≥ 0"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"weight_decay": float("inf")}, "weight_decay=inf"),
        ({"dropout": 1.0}, r"dropout=1\.0: expected a number in \[0, 1\)"),
        ({"label_fraction": 0.0}, r"label_fraction=0\.0: expected a number in \(0, 1\]"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: expected a number > 0"),
        ({"epochs": 0}, "epochs=0: expected a whole number ≥ 1"),
        ({"crop_size": 16}, "crop_size=16: expected 32 to 8192 pixels"),
        ({"model": "fcn8"}, "unknown model 'fcn8': did you mean 'fcn8s'"),
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19': did you mean 'resnet18'"),
        ({"model": "sunet64", "backbone": "resnet18"}, "sunet64 is its own backbone"),
        ({"output_stride": 16}, "output_stride=16: fcn32s has a fixed one"),
        ({"model": "sunet64", "output_stride": 12}, "output_stride=12: expected 8, 16 or 32"),
        ({"pretrained": True}, "pretrained=True: expected `weights` as well"),
        ({"initialization": "own"}, "unknown initialization 'own'"),
        ({"initialization": "self"}, "initialization='self': expected pretrained=True, not False"),
        (
            {"initialization": "raw", "pretrained": True, "weights": "w"},
            "initialization='raw': expected pretrained=False, not True",
        ),
        ({"tasks": ("semsegg",)}, "unknown task 'semsegg': did you mean 'semseg'"),
        ({"tasks": ("parts", "parts")}, "expected each task once"),
        ({"tasks": ["semseg"]}, r"tasks must be tuple, not list"),
        ({"backbone": 18}, "backbone must be str or None, not int 18"),
        ({"output_stride": 8.0}, r"output_stride must be int or None, not float 8\.0"),
        ({"tasks": ()}, r"tasks=\(\): expected at least one task"),
        ({"asynchronous": True, "accumulation_steps": 2}, "accumulation_steps=2: expected 1"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam': did you mean 'adamw'"),
        ({"loss": "cross_entropie"}, "unknown loss 'cross_entropie': did you mean 'cross_entropy'"),
        ({"loss": "dice+dice"}, r"loss='dice\+dice': expected one loss, or a sum of two different ones"),
        ({"loss": "dice+focal+ohem"}, "expected one loss, or a sum of two"),
        ({"loss": "dice", "accumulation_steps": 2}, "accumulation_steps=2: expected 1 with loss 'dice'"),
        ({"loss": "focal", "label_smoothing": 0.1}, r"label_smoothing=0\.1: expected 0 with loss 'focal'"),
        ({"class_weights": "inverse"}, "unknown class_weights 'inverse'"),
        (
            {"class_weights": (1.0, -1.0)},
            r"class_weights=\[1\.0, -1\.0\]: expected a number ≥ 0 for each class",
        ),
        ({"class_weights": (0, 0)}, "not all 0"),
        ({"class_weights": ("1", 2.0)}, "expected a number ≥ 0 for each class"),
        ({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs=3: expected less than 3 epochs"),
        ({"warmup_epochs": -1.0}, r"warmup_epochs=-1\.0: expected a number ≥ 0"),
        ({"clip_gradient": -1.0}, r"clip_gradient=-1\.0: expected a number ≥ 0"),
    ],
)
def test_a_bad_value_is_named_with_what_was_expected(fields: dict, message: str):
    with pytest.raises(UserError, match=message):
        TrialConfig(**fields)


def test_an_int_is_a_valid_float():
    assert TrialConfig(weight_decay=0).to_dict()["weight_decay"] == 0.0
    assert TrialConfig(weight_decay=0).digest() == TrialConfig(weight_decay=0.0).digest()


def test_the_digest_depends_on_the_science_and_not_on_the_path_of_the_weights():
    here = TrialConfig(pretrained=True, weights="/here/w.pth")
    assert here.digest() == TrialConfig(pretrained=True, weights="/there/w.pth").digest()
    assert len({TrialConfig().digest(), TrialConfig(seed=1).digest(), here.digest()}) == 3


def test_trials_from_before_a_field_keep_their_ids():
    # Ids of configs before there were other losses, class weights, AdamW, warm-up and clipping.
    assert TrialConfig().digest() == "e080d601d7"
    multi = TrialConfig(data="voc", model="sunet64", tasks=("semseg", "parts"), weight_decay=0.0, seed=3)
    assert multi.digest() == "2d25a02044"
    for change in (
        {"loss": "dice"},
        {"class_weights": (1.0, 2.0)},
        {"optimizer": "adamw"},
        {"warmup_epochs": 1.0},
        {"clip_gradient": 1.0},
        {"boundary_tolerance": 0.01},
        {"initialization": "raw"},
    ):
        assert TrialConfig(**change).digest() != TrialConfig().digest()


def test_initialization_decides_what_a_trial_starts_from():
    assert TrialConfig().start == "raw"
    assert TrialConfig(pretrained=True, weights="w").start == "given"
    for start in ("raw", "self", "given"):
        weights = None if start == "raw" else "w.pth"
        config = TrialConfig.from_dict({"initialization": start, "weights": weights})
        assert (config.start, config.pretrained) == (start, start != "raw")
        assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    arms = [TrialConfig.from_dict({"initialization": start, "weights": "w"}) for start in ("self", "given")]
    assert arms[0].digest() != arms[1].digest()


def test_a_list_of_class_weights_survives_json():
    config = TrialConfig(class_weights=(1, 2.5), loss="dice+cross_entropy")
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.class_weights == (1.0, 2.5)
    assert config.loss == "cross_entropy+dice", "a sum is written in one order"


def test_backbones_are_resolved():
    assert TrialConfig().backbone == "resnet18"
    assert TrialConfig(model="sunet64").backbone == "sunet64"
