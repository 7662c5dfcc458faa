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
        ({"crop_size": 16}, "crop_size=16: expected at least 32 pixels"),
        ({"model": "fcn8"}, "unknown model 'fcn8': did you mean 'fcn8s'"),
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19': did you mean 'resnet18'"),
        ({"model": "sunet64", "backbone": "resnet18"}, "sunet64 is its own backbone"),
        ({"output_stride": 16}, "output_stride=16: fcn32s has a fixed one"),
        ({"model": "sunet64", "output_stride": 12}, "output_stride=12: expected 8, 16 or 32"),
        ({"pretrained": True}, "pretrained=True: expected `weights` as well"),
        ({"tasks": ("semsegg",)}, "unknown task 'semsegg': did you mean 'semseg'"),
        ({"tasks": ("parts", "parts")}, "expected each task once"),
        ({"tasks": ["semseg"]}, r"tasks must be tuple, not list"),
        ({"backbone": 18}, "backbone must be str or None, not int 18"),
        ({"output_stride": 8.0}, r"output_stride must be int or None, not float 8\.0"),
        ({"tasks": ()}, r"tasks=\(\): expected at least one task"),
        ({"asynchronous": True, "accumulation_steps": 2}, "accumulation_steps=2: expected 1"),
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


def test_backbones_are_resolved():
    assert TrialConfig().backbone == "resnet18"
    assert TrialConfig(model="sunet64").backbone == "sunet64"
