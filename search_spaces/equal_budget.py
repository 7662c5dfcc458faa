"""Is pre-training initialization or regularization, when both arms train equally long at one rate?

Hypothesis H2 of the thesis (§5.2) reads the answer off training scores: ahead on validation but behind in
training means regularization. The thesis's own recipe cannot decide it: raw trained for 300 epochs and
pre-trained for 100, with its pre-trained part at a tenth of the rate, and both lower its training score. Here
both arms have 300 epochs and the full rate.

Command: uv run python study/run.py --space equal_budget --data d1-half --data-root DIR --weights imagenet
Trials: 6 per seed. Cost: 6 × ¼ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "Is pre-training initialization or regularization, at equal epochs and one learning rate?"

BASE = {
    "model": "fcn32s",
    "backbone": "resnet18",
    "tasks": ("semseg",),
    "pretrained_lr_factor": 1.0,
    "epochs": 300,
}

# 80-pixel scenes need a finer map than stride 32, and 24 epochs suffice.
ON = {"figures": {"model": "fcn8s", "epochs": 24}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
}

CLAIMS = True
