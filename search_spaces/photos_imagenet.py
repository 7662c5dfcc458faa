"""Does weight decay close the gap between raw and ImageNet in EfficientNet-Lite0 on small photographs?

The other `photos_*` spaces pre-train on small photographs themselves, or have published weights of a network
without batch norm, whose raw arm did not learn. This network has batch norm, and published weights of all of
ImageNet. It is timm's: `uv sync --extra timm`. Both arms see images with the mean and deviation of the
published weights (0.5), which are not torchvision's. Both train for 60 epochs at the full rate, so that
training scores say what pre-training does (H2). docs/findings.md says how its rates were chosen; add
`learning_rate` as an axis of role `tuned` to choose among others. For raw, the weight decays have the sums of
learning rate × weight decay of the thesis's best value, 5e-4, and of the 5e-3 that its text names: 0.2 and 2.
At ImageNet's rate, a thirtieth of raw's, sums are so small that only the stronger one is tried.

Command: uv run python study/run.py --space photos_imagenet --data folder --data-root DIR --weights FILE \
    --scheduler none --seeds 1,2,3,4
    (or --weights imagenet, through timm's hub)
Trials: 5 per seed. Cost: about 5 × 17 minutes on one CPU core, by a raw training of 120 epochs.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Does weight decay close the gap between raw and ImageNet in EfficientNet-Lite0 on photographs?"

BASE = {"model": "fcn8s", "backbone": "timm/tf_efficientnet_lite0", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 6e-4, 6e-3]),
}

CLAIMS = True


def keep(point: dict[str, Any]) -> bool:
    """The weaker decay in the raw arm alone."""
    return not point.get("pretrained") or point.get("weight_decay") != 6e-4


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Equally long training of both arms."""
    return recipes.imagenet(pretrained=pretrained)
