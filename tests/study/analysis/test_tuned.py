"""Studies with a tuned learning rate: what enters the verdict, at which of its values."""

import json

import numpy as np
import pandas as pd
import pytest

from study.analysis.answer import answer_study
from study.analysis.answering.design import AnsweringDesign
from study.analysis.contrasts import contrasts
from study.analysis.study import Study, contexts
from study.frame import write_frames

ROLES = {"pretrained": "arm", "weight_decay": "treatment", "learning_rate": "tuned"}
DECAYS, RATES = (0.0, 5e-4, 5e-3), (0.01, 0.05, 0.2)
RAW, PRETRAINED = (0.25, 0.30, 0.28), (0.40, 0.39, 0.33)
# The best rate of a setting; every other one costs three points.
BEST = {(False, 0.0): 0.05, (False, 5e-4): 0.2, (False, 5e-3): 0.05, (True, 0.0): 0.01}
DESIGN = AnsweringDesign(max_seeds=6, looks=(4, 6), raw_candidates=1, pretrained_candidates=1)
CELLS = [(pre, decay, rate) for pre in (False, True) for decay in DECAYS for rate in RATES]


def trials_of(make_trial, stage, seeds, cells, rng):
    found = []
    for seed in seeds:
        for pre, decay, rate in cells:
            value = (PRETRAINED if pre else RAW)[DECAYS.index(decay)] + rng.normal(0, 0.003)
            value -= 0.03 * (rate != BEST.get((pre, decay), 0.05))
            axes = {"pretrained": pre, "weight_decay": decay, "learning_rate": rate, "seed": seed}
            found.append(make_trial(axes, float(value), stage=stage))
    return found


@pytest.fixture
def tuned_study(study_writer, make_trial):
    """`tuned_study(n)`: two screening seeds of all cells, then n of three cells; n = 0: one stage."""

    def write(answering_seeds, **manifest):
        rng = np.random.default_rng(0)
        stage = "screening" if answering_seeds else "answering"
        trials = trials_of(make_trial, stage, range(2 if answering_seeds else 4), CELLS, rng)
        chosen = [(False, 0.0, 0.05), (False, 5e-4, 0.2), (True, 0.0, 0.01)]
        trials += trials_of(
            make_trial, stage="answering", seeds=range(4, 4 + answering_seeds), cells=chosen, rng=rng
        )
        design = DESIGN.to_dict() if answering_seeds else None
        folder = study_writer(trials, name=f"study-{answering_seeds}", design=design, roles=ROLES, **manifest)
        content = json.loads((folder / "manifest.json").read_text())
        for entry, planned in zip(trials, content["trials"], strict=True):
            planned |= {"stage": entry["stage"], "tuned": ["learning_rate"]}
        (folder / "manifest.json").write_text(json.dumps(content))
        write_frames(folder)
        return Study.open(folder)

    return write


def test_two_stages_answer_at_the_chosen_values(tuned_study):
    found = answer_study(tuned_study(4))
    (verdict,) = found.primary
    assert verdict.label == "narrows"
    assert verdict.contrasts.reference == "weight decay 0 (learning rate 0.05)"
    assert verdict.contrasts.best_raw.usual == "weight decay 5e-4 (learning rate 0.2)"
    assert verdict.contrasts.best_pretrained.usual == "weight decay 0 (learning rate 0.01)"
    assert verdict.contrasts.improvement.estimate == pytest.approx(0.05, abs=0.01)
    assert verdict.contrasts.improvement.n == 4
    assert len(found.to_dict()["effects"]) == 1, "the learning rate makes no contexts"


def test_the_drivers_names_of_cells_are_understood(tuned_study):
    recorded = {
        "semseg": {
            "reference": "raw weight_decay=0 (learning_rate=0.05)",
            "raw": ["raw weight_decay=0.0005 (learning_rate=0.2)"],
            "pretrained": ["pre-trained weight_decay=0 (learning_rate=0.01)"], "looks": [], "problem": "",
        }
    }  # fmt: skip
    (verdict,) = answer_study(tuned_study(4, answering=recorded)).primary
    assert verdict.stage.roles.reference == "raw: weight decay 0 (learning rate 0.05)"
    assert verdict.stage.roles.raw == ("raw: weight decay 5e-4 (learning rate 0.2)",)


def test_one_stage_chooses_values_on_the_other_seeds(tuned_study):
    study = tuned_study(0)
    (context,) = contexts(study, "semseg")
    found = contrasts(study, context)
    assert found.improvement.n == 4
    assert found.improvement.estimate == pytest.approx(0.05, abs=0.01)
    assert found.gap.estimate == pytest.approx(0.15, abs=0.01)
    assert answer_study(study).label == "narrows"


def test_the_references_value_is_never_chosen_on_its_own_seed(tuned_study):
    """On seed 0 one rate is lucky by twenty points; only seeds 1 to 3 may choose seed 0's rate."""
    study = tuned_study(0)
    (context,) = contexts(study, "semseg")
    values = study.trials["last_semseg_val_miou"].astype(float)
    lucky = (
        ~study.trials["pretrained"].astype(bool)
        & (study.trials["weight_decay"] == 0)
        & (study.trials["learning_rate"] == 0.2)
        & (study.trials["seed"] == 0)
    )
    before = contrasts(study, context).chosen_reference
    found = contrasts(study, context, values + 0.2 * lucky).chosen_reference
    assert lucky.sum() == 1
    assert found.settings[0] == ("weight decay 0 (learning rate 0.05)",)
    assert found.value[0] == before.value[0]
    assert found.settings[1] == ("weight decay 0 (learning rate 0.2)",), "the others see the lucky value"


def test_without_the_role_nothing_changes():
    rows = pd.DataFrame({"pretrained": [False], "weight_decay": [0.0], "learning_rate": [0.1]})
    study = Study("s", {"roles": {"weight_decay": "treatment"}}, rows.assign(tasks="semseg"), pd.DataFrame())
    (context,) = contexts(study, "semseg")
    assert list(context.settings) == list(context.untuned_settings) == ["weight decay 0"]
