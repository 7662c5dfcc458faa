"""Geometry and shapes of the FCN heads."""

import pytest
import torch

from segstrat.config import TrialConfig
from segstrat.models import build_model
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 5), "parts": Task("parts", 3)}


@pytest.mark.parametrize("model", ["fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (97, 133)])
def test_logits_have_the_size_of_the_images(model: str, size: tuple[int, int]) -> None:
    net = build_model(TrialConfig(model=model, width=0.125), TASKS)
    logits = net(torch.randn(2, 3, *size))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "semseg": (2, 5, *size),
        "parts": (2, 3, *size),
    }
