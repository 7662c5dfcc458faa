"""How does the gap between raw and pre-trained change with the number of labelled images?

Beyond the thesis, which trained on one half of D1: FCN-ResNet-18 on nested subsets of the training images,
with and without weight decay. He et al. 2019 (arXiv:1811.08883) found that training from scratch falls behind
on small data sets. Each fraction is a context with its own gap. The number of epochs is the same for all, so
training on a smaller subset takes fewer steps.

Command: uv run python study/run.py --space label_fraction
Trials: 24 per seed. Cost: 24 × ½ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "How does the gap between raw and pre-trained change with the number of labelled images?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "label_fraction": tune.grid_search([0.125, 0.25, 0.5, 1.0]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
}

ROLES = {"label_fraction": "nuisance"}
