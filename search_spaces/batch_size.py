"""Does the answer depend on the batch size?

Thesis: future work, §7.2: larger batches. FCN-ResNet-18 with and without weight decay. The learning rate is
that of the recipe for every batch size, so a larger batch takes fewer steps at the same rate. Each batch size
is a context with its own gap.

Command: uv run python study/run.py --space batch_size
Trials: 24 per seed. Cost: 24 × ½ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "Does the gap between raw and pre-trained depend on the batch size?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "batch_size": tune.grid_search([5, 10, 20, 40]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
}

ROLES = {"batch_size": "nuisance"}
