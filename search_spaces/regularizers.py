"""Which regularizer helps raw most: augmentation, label smoothing, stochastic depth or a longer schedule?

Beyond the thesis: the regularizers that its reader would try next, on FCN-ResNet-18 with weight decay 5e-4.
Each has a weak and a strong level, and all combinations are trained, so that each effect is averaged over
the others. The pre-trained arm gets the same levels, including the three times longer schedule, so that best
is compared with best.

Command: uv run python study/run.py --space regularizers
Trials: 32 per seed. Cost: 32 × 2 minutes on one CPU core (figures) without early stopping.
"""

from ray import tune

QUESTION = "Do stronger augmentation, label smoothing, stochastic depth or a longer schedule close the gap?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",), "weight_decay": 5e-4}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "augmentation": tune.grid_search([0.5, 1.0]),
    "label_smoothing": tune.grid_search([0.0, 0.1]),
    "stochastic_depth": tune.grid_search([0.0, 0.2]),
    "epochs_factor": tune.grid_search([1, 3]),
}

ROLES = {"augmentation": "treatment", "epochs_factor": "treatment"}
