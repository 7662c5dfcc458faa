"""Does the answer depend on the batch size?

Thesis: future work, §7.2: larger batches. FCN-ResNet-18 without and with weight decay. The learning rate
stays that of the recipe, so a larger batch takes fewer steps of the same size; each batch size is a context
with a gap of its own.

Command: python study/run.py --space batch_size
Trials: 24 a seed. Cost: 24 × 1 minute on one CPU core (figures).
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

ROLES = {"pretrained": "arm", "batch_size": "nuisance", "weight_decay": "treatment"}

METRIC = "semseg_val_miou"
