#!/usr/bin/env bash
# segmentation_models.pytorch 0.6.0: SoftCrossEntropyLoss divides by the void pixels as well.
#
# Logits of 0 for 2 classes, so that every pixel costs ln 2 = 0.693; three of four pixels are void (ignore_index).
# Expected: the mean over the labeled pixels, 0.693, as torch.nn.CrossEntropyLoss gives, of which its docstring says
#           that it is a drop-in replacement.
# Seen:     0.173, a quarter: void pixels have the loss 0 and count in the mean, so that an image with much void, or a
#           crop with much padding, trains with a smaller step. With its default smooth_factor=None it raises a
#           TypeError.
# Here:     the reason why segstrat/losses.py divides by the labeled pixels, and compares cross-entropy with torch's; its
#           dice and focal losses are those of segmentation_models.pytorch.
#
# Installs the pinned packages into a temporary folder (about 1 GB), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" segmentation-models-pytorch==0.6.0 torch==2.13.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import segmentation_models_pytorch as smp
import torch

logits = torch.zeros(1, 2, 2, 2)
target = torch.tensor([[[1, 255], [255, 255]]])
theirs = smp.losses.SoftCrossEntropyLoss(ignore_index=255, smooth_factor=0.0)(logits, target).item()
torchs = torch.nn.CrossEntropyLoss(ignore_index=255)(logits, target).item()
try:
    smp.losses.SoftCrossEntropyLoss(ignore_index=255)(logits, target)
    raised = "nothing"
except TypeError as error:
    raised = f"TypeError: {error}"
print(f"smp {smp.__version__}: {theirs:.3f}, torch: {torchs:.3f}; without smooth_factor it raises {raised}")
same = abs(theirs * 4 - torchs) < 1e-6 and raised.startswith("TypeError")
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
