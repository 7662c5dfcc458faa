"""Studies with a tuned learning rate: what enters the verdict, at which of its values."""

import json

import numpy as np
import pandas as pd
import pytest

from study.analysis.answer import answer_study
from study.analysis.answering.design import AnsweringDesign
from study.analysis.cells import cell_table
from study.analysis.contrasts import contrasts
from study.analysis.study import Study, contexts
from study.frame import write_frames
from study.reporting.plot_treatments import treatment_table
from study.reporting.render import make_page, render
from study.reporting.trials_table import trial_columns

ROLES = {"pretrained": "arm", "weight_decay": "treatment", "learning_rate": "tuned"}
DECAYS, RATES = (0.0, 5e-4, 5e-3), (0.01, 0.05, 0.2)
RAW, PRETRAINED = (0.25, 0.30, 0.28), (0.40, 0.39, 0.33)
# The best rate of a setting; every other one costs three points.
BEST = {(False, 0.0): 0.05, (False, 5e-4): 0.2, (False, 5e-3): 0.05, (True, 0.0): 0.01}
DESIGN = AnsweringDesign(max_seeds=6, looks=(4, 6), raw_candidates=1, pretrained_candidates=1)
CANDIDATES = {
    "semseg": {
        "reference": "raw weight_decay=0 (learning_rate=0.05)",
        "raw": ["raw weight_decay=0.0005 (learning_rate=0.2)"],
        "pretrained": ["pre-trained weight_decay=0 (learning_rate=0.01)"],
    }
}
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
        manifest = ({"answering": CANDIDATES} if answering_seeds else {}) | manifest
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


def test_the_recorded_candidates_are_those_of_the_stage(tuned_study):
    (verdict,) = answer_study(tuned_study(4)).primary
    assert verdict.stage.roles.reference == CANDIDATES["semseg"]["reference"]
    assert list(verdict.stage.roles.raw) == CANDIDATES["semseg"]["raw"]


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
    rows = rows.assign(tasks="semseg", arm="raw", multi_task=False, status="completed", seed=0)
    study = Study("s", {"roles": {"weight_decay": "treatment"}}, rows, pd.DataFrame())
    (context,) = contexts(study, "semseg")
    assert list(context.settings) == list(context.untuned_settings) == ["weight decay 0"]


def test_a_chosen_value_at_the_edge_is_warned_of(tuned_study):
    found = answer_study(tuned_study(4))
    (tuning,) = found.tunings
    assert tuning.chosen["raw: weight decay 0 (learning rate 0.05)"] == 0.05
    assert set(tuning.edges) == {
        "raw: weight decay 5e-4 (learning rate 0.2)", "pre-trained: weight decay 0 (learning rate 0.01)"
    }  # fmt: skip
    (warning,) = [text for text in found.caveats if "edge" in text]
    assert "(0.01 to 0.2) for raw: weight decay 5e-4 (learning rate 0.2) and pre-trained" in warning
    assert "raw: weight decay 0 (" not in warning, "0.05 has a value on either side"
    assert found.to_dict()["tuning"][0]["at_the_edge"] == list(tuning.edges)


def test_a_single_value_has_no_edge(study_writer, make_trial):
    rng = np.random.default_rng(0)
    cells = [cell for cell in CELLS if cell[2] == 0.05]
    folder = study_writer(trials_of(make_trial, "answering", range(3), cells, rng), roles=ROLES)
    write_frames(folder)
    found = answer_study(Study.open(folder))
    assert found.tunings[0].edges == ()
    assert not any("edge" in text for text in found.caveats)
    assert not any(view.name.startswith("learning rate") for view in found.sensitivity[0])


def test_the_cost_of_tuning_is_counted_for_both_arms(tuned_study):
    found = answer_study(tuned_study(4))
    (tuning,) = found.tunings
    # Three settings of each arm, two values too many, two screening seeds; four epochs of two seconds each.
    assert tuning.trials == {"raw": 12, "pre-trained": 12}
    assert tuning.hours["raw"] == pytest.approx(12 * 8 / 3600)
    (note,) = [text for text in make_page(found).notes if "is tuned" in text]
    assert "12 raw trials (2 min) and 12 pre-trained trials (2 min)" in note


def test_sensitivity_shows_each_single_rate_in_both_arms(tuned_study):
    rows = {view.name: view for view in answer_study(tuned_study(4)).sensitivity[0]}
    assert {"learning rate 0.01", "learning rate 0.05", "learning rate 0.2"} < set(rows)
    assert "from screening" in rows["learning rate 0.05"].note
    # At 0.05 the reference keeps its 0.25, and the best pre-trained cell falls from 0.40 to 0.39.
    assert rows["learning rate 0.05"].contrasts.gap.estimate == pytest.approx(0.14, abs=0.01)
    # At 0.2 the reference is three points worse, and 5e-4 is at its best.
    assert rows["learning rate 0.2"].contrasts.improvement.estimate == pytest.approx(0.08, abs=0.01)
    assert {rows[name].label for name in rows if name.startswith("learning")} == {"undetermined"}


def test_cells_and_figures_show_settings_at_their_chosen_values(tuned_study):
    found = answer_study(tuned_study(4))
    cells = cell_table(found.study, "semseg")
    assert len(cells) == 6, "one row per arm and setting"
    assert "weight decay 5e-4 (learning rate 0.2)" in set(cells["setting"])
    assert cells["reference"].sum() == 2
    table = treatment_table(found.study, "weight_decay", "semseg")
    raw = table[(table["arm"] == "raw") & (table["split"] == "val") & (table["score"] == "miou")]
    assert raw.groupby("level")["value"].mean().round(2).to_dict() == {0.0: 0.25, 5e-4: 0.30, 5e-3: 0.28}
    assert "learning rate" in {title for title, _, _ in trial_columns(found.study)}


def test_effects_compare_settings_at_their_chosen_values(tuned_study):
    (effects,) = answer_study(tuned_study(0)).sections["factorial_effects"]
    assert [factor.axis for factor in effects.factors] == ["weight_decay"], "a tuned axis is no factor"


def test_the_whole_page_is_written(tuned_study):
    page = render([make_page(answer_study(tuned_study(4)))])
    assert "weight decay 5e-4 (learning rate 0.2)" in page
    assert "learning rate 0.05 in both arms" in page.lower()
