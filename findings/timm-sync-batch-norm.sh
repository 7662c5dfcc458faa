#!/usr/bin/env bash
# timm 1.0.31, torch 2.15.0: torch's conversion to SyncBatchNorm drops the activations of timm's fused layers.
#
# regnetx_002, as `timm.create_model` builds it, before and after `nn.SyncBatchNorm.convert_sync_batchnorm`, in evaluation
# mode, where both should compute the same.
# Expected: equal outputs, or an error: `BatchNormAct2d` is a subclass of `BatchNorm2d` with a `forward` of its own.
# Seen:     no error and no warning; the ReLU stays among the modules but nothing calls it any more, and the outputs differ.
#           timm.layers.convert_sync_batchnorm keeps it. The same holds for EfficientNet-Lite, MobileNetV4 and ResNetV2.
# Here:     segstrat/distributed.py uses timm's conversion for such layers, and refuses others that compute more.
#
# Installs the pinned packages into a temporary folder (about 3 GB with torch), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" timm==1.0.31 torch==2.15.0 torchvision==0.29.2
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import copy
import sys

import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

torch.manual_seed(0)
network = timm.create_model("regnetx_002").eval()
image = torch.randn(1, 3, 64, 64)
kept = {}
with torch.no_grad():
    before = network(image)
    conversions = {"torch": nn.SyncBatchNorm.convert_sync_batchnorm, "timm": convert_sync_batchnorm}
    for name, convert in conversions.items():
        converted = convert(copy.deepcopy(network))
        kept[name] = torch.equal(converted(image), before)
        print(f"timm {timm.__version__}, torch {torch.__version__}, conversion of {name}: equal outputs {kept[name]}")
same = kept == {"torch": False, "timm": True}
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
