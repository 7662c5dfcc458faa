"""Up to how many labelled photographs does pre-training pay?

Beyond the thesis: He et al. 2019 (arXiv:1811.08883) found that training from scratch falls behind on small
data sets. Each fraction of the training images is a context with its own answer, and the report says for all
of them together, with one error of 5 %, where pre-training is worth more than the margin. Every fraction gets
as many updates as the others, and each seed draws its own images.

Command: uv run python study/run.py --space photos_labels --data folder --data-root DIR \
    --pretrain-on IMAGES --pretrain-epochs 24 --budget 0.34
Trials: 16 per seed. Cost: 16 × 3 minutes on one CPU core, and 4 core-minutes for each pre-training; three
    times as much without --budget.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Up to how many labelled photographs does pre-training pay?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "label_fraction": tune.grid_search([0.1, 0.2, 0.4, 0.8]),
    "weight_decay": tune.grid_search([0.0, 2e-3]),
}


def recipe(data: str, model: str, *, pretrained: bool, label_fraction: float) -> dict[str, Any]:  # noqa: ARG001
    """Long training with weak augmentation, the same number of updates for every fraction."""
    return recipes.overfitting(pretrained=pretrained, label_fraction=label_fraction)


ROLES = {"label_fraction": "nuisance"}
