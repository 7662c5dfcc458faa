"""All trials of a study compute in one precision."""

import pytest

from segstrat.errors import UserError
from segstrat.machine import fastest_precision
from study.driver.precision import common_precision, study_precision
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
