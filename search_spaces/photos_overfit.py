"""Does weight decay replace pre-training in a network that overfits small photographs?

Thesis: experiments E1 and E2 (Table 1.2, Figure 6.1), whose raw network fits its training images better than
the pre-trained one. `photos_wd` trains too briefly for that. Here FCN-8s on ResNet-18, a quarter as wide, has
half of the thesis's epochs (150 raw, 50 pre-trained) and weak augmentation.

Command: uv run python study/run.py --space photos_overfit --data folder --data-root DIR \
    --pretrain-on IMAGES --pretrain-epochs 24
Trials: 8 per seed. Cost: 8 × 6 minutes on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does weight decay replace pre-training in a network that overfits small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 2e-3, 5e-3]),
}

CLAIMS = True


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Long training with weak augmentation."""
    return recipes.overfitting(pretrained=pretrained)
