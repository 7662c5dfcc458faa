"""Does weight decay close the gap between raw and pre-trained on small photographs?

Thesis: experiments E1 and E2 (Table 1.2, Figure 6.1), at a size that a CPU can train: FCN-8s on ResNet-18 at
a quarter of its width, images with a short side of 128 pixels, pre-training on 15,000 photographs of 64
pixels. It is not the thesis's recipe; docs/findings.md says what the answer covers. Each arm has the learning
rate that `photos_rates` found best for it. On a faster machine, add `learning_rate` as an axis of role
`tuned` to choose it for each weight decay.

Command: uv run python study/run.py --space photos_wd --data folder --data-root DIR --pretrain-on IMAGES \
    --pretrain-epochs 24
Trials: 12 per seed. Cost: 12 × 1 minute on one CPU core, and 4 core-minutes for each pre-training.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does weight decay close the gap between raw and pre-trained on small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 1e-4, 5e-4, 1e-3, 5e-3, 2e-2]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Short training of a narrow network on small images."""
    return recipes.photographs(pretrained=pretrained)
