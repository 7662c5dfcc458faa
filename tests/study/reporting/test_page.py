"""The page's section on effects and surfaces, and what verdict.json holds of them."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

from study.analysis import answer
from study.reporting.page import Page
from study.reporting.render import make_page, render

FACTS = {
    "tasks": "semseg", "multi_task": False, "status": "completed", "epochs_run": 40, "epochs_budget": 40,
    "model": "fcn8s", "backbone": "resnet18", "data": "figures", "error": None, "seconds": 9.0,
}  # fmt: skip


def frame(cells, value):
    rng = np.random.default_rng(2)
    rows = []
    for cell in cells:
        miou = value(cell) + 0.002 * rng.normal()
        scores = {
            f"{prefix}semseg_{split}_{score}": miou
            for prefix in ("", "last_")
            for split in ("train", "val")
            for score in ("loss", "miou", "miou_thesis")
        }
        arm = "pre-trained" if cell["pretrained"] else "raw"
        rows.append(FACTS | scores | cell | {"trial_id": str(len(rows)), "arm": arm})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def grid_answer():
    axes = {"dropout": (0.0, 0.2), "label_smoothing": (0.0, 0.1), "stochastic_depth": (0.0, 0.2)}
    cells = [
        {"pretrained": pretrained, "seed": 0, "weight_decay": 0.0} | dict(zip(axes, levels, strict=True))
        for pretrained, *levels in itertools.product((False, True), *axes.values())
    ]
    trials = frame(cells, lambda c: 0.25 + 0.1 * c["pretrained"] + 0.03 * (c["dropout"] > 0))
    roles = {"pretrained": "arm"} | dict.fromkeys(axes, "treatment")
    return answer(trials, {"study": "grid", "roles": roles, "metric": "semseg_val_miou"})


@pytest.fixture(scope="module")
def sampled_answer():
    points = 0.6 * qmc.Sobol(2, scramble=True, rng=0).random_base2(4)
    cells = [
        {"pretrained": pretrained, "seed": 0, "weight_decay": a / 100, "dropout": b}
        for pretrained in (False, True)
        for a, b in points
    ]
    trials = frame(cells, lambda c: 0.25 + 0.1 * c["pretrained"] - 0.3 * (c["dropout"] - 0.3) ** 2)
    roles = {"pretrained": "arm", "weight_decay": "treatment", "dropout": "treatment"}
    return answer(trials, {"study": "sampled", "roles": roles, "metric": "semseg_val_miou"})


def test_a_one_seed_grid_has_effects_although_its_verdict_is_undetermined(grid_answer):
    assert grid_answer.label == "undetermined"
    (section,) = Page(grid_answer, {}, []).effects
    assert section["title"] == "Effects: semseg"
    main, interactions = section["tables"]
    cells = {row["label"]: row["cells"] for row in main[1]}
    assert cells["dropout 0.2"]["both arms"]["shown"]
    assert not cells["label smoothing 0.1"]["both arms"]["shown"]
    assert len(interactions[1]) == 3


def test_a_sampled_study_has_surfaces_and_no_effects(sampled_answer):
    (section,) = Page(sampled_answer, {}, []).effects
    assert section["title"] == "Response surface: semseg"
    assert "fitted maximum" in section["sentences"][0]
    assert section["tables"] == []


def test_verdict_values_are_json(grid_answer, sampled_answer):
    effects = json.loads(json.dumps(grid_answer.to_dict()))["factorial_effects"][0]["effects"]
    row = next(row for row in effects if row["effect"] == "dropout 0.2" and row["response"] == "both arms")
    assert row["low"] < 0.03 < row["high"]
    assert row["shown"] is True
    surface = json.loads(json.dumps(sampled_answer.to_dict()))["response_surfaces"][0]
    assert [arm["arm"] for arm in surface["arms"]] == ["raw", "pre-trained"]
    assert surface["remaining"]["low"] < 0.1 < surface["remaining"]["high"]


def test_the_page_shows_the_section(grid_answer):
    text = render([make_page(grid_answer)])
    assert 'id="grid-effects"' in text
    assert "More for raw than for pre-trained" in text
    assert "label smoothing 0.1 × stochastic depth 0.2" in text
