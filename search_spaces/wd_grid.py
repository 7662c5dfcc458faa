"""Does weight decay close the gap between a raw and a pre-trained FCN-ResNet-18?

Thesis: experiments E1 and E2 (Table 1.2, Figure 6.1): weight decay {0, 1e-4, 5e-4, 1e-3} × {raw,
pre-trained}. Added: 5e-3, the value that §1.4 names, and 2e-2, because shrinkage is governed by the sum of
learning rate × weight decay over all steps, and a short recipe needs a larger decay for the same sum.

Command: uv run python study/run.py --space wd_grid
The thesis's own data: --data d1-half --data-root DIR --weights imagenet (half of D1).
Trials: 12 per seed. Cost: 12 × ½ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "Does weight decay close the gap between a raw and a pre-trained FCN-ResNet-18?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

ON = {
    # 80-pixel scenes need the finer map: at stride 32 the score map would be 3 × 3.
    "figures": {"model": "fcn8s"},
}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 1e-4, 5e-4, 1e-3, 5e-3, 2e-2]),
}
