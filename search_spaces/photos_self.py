"""Can self-supervision on one's own photographs stand in for ImageNet?

EfficientNet-Lite0 as in `photos_imagenet`, with a third arm, which learns to fill in masked patches of the
study's own training photographs, without their labels; `--pretrain-self DIR` adds others. docs/findings.md
says how the rate of that arm was chosen.

Command: uv run python study/run.py --space photos_self --data folder --data-root DIR --weights FILE \
    --scheduler none --seeds 1,2,3,4 --budget 0.34
More photographs without labels: --pretrain-self DIR.
Trials: 5 per seed. Cost: about 5 × 6 minutes on one CPU core, and 16 for the self-supervision of each seed.
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


def keep(point: dict[str, Any]) -> bool:
    """Given weights without weight decay: at their rate, a thirtieth of raw's, it would hardly act."""
    return point.get("initialization") != "given" or not point.get("weight_decay")


def recipe(data: str, model: str, *, pretrained: bool, initialization: str) -> dict[str, Any]:  # noqa: ARG001
    """That of `photos_imagenet`; self-supervised networks need the rate of raw ones."""
    return recipes.imagenet(pretrained=initialization == "given")
