#!/usr/bin/env bash
# datumaro 1.13.12: an object given as a mask does not survive the export to COCO.
#
# One object, a mask of 6×6 = 36 pixels, in an image of 10×10.
# Expected: COCO's annotation covers 36 pixels, as RLE or as polygon, with iscrowd = 0: it is one object.
# Seen:     as a polygon it covers 25 pixels (area says so, and so does pycocotools): the outline runs through the
#           centers of the edge pixels, while COCO's polygons run along their corners, so that every object loses a
#           row and a column. As RLE all 36 are there, but with iscrowd = 1, which readers of COCO take for a group
#           of objects, to be ignored. Nothing is said in either case.
# Here:     the reason why segstrat/data/convert.py reads exports with pycocotools alone, says how many outlines are
#           crowds, and has --crowds objects.
#
# Installs the pinned packages into a temporary folder (about 500 MB), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" datumaro==1.13.12 pycocotools==2.0.11
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import json
import sys
from pathlib import Path

import datumaro as dm
import numpy as np
from datumaro.components.annotation import Mask
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
from pycocotools.coco import COCO

mask = np.zeros((10, 10), bool)
mask[2:8, 2:8] = True
seen = []
for mode in ("mask", "polygons"):
    picture = Image.from_numpy(np.zeros((10, 10, 3), np.uint8))
    item = DatasetItem("a", subset="train", media=picture, annotations=[Mask(mask, label=0)])
    dm.Dataset.from_iterable([item], categories=["cat"]).export(
        mode, "coco_instances", save_media=True, segmentation_mode=mode
    )
    path = next(Path(mode).rglob("instances_train.json"))
    (annotation,) = json.loads(path.read_text())["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    pixels = int(coco.annToMask(annotation).sum())
    seen.append((pixels, annotation["iscrowd"]))
    print(f"datumaro {dm.__version__} {mode:8} {pixels} of 36 pixels, iscrowd = {annotation['iscrowd']}")
same = seen == [(36, 1), (25, 0)]
print("as described" if same else "no longer as described")
sys.exit(0 if same else 1)
PY
