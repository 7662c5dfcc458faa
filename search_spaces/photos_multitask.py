"""Can a second task, semantic boundaries, replace pre-training on small photographs?

Thesis: experiments E3–E8 (Figures 6.2, 6.3), with boundaries in the place of human parts: they are derived
from the labels of `semseg`, so every image has both, and the two losses are summed. Boundaries need no new
annotation, so a gain would be free.

Command: uv run python study/run.py --space photos_multitask --data folder --data-root DIR \
    --pretrain-on IMAGES --pretrain-epochs 24
Trials: 4 per seed. Cost: 4 × 1½ minutes on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Can a second task, semantic boundaries, replace pre-training on small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "weight_decay": 5e-4}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "tasks": tune.grid_search([("semseg",), ("semseg", "boundaries")]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Short training of a narrow network on small images."""
    return recipes.photographs(pretrained=pretrained)
