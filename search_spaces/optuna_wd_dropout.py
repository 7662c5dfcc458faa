"""Which weight decay and dropout does a search find best for each arm?

Optuna's TPE over log-uniform weight decay and uniform dropout, with one sampler per arm: a shared sampler
would spend the budget on the arm that starts better. The trials are stored in optuna.db in the study's folder
(`optuna-dashboard` opens it), stopped ones as pruned. A search trains one seed per point and selects what
looks best, so its best values are optimistically biased: the answering stage trains the best cells again.
`sobol_wd_dropout` draws the same points in both arms and gives an unbiased map.

Command: uv run python study/run.py --space optuna_wd_dropout
Trials: 2 arms × 24. Cost: 48 × ½ minute on one CPU core (figures) without early stopping.
"""

from ray import tune

QUESTION = "Which weight decay and dropout serve each arm best, and do they close the gap?"

BASE = {"model": "fcn32s", "backbone": "resnet18", "tasks": ("semseg",)}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.loguniform(1e-5, 5e-2),
    "dropout": tune.uniform(0.0, 0.6),
}

SEARCH = "tpe"
SAMPLES = 24
