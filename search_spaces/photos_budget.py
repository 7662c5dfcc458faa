"""Does training raw for twice as long replace pre-training on small photographs?

He et al. 2019 (arXiv:1811.08883) found that training from scratch catches up if it is long enough. It also
says how far `photos_wd` is from the end of learning: the gain of raw from twice the epochs.

Command: uv run python study/run.py --space photos_budget --data folder --data-root DIR --pretrain-on IMAGES \
    --pretrain-epochs 24 --scheduler none --seeds 0
Trials: 4 per seed. Cost: 4 × 1½ minutes on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does training raw for twice as long replace pre-training on small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",), "weight_decay": 0.0}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "epochs_factor": tune.grid_search([1, 2]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Short training of a narrow network on small images."""
    return recipes.photographs(pretrained=pretrained)


ROLES = {"epochs_factor": "treatment"}
