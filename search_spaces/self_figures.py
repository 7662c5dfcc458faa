"""Can pre-training on one's own images, without labels, stand in for weights that are given?

Added: self-supervision, which the thesis names as a regularizer in chapter 2 (Erhan et al. 2010), as a third
arm beside raw and pre-trained, and weight decay in each. `self` learns to fill in masked patches of the
study's own training images; docs/models.md describes it. `given` are the weights of --weights, --pretrain-on
or, here, of a classifier of drawn objects.

Command: uv run python study/run.py --space self_figures
More images without labels: --pretrain-self DIR.
Trials: 9 per seed. Cost: 9 × ½ minute on one CPU core, two pre-trainings of 4 minutes per seed (figures).
"""

from ray import tune

QUESTION = "Can self-supervision on one's own images stand in for pre-trained weights?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

ON = {
    # 80-pixel scenes need the finer map: at stride 32 the score map would be 3 × 3. Self-supervised features
    # have farther to go than given ones: at the recipe's 0.3 of the rate they gain nothing on raw, and given
    # weights lose nothing at the full rate (docs/findings.md).
    "figures": {"model": "fcn8s", "pretrained_lr_factor": 1.0},
}

SPACE = {
    "initialization": tune.grid_search(["raw", "self", "given"]),
    "weight_decay": tune.grid_search([0.0, 1e-3, 5e-3]),
}
