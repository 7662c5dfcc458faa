"""Does regularization replace pre-training better when more photographs are labelled?

Beyond the thesis: `photos_wd` on nested subsets of the training images. He et al. 2019 (arXiv:1811.08883)
found that training from scratch falls behind on small data sets. Each fraction is a context with its own
answer. The number of epochs is the same for all, so training on a smaller subset takes fewer updates.

Command: uv run python study/run.py --space photos_labels --data folder --data-root DIR \
    --pretrain-on IMAGES --pretrain-epochs 24
Trials: 24 per seed. Cost: 24 × ½ minute on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does regularization replace pre-training better when more photographs are labelled?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "label_fraction": tune.grid_search([0.125, 0.25, 0.5, 1.0]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Short training of a narrow network on small images."""
    return recipes.photographs(pretrained=pretrained)


ROLES = {"label_fraction": "nuisance"}
