"""Does dropout, alone or with weight decay, do what weight decay cannot, for one task and for two?

Thesis: future work, §7.2: dropout with weight decay. FCN-ResNet-18, single-task and multi-task, raw and
pre-trained. The dropout flag of the thesis code had no effect on this network; here dropout is applied before
the coarsest score layer.

Command: uv run python study/run.py --space dropout_wd
Trials: 36 per seed. Cost: 36 × ½ minute on one CPU core (figures) without early stopping.
"""

from ray import tune

QUESTION = "Do dropout, weight decay and multi-task training close the gap between raw and pre-trained?"

BASE = {"model": "fcn32s", "backbone": "resnet18"}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}, "d1+d2": {"asynchronous": True}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "tasks": tune.grid_search([("semseg",), ("semseg", "parts")]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
    "dropout": tune.grid_search([0.0, 0.2, 0.5]),
}
