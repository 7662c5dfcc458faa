"""How does mIoU depend on weight decay and dropout in each arm?

The quasi-random counterpart of `optuna_wd_dropout`: scrambled Sobol points in the same ranges, the same
points in both arms and for every seed, so that arms stay paired and the map is unbiased.

Command: uv run python study/run.py --space sobol_wd_dropout
Trials: 2 arms × 16. Cost: 32 × ½ minute on one CPU core (figures) without early stopping.
"""

from ray import tune

QUESTION = "How do weight decay and dropout map to mIoU in each arm?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.loguniform(1e-5, 5e-2),
    "dropout": tune.uniform(0.0, 0.6),
}

SAMPLES = 16
