"""The thesis's published tables as studies of one seed."""

import pandas as pd

from study.analysis.sections.thesis_numbers import TABLES
from study.analysis.study import Study
from study.frame import epoch_table

METRICS = ("train_loss", "val_loss", "train_miou", "val_miou")


def table_1_2() -> Study:
    """Table 1.2 (E1, E2) as a study: one seed, scores at the best epoch only, no learning curves."""
    return _as_study("table_1_2", {"pretrained": "arm", "weight_decay": "treatment"})


def table_1_1() -> Study:
    """Table 1.1 as a study of three backbones."""
    return _as_study("table_1_1", {"pretrained": "arm", "backbone": "arm"})


def _as_study(name: str, roles: dict[str, str]) -> Study:
    rows = []
    for index, cell in pd.read_csv(TABLES / f"{name}.csv").iterrows():
        budget = 100 if cell["pretrained"] else 300
        arm = "pre-trained" if cell["pretrained"] else "raw"
        if "backbone" in roles:
            arm = f"{cell['backbone']}, {arm}"
        rows.append(
            {
                "trial_id": f"{name}-{index}",
                "study": f"thesis-{name}",
                "data": "d1",
                "order": index,
                "arm": arm,
                "tasks": cell["task"],
                "multi_task": False,
                "dropout": 0.0,
                "seed": 0,
                "status": "completed",
                "epochs_budget": budget,
                "epochs_run": budget,
                "val_miou_thesis": cell["val_miou"],
                "error": "",
            }
            | {key: cell[key] for key in ("model", "backbone", "weight_decay", "pretrained")}
            | {f"{cell['task']}_{metric}": cell[metric] for metric in METRICS}
            | {f"{cell['task']}_val_miou_thesis": cell["val_miou"]}
        )
    manifest = {
        "study": f"thesis-{name}",
        "question": "The thesis's own numbers, one seed per cell.",
        "roles": roles,
        "metric": "semseg_val_miou",
        "value": "best",
        "data": {"name": "50 % of D1 (VOC 2012 + SBD)", "synthetic": False},
    }
    return Study(f"thesis-{name}", manifest, pd.DataFrame(rows), epoch_table("", []))
