"""All trials of a study compute in one precision."""

import pytest

from segstrat.errors import UserError
from segstrat.machine import fastest_precision
from study.driver.placement import asked_precision, common_precision, study_precision
from study.planning.resources import Node


def test_auto_is_resolved_and_a_given_precision_stands():
    import torch

    node = Node(address="here", cpus=2, gpus=0)
    assert study_precision("auto", [node], gpus=0) == fastest_precision(torch.device("cpu"))
    assert study_precision("bfloat16", [node, node], gpus=0) == "bfloat16"


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
