"""Does weight decay replace pre-training in a network that overfits small photographs?

Thesis: experiments E1 and E2 (Table 1.2, Figure 6.1), whose raw network fits its training images better than
the pre-trained one. `photos_wd` trains too briefly for that. Here FCN-8s on ResNet-18, a quarter as wide, has
half of the thesis's 300 epochs and weak augmentation. Two of the weight decays have the sums of learning rate
× weight decay over all updates of the thesis's best value, 5e-4, and of the 5e-3 that its text names: 0.2 and
2.

Command: uv run python study/run.py --space photos_overfit --data folder --data-root DIR \
    --pretrain-on IMAGES --pretrain-epochs 24 --scheduler none --seeds 1,2,3,4
Trials: 6 per seed. Cost: 6 × 9 minutes on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does weight decay replace pre-training in a network that overfits small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 2.5e-4, 2.5e-3]),
}

CLAIMS = True


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Long training with weak augmentation, equally long in both arms."""
    return recipes.overfitting(pretrained=pretrained)
