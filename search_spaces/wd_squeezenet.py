"""Does weight decay close the gap on real photographs, at a size that a CPU can train?

The thesis's question (E1, E2) on SqueezeNet 1.1, the smallest backbone with public ImageNet weights, for
machines without a GPU: crops of 96 pixels, a quarter of the training images, twenty epochs at batch 5 for
either arm, the thesis's learning rate. It is not the thesis's recipe: short training favours pre-
training, and few steps need more decay for the same shrinkage. Only the last epoch is validated, because
validation on whole images costs as much as ten epochs.

Command: python study/run.py --space wd_squeezenet --data voc --weights FILE --scheduler none
Trials: 6 a seed, three seeds. Cost: 18 × 4 minutes on one CPU core.
"""

from ray import tune

QUESTION = "Does weight decay close the gap between a raw and a pre-trained SqueezeNet on real photographs?"

BASE = {
    "model": "fcn16s",
    "backbone": "squeezenet1_1",
    "tasks": ("semseg",),
    "label_fraction": 0.25,
    "crop_size": 96,
    "epochs": 20,
    "batch_size": 5,
    "learning_rate": 5e-3,
    "validate_every": 20,
}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
}

ROLES = {"pretrained": "arm", "weight_decay": "treatment"}

METRIC = "semseg_val_miou"

SEEDS = (0, 1, 2)
