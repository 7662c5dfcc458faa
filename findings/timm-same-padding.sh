#!/usr/bin/env bash
# timm 1.0.31: where the cells of a `tf_…` network lie in the image depends on the parity of its size.
#
# tf_efficientnet_lite0, the map at stride 32: the pixel on which the first cell is centered, as the center of mass of
# the gradient of a cell in the middle, with every kernel a symmetric bump.
# Expected: one position for all sizes, as with padding by half a kernel; a map can then be upsampled to its image.
# Seen:     31 for a side of 640, and 0 for 641: "SAME" pads one pixel on the right of an even side and one on each side
#           of an odd one, at each of five strides. Nothing in `feature_info` says so, and 31 pixels are nearly a cell.
# Here:     segstrat/models/timm_backbone.py measures the position, and pads images to whole cells before the network.
#
# Installs the pinned packages into a temporary folder (about 3 GB with torch), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" timm==1.0.31 torch==2.15.0 torchvision==0.29.2
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import timm
import torch

network = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
with torch.no_grad():
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            size = parameter.shape[2]
            line = torch.exp(-(((torch.arange(size) - (size - 1) / 2) / 0.5) ** 2))
            parameter.copy_(torch.outer(line, line).expand(parameter.shape) / line.sum() ** 2 / parameter.shape[1])
found = {}
for side in (640, 641):
    image = torch.full((1, 3, side, side), 1e-6, requires_grad=True)
    feature = network(image)[-1]
    middle = feature.shape[-1] // 2
    feature[0, :, middle, middle].sum().backward()
    weight = image.grad[0].sum((0, 1)).double()
    center = float((weight * torch.arange(side)).sum() / weight.sum()) - 32 * middle
    found[side] = round(center, 1)
    print(f"timm {timm.__version__}: side {side}, {feature.shape[-1]} cells, the first is centered on pixel {center:.2f}")
same = found == {640: 31.0, 641: 0.0}
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
