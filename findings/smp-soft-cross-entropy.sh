#!/usr/bin/env bash
# segmentation_models.pytorch 0.6.0: SoftCrossEntropyLoss divides by the void pixels as well.
#
# Logits of 0 for 2 classes, so that every pixel costs ln 2 = 0.693; three of four pixels are void (ignore_index).
# Expected: the mean over the labeled pixels, 0.693, as torch.nn.CrossEntropyLoss gives, of which its docstring says
#           that it is a drop-in replacement.
# Seen:     0.173, a quarter: void pixels have the loss 0 and count in the mean, so that a crop with much void or
#           padding trains with a smaller step. With its default, smooth_factor=None, it raises a TypeError.
# Here:     the reason why segstrat/losses.py divides by the labeled pixels, and compares cross-entropy with torch's;
#           its dice and focal losses are those of segmentation_models.pytorch.
#
# Unpacks the pinned package alone (200 kB) into a temporary folder, takes torch from this project's environment, and
# ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$(dirname "$0")/.."
uv pip install -q --no-deps --target "$work" segmentation-models-pytorch==0.6.0
WORK="$work" uv run python -W ignore - <<'PY'
import importlib
import os
import sys
import types
from pathlib import Path

import torch

# The package itself would import encoders, which need more packages; a loss needs none.
package = types.ModuleType("losses")
package.__path__ = [str(Path(os.environ["WORK"]) / "segmentation_models_pytorch" / "losses")]
sys.modules["losses"] = package
loss = importlib.import_module("losses.soft_ce").SoftCrossEntropyLoss

logits = torch.zeros(1, 2, 2, 2)
target = torch.tensor([[[1, 255], [255, 255]]])
theirs = loss(ignore_index=255, smooth_factor=0.0)(logits, target).item()
torchs = torch.nn.CrossEntropyLoss(ignore_index=255)(logits, target).item()
try:
    loss(ignore_index=255)(logits, target)
    raised = "nothing"
except TypeError as error:
    raised = f"TypeError: {error}"
print(f"segmentation_models.pytorch: {theirs:.3f}, torch: {torchs:.3f}; without smooth_factor it raises {raised}")
same = abs(theirs * 4 - torchs) < 1e-6 and raised.startswith("TypeError")
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
