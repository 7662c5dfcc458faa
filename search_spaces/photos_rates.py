"""Which learning rate serves raw and pre-trained best on small photographs?

The exploratory study of the other `photos_*` spaces: both arms try the same rates without weight decay, and
each chooses its own (role `tuned`). The rates that win are in `search_spaces/recipes.py`, so that the studies
of weight decay, labels and tasks need not tune again. One seed and a third of the epochs were affordable;
nothing is reported on the trials that choose.

Command: uv run python study/run.py --space photos_rates --data folder --data-root DIR --pretrain-on IMAGES \
    --pretrain-epochs 24 --scheduler none --seeds 0 --budget 0.34
Trials: 10 per seed. Cost: 10 × 3 minutes on one CPU core.
"""

from typing import Any

from ray import tune

from search_spaces import recipes

QUESTION = "Which learning rate serves raw and pre-trained best on small photographs?"

BASE = {"model": "fcn8s", "backbone": "resnet18", "tasks": ("semseg",)}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "learning_rate": tune.grid_search([0.003, 0.01, 0.03, 0.1, 0.3]),
}


def recipe(data: str, model: str, *, pretrained: bool) -> dict[str, Any]:  # noqa: ARG001
    """That of `photos_overfit`."""
    return recipes.overfitting(pretrained=pretrained) | {"validate_every": 5}


ROLES = {"learning_rate": "tuned"}

SEEDS = (0,)
