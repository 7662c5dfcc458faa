"""All trials of a study compute in one precision."""

import pytest

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from study.driver.placement import asked_precision, common_precision, faster_precision, study_precision
from study.on_ray import probes
from study.planning.resources import Node, Share
from study.planning.trials import PlannedTrial

NODE = Node(address="here", cpus=2, gpus=0)
SHARE = Share(cpus=2, gpus=0, concurrent=1)
CLASSES = {"semseg": ["background", "cat", "cow"]}


def trial(**fields) -> PlannedTrial:
    config = TrialConfig(width=0.25, crop_size=32, batch_size=2, **fields)
    return PlannedTrial(trial_id=config.digest(), order=0, arm="raw", axes={}, config=config)


def test_a_given_precision_stands():
    assert study_precision("bfloat16", [NODE, NODE], [trial()], CLASSES, SHARE) == ("bfloat16", [])


def test_without_units_for_bfloat16_auto_is_float32_and_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(probes, "precision_here", lambda _: "float32")
    monkeypatch.setattr(probes, "precision_seconds", None)
    assert study_precision("auto", [NODE], [trial()], CLASSES, SHARE) == ("float32", [])


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.05, "bfloat16"), (0.2, "float32")])
def test_with_units_the_networks_of_the_study_decide(monkeypatch, bfloat16, expected):
    asked = []

    def measured(nodes, question, config, tasks, device, threads, *, gpu):
        asked.append((config.model, tasks["semseg"].num_classes, device, threads, gpu))
        return [(nodes[0], {"float32": 0.1, "bfloat16": bfloat16 if config.model == "fcn8s" else 0.09})]

    monkeypatch.setattr(probes, "precision_here", lambda _: "bfloat16")
    monkeypatch.setattr(probes, "ask", measured)
    trials = [trial(model="fcn8s"), trial(model="fcn8s", seed=1), trial(model="fcn16s")]
    precision, seconds = study_precision("auto", [NODE], trials, CLASSES, SHARE)
    assert precision == expected
    assert asked == [("fcn8s", 3, "cpu", 2, False), ("fcn16s", 3, "cpu", 2, False)]
    assert [each["network"] for each in seconds] == [
        "fcn8s resnet18, batch 2 at 32 px",
        "fcn16s resnet18, batch 2 at 32 px",
    ]


def test_the_choice_weighs_networks_by_their_relative_times():
    slow, quick = {"float32": 10.0, "bfloat16": 9.0}, {"float32": 0.1, "bfloat16": 0.2}
    assert faster_precision([slow]) == "bfloat16"
    assert faster_precision([slow, quick]) == "float32"
    assert faster_precision([{"float32": 1.0, "bfloat16": 1.0}]) == "float32"
    # As measured on a processor with such units: noise for images of 32 pixels, a gain for those of 80.
    assert faster_precision([{"float32": 0.0129, "bfloat16": 0.0124}]) == "float32"
    assert faster_precision([{"float32": 0.0262, "bfloat16": 0.0236}]) == "bfloat16"


def test_nodes_that_would_mix_precisions_are_refused():
    assert common_precision({"a": "bfloat16", "b": "bfloat16"}) == "bfloat16"
    with pytest.raises(UserError, match=r"bfloat16 on node b and float32 on node a.*float32"):
        common_precision({"a": "float32", "b": "bfloat16"})


@pytest.mark.parametrize(
    ("flag", "recorded", "precision"),
    [
        ("auto", {}, "auto"),
        ("auto", {"precision": "bfloat16"}, "bfloat16"),
        ("auto", {"precision": None}, "auto"),
        ("float32", {"precision": "bfloat16"}, "float32"),
        ("bfloat16", {}, "bfloat16"),
    ],
)
def test_a_resumed_study_keeps_what_auto_meant_when_it_started(flag, recorded, precision):
    assert asked_precision(flag, recorded) == precision
