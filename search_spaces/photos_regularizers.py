"""Which regularizer replaces ImageNet on small photographs: one of them, or all together?

Raw EfficientNet-Lite0 with weight decay, dropout, label smoothing, the thesis's augmentation instead of a
quarter of it, or a second task (boundaries, in the place of the human parts of E7 and E8), one at a time and
all together, against ImageNet weights without any and with all of them. It is timm's network:
`uv sync --extra timm`.

Command: uv run python study/run.py --space photos_regularizers --data folder --data-root DIR --weights FILE
    (or --weights imagenet, through timm's hub)
Trials: 9 per seed. Cost: 9 × 15 minutes on one CPU core, by the time of a step.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Which regularizer replaces ImageNet on small photographs: one of them, or all together?"

BASE = {"model": "fcn8s", "backbone": "timm/tf_efficientnet_lite0"}

SPACE: dict[str, Any] = {
    "pretrained": tune.grid_search([False, True]),
    "tasks": tune.grid_search([("semseg",), ("semseg", "boundaries")]),
    "weight_decay": tune.grid_search([0.0, 2e-3]),
    "dropout": tune.grid_search([0.0, 0.3]),
    "label_smoothing": tune.grid_search([0.0, 0.1]),
    "augmentation": tune.grid_search([0.25, 1.0]),
}

ROLES = {"augmentation": "treatment"}


def keep(point: dict[str, Any]) -> bool:
    """One at a time and all together in the raw arm; none and all in the pre-trained arm."""
    weakest = {axis: domain["grid_search"][0] for axis, domain in SPACE.items() if axis != "pretrained"}
    # `--set` may take an axis away.
    strong = sum(point.get(axis, weak) != weak for axis, weak in weakest.items())
    everything = len(weakest.keys() & point.keys())
    return strong in ((0, everything) if point.get("pretrained") else (0, 1, everything))


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """Equally long training of both arms."""
    return recipes.imagenet(pretrained=pretrained)
