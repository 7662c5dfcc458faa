"""Can a loss for rare classes replace pre-training where 99 % of the pixels are background?

Losses that weigh rare classes up (dice, focal, online hard examples, weights by inverse frequency) may do
what pre-training does for them. Both arms try each loss, with equal and with weighted classes; the reference
is raw with plain cross-entropy, and trials are judged by the IoU of the rare class alone, because mIoU is 0.5
for a network that never predicts it. Data: the drawn scenes, in which nothing but heads is labeled.

Command: uv run python -m segstrat.data.figures.rare heads
    uv run python study/run.py --space loss_imbalance --data folder --data-root heads \
    --pretrain-on …/Classification --pretrain-epochs 4    (the first command prints the folder)
Trials: 16 per seed. Cost: 16 × ¼ minute on one CPU core.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Can a loss for rare classes replace pre-training where 99 % of the pixels are background?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "loss": tune.grid_search(["cross_entropy", "cross_entropy+dice", "focal", "ohem"]),
    "class_weights": tune.grid_search(["none", "inverse_frequency"]),
}

ROLES = {"pretrained": "arm", "loss": "treatment", "class_weights": "treatment"}

METRIC = "semseg_val_iou_head"


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """That of the drawn scenes: the images are theirs."""
    return recipes.figures(model, pretrained=pretrained)
