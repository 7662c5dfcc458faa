"""Can self-supervision on one's own photographs stand in for ImageNet?

EfficientNet-Lite0 as in `photos_imagenet`, with a third arm, which learns to fill in masked patches of the
study's own training photographs, without their labels; `--pretrain-self DIR` adds others.

Command: uv run python study/run.py --space photos_self --data folder --data-root DIR --weights FILE
More photographs without labels: --pretrain-self DIR.
Trials: 6 per seed. Cost: about 6 × 15 minutes on one CPU core, and the self-supervision of each seed.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Can self-supervision on one's own photographs stand in for ImageNet?"

BASE = {"model": "fcn8s", "backbone": "timm/tf_efficientnet_lite0", "tasks": ("semseg",)}

SPACE = {
    "initialization": tune.grid_search(["raw", "self", "given"]),
    "weight_decay": tune.grid_search([0.0, 1e-3]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """That of `photos_imagenet`."""
    return recipes.imagenet(pretrained=pretrained)
