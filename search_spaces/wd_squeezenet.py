"""Does weight decay close the gap on real photographs, at a size that a CPU can train?

The thesis's question (E1, E2) on SqueezeNet 1.1, the smallest backbone with public ImageNet weights, for
machines without a GPU: crops of 96 pixels, half of the training images, twelve epochs at batch size 5 for
both arms. It is not the thesis's recipe. Short training favors pre-training, and a thousand steps need a
larger decay for the same shrinkage. The learning rates differ: the published weights have no batch norm and
large features, and do not train at the rate of the raw arm (docs/models.md). Only the last epoch is
validated, because validation on whole images costs as much as several epochs.

Command: uv run python study/run.py --space wd_squeezenet --data voc --weights FILE --scheduler none
Trials: 6 per seed, three seeds. Cost: 18 × 4 minutes on one busy CPU core.
"""

from typing import Any

from ray import tune

QUESTION = "Does weight decay close the gap between a raw and a pre-trained SqueezeNet on real photographs?"

BASE = {"model": "fcn16s", "backbone": "squeezenet1_1", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 2e-2]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """The same budget for both arms, each at a learning rate that it trains with."""
    return {
        "label_fraction": 0.5,
        "crop_size": 96,
        "epochs": 12,
        "batch_size": 5,
        "learning_rate": 3e-4 if pretrained else 1e-2,
        "pretrained_lr_factor": 1.0,
        "validate_every": 12,
    }


SEEDS = (0, 1, 2)
