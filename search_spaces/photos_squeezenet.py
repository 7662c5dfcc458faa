"""Does weight decay close the gap to ImageNet weights in SqueezeNet, each arm at its best learning rate?

`wd_squeezenet` found no raw network that learned, at rates from short probes. Here both arms try the same six
rates for each weight decay (role `tuned`), over two and a half orders of magnitude, because the published
weights have no batch norm and large features. All training images, ten epochs.

Command: uv run python study/run.py --space photos_squeezenet --data folder --data-root DIR --weights FILE
Trials: 24 per seed. Cost: 24 × 1¼ minutes on one CPU core.
"""

from typing import Any

from ray import tune

QUESTION = "Does weight decay close the gap to ImageNet weights in SqueezeNet at tuned learning rates?"

BASE = {"model": "fcn16s", "backbone": "squeezenet1_1", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4]),
    "learning_rate": tune.grid_search([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """The same short budget for both arms."""
    return {
        "crop_size": 96,
        "batch_size": 8,
        "epochs": 10,
        "pretrained_lr_factor": 1.0,
        "validate_every": 10,
    }


ROLES = {"learning_rate": "tuned"}
