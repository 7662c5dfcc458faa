"""Does the machinery run? Six trials of a few seconds on a handful of images.

Command: none; a space of the tests.
"""

from ray import tune

QUESTION = "Does the machinery run?"

BASE = {
    "model": "fcn32s",
    "width": 0.25,
    "tasks": ("semseg",),
    "crop_size": 32,
    "batch_size": 4,
    "epochs": 8,
    "validate_every": 1,
    "learning_rate": 0.02,
}

HOPELESS = 60.0

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    # A decay of 60 turns the weights around: such a model predicts one wrong class, on any processor.
    # In the study's order it comes last in each arm, where it has enough competitors to be stopped.
    "weight_decay": tune.grid_search([HOPELESS, 0.0, 1e-3]),
}

ROLES = {"pretrained": "arm", "weight_decay": "treatment"}

METRIC = "semseg_val_miou"
