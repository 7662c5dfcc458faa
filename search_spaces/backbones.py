"""How large is the gap between raw and pre-trained on three backbones?

Thesis: Table 1.1, FCN-32s on ResNet-18, VGG-16 and AlexNet, weight decay 5e-4. The thesis code trained VGG
and AlexNet with dropout 0.5 and ResNet without. Here all three train without dropout, so that only the
backbone differs (`dropout_wd` studies dropout). Each backbone is a context with its own gap. The study varies
no treatment, so it measures gaps but cannot close them.

Command: uv run python study/run.py --space backbones --seeds 0,1,2 --scheduler none
Trials: 6 per seed. Cost: D1 at the thesis's recipe, one H100: about 6 × 4 h (estimated from the step time).
"""

from ray import tune

QUESTION = "How large is the gap between raw and pre-trained on ResNet-18, VGG-16 and AlexNet?"

BASE = {"model": "fcn32s", "tasks": ("semseg",), "weight_decay": 5e-4}

# 80-pixel scenes need a finer map than stride 32.
ON = {"figures": {"model": "fcn8s"}}

SPACE = {
    "backbone": tune.grid_search(["resnet18", "vgg16", "alexnet"]),
    "pretrained": tune.grid_search([False, True]),
}
