"""Does weight decay close the gap to pre-training where each setting has its own learning rate?

Thesis: experiments E1 and E2 (Table 1.2), where one learning rate serves all cells. A rate that suits the
pre-trained arm, or no weight decay, better than the other cells would decide the answer. Here the rate is
`tuned`: every cell is compared at its best rate, by the same rule in both arms, and so is the reference. The
sensitivity analysis shows the contrasts with each single rate in both arms. The rates are the recipe's on
`figures` and four times less and more; for the thesis's recipe (5e-3) copy this file and change them.

Command: uv run python study/run.py --space wd_lr_grid
Trials: 18 per seed. Cost: 18 × ½ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "Does weight decay close the gap to pre-training where each setting has its own learning rate?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
    "learning_rate": tune.grid_search([0.0125, 0.05, 0.2]),
}

ROLES = {"learning_rate": "tuned"}
