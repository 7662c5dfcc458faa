#!/usr/bin/env bash
# nnU-Net 2.8.1: its trainer cannot be built from the plans that its planner has written, and changes those it is given.
#
# Six drawn color images of 64 pixels are fingerprinted and planned; the trainer gets the plans file as JSON reads it.
# Expected: `nnUNetTrainer(plans, "2d", 0, dataset_json, device)`, the signature that own training loops and trainers
#           use, takes a plans file, and leaves the caller's dict alone: two folds can be built from one.
# Seen:     KeyError: 'continue_training', a key that only `nnUNetv2_train` adds to the dict in passing. With it the
#           trainer is built, and takes the key out of the caller's dict, so the second fold fails like the first call.
# Here:     benchmarks/pipelines.py adds the key to a dict of its own.
#
# Installs the pinned packages into a temporary folder (about 4 GB with torch), and ends with 1 once the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv -q --python 3.11 "$work/venv"
uv pip install -q --python "$work/venv/bin/python" nnunetv2==2.8.1 torch==2.15.0
export nnUNet_raw="$work/raw" nnUNet_preprocessed="$work/preprocessed" nnUNet_results="$work/results"
mkdir "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
cd "$work"
cat > probe.py <<'PY'
import importlib.metadata
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def main():
    data = Path(os.environ["nnUNet_raw"]) / "Dataset001_Squares"
    for name in ("imagesTr", "labelsTr"):
        (data / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        label = np.zeros((64, 64), np.uint8)
        label[16:48, 8 + number : 40 + number] = 1
        image = rng.integers(0, 99, (64, 64, 3), dtype=np.uint8) + 100 * label[..., None]
        Image.fromarray(image).save(data / "imagesTr" / f"s{number}_0000.png")
        Image.fromarray(label).save(data / "labelsTr" / f"s{number}.png")
    facts = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "square": 1}}
    (data / "dataset.json").write_text(json.dumps(facts | {"numTraining": 6, "file_ending": ".png"}))

    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    extract_fingerprints([1], num_processes=1)
    name = plan_experiments([1])
    folder = Path(os.environ["nnUNet_preprocessed"]) / "Dataset001_Squares"
    plans = json.loads((folder / f"{name}.json").read_text())
    found = []
    given = plans | {"continue_training": False}
    for what, dictionary, fold in (("as written", plans, 0), ("with the key", given, 0), ("the same dict again", given, 1)):
        try:
            nnUNetTrainer(dictionary, "2d", fold, facts | {"file_ending": ".png"}, torch.device("cpu"))
            found.append("built")
        except KeyError as error:
            found.append(f"KeyError: {error}")
        print(f"nnU-Net {importlib.metadata.version('nnunetv2')}, plans {what}: {found[-1]}")
    missing = "KeyError: 'continue_training'"
    same = found == [missing, "built", missing]
    print("as described" if same else "no longer as described")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
PY
"$work/venv/bin/python" -W ignore probe.py
