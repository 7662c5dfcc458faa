"""Can multi-task learning of semantic segmentation and human parts replace pre-training?

Thesis: experiments E3–E8 (Figures 6.2, 6.3): SUNet-64, each task alone and both together, raw and
pre-trained, weight decay 5e-4. Every image of D3 and of the embedded scenes is labelled for both tasks, so
the two losses are summed. On d1+d2 each image is labelled for one task, and each part of the model is updated
by its own image count.

The embedded scenes use FCN-8s on ResNet-18 instead, because SUNet-64's 112 layers learn almost nothing there:
ten epochs of pre-training ended at 26 % top-1 (ResNet-18: 91 %), and 20 epochs of training at a validation
mIoU of .08 to .10 in every arm.

Command: uv run python study/run.py --space multitask --seeds 0,1,2
Trials: 6 per seed. Cost: 6 × ½ minute on one CPU core (figures).
"""

from ray import tune

QUESTION = "Does multi-task training close the gap, and does pre-trained gain from it?"

BASE = {"model": "sunet64", "weight_decay": 5e-4}

ON = {"d1+d2": {"asynchronous": True}, "figures": {"model": "fcn8s"}}

SPACE = {
    "pretrained": tune.grid_search([False, True]),
    "tasks": tune.grid_search([("semseg",), ("parts",), ("semseg", "parts")]),
}
