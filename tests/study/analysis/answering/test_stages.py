"""Studies of two stages: what enters the verdict, and on which scores."""

import json

import numpy as np
import pytest

from study.analysis.answer import answer_study
from study.analysis.answering.design import AnsweringDesign
from study.analysis.answering.differences import observed_seed_sd
from study.analysis.answering.nominate import nominate
from study.analysis.answering.stages import answering_stage, candidates, reference_setting, screening_table
from study.analysis.study import Study, contexts
from study.analysis.verdict import decide_all
from study.frame import write_frames
from study.reporting.render import make_page, render

DECAYS = (0.0, 5e-4, 5e-3)
RAW, PRETRAINED = (0.25, 0.30, 0.28), (0.40, 0.39, 0.33)
CANDIDATES = {
    "semseg": {
        "reference": "raw weight_decay=0",
        "raw": ["raw weight_decay=0.0005"],
        "pretrained": ["pre-trained weight_decay=0"],
    }
}
DESIGN = AnsweringDesign(max_seeds=6, looks=(4, 6), raw_candidates=1, pretrained_candidates=1)


def trials_of(make_trial, stage, seeds, cells, rng, **more):
    return [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "seed": seed},
            float((PRETRAINED if pre else RAW)[DECAYS.index(decay)] + rng.normal(0, 0.003)),
            stage=stage,
            **more,
        )
        for seed in seeds
        for pre, decay in cells
    ]


@pytest.fixture
def two_stages(study_writer, make_trial):
    """`two_stages(n)`: two screening seeds of all cells, then n of the reference and two candidates."""

    def write(answering_seeds, change=lambda trials: trials, **manifest):
        rng = np.random.default_rng(0)
        every = [(pre, decay) for pre in (False, True) for decay in DECAYS]
        chosen = [(False, 0.0), (False, 5e-4), (True, 0.0)]
        trials = trials_of(make_trial, "screening", (0, 1), every, rng)
        trials += trials_of(make_trial, "answering", range(2, 2 + answering_seeds), chosen, rng)
        trials = change(trials)
        manifest = {"answering": CANDIDATES, **manifest}
        folder = study_writer(trials, name=f"study-{answering_seeds}", design=DESIGN.to_dict(), **manifest)
        content = json.loads((folder / "manifest.json").read_text())
        for entry, planned in zip(trials, content["trials"], strict=True):
            planned["stage"] = entry["stage"]
        (folder / "manifest.json").write_text(json.dumps(content))
        write_frames(folder)
        return Study.open(folder)

    return write


def test_only_answering_trials_enter_the_verdict(two_stages):
    """The screening trials of the winner are lucky by ten points; the verdict does not see them."""

    def lucky(trials):
        for entry in trials:
            if entry["stage"] == "screening" and entry["axes"]["weight_decay"] == 5e-4:
                entry["curve"] = [value + 0.1 for value in entry["curve"]]
        return trials

    study = two_stages(4, lucky)
    verdict = answer_study(study).primary[0]
    assert verdict.label == "narrows"
    assert verdict.contrasts.improvement.estimate == pytest.approx(0.05, abs=0.01)
    assert verdict.contrasts.improvement.n == 4
    assert set(verdict.contrasts.raw.values.index) == {2, 3, 4, 5}
    assert verdict.look.number == 1
    assert verdict.look.looks == 2


def test_an_extended_study_states_the_confidence_that_is_left(two_stages):
    """The plan's error was spent at its last look; what an extension spends comes on top of it."""
    study = two_stages(8)
    manifest = study.manifest | {"design": DESIGN.extended(8).to_dict()}
    answer = answer_study(Study(study.name, manifest, study.trials, study.epochs))
    assert answer.lines[0].endswith("as planned, 4 seeds)."), "what was planned comes first"
    assert answer.lines[0].startswith("In part: weight decay narrows")
    assert answer.lines[1].startswith("Extended: In part: weight decay narrows")
    assert "(92.5 % interval" in answer.sentence
    assert "95 %" not in answer.sentence
    effects = answer.to_dict()["effects"][0]
    assert [effects[name]["confidence"] for name in ("gap", "improvement", "remaining", "closure")] == [
        0.925
    ] * 4
    page = render([make_page(answer)])
    assert "with 92.5 % over all looks together" in page
    assert "Differences with 92.5 % intervals" in page


def test_trials_that_screening_stopped_do_not_block_the_answer(two_stages):
    def stop(trials):
        for entry in trials:
            if entry["stage"] == "screening" and entry["axes"]["weight_decay"] == 5e-3:
                entry |= {
                    "status": "stopped",
                    "stop_epoch": 2,
                    "stop_rung": 0,
                    "curve": [0.1, 0.2],
                    "epochs": 4,
                }
        return trials

    answer = answer_study(two_stages(4, stop))
    assert answer.label == "narrows"
    assert {view.label for view in answer.sensitivity[0]} == {"narrows"}


@pytest.mark.parametrize("seeds", [0, 3])
def test_before_the_first_look_nothing_is_answered(two_stages, seeds):
    answer = answer_study(two_stages(seeds))
    assert answer.label == "undetermined"
    assert "has not reached its first look" in answer.sentence
    assert {claim.status for claim in answer.sections["claims"]} == {"undetermined"}


def test_an_open_question_continues(two_stages):
    """After four noisy seeds whether raw gains is open: more seeds follow, and the page says so."""

    def noisy(trials):
        rng = np.random.default_rng(5)
        for entry in trials:
            if entry["stage"] == "answering":
                shift = rng.normal(0, 0.05)
                entry["curve"] = [value + shift for value in entry["curve"]]
        return trials

    answer = answer_study(two_stages(4, noisy))
    assert answer.label == "undetermined"
    assert "look 1 of 2" in answer.sentence
    assert answer.to_dict()["effects"][0]["look"]["next_seeds"] == 6
    page = make_page(answer)
    ((_, look),) = page.looks
    assert (look.number, look.looks, look.seeds) == (1, 2, 4)
    assert 0 < look.spent < 0.05
    text = render([page])
    assert "The answering stage" in text
    assert "6 seeds, 6 more trials" in text


def test_candidates_are_those_that_the_driver_recorded(two_stages):
    recorded = {
        "semseg": {
            "reference": "raw weight_decay=0", "raw": ["raw weight_decay=0.0005"],
            "pretrained": ["pre-trained weight_decay=0"], "looks": [], "problem": "",
        }
    }  # fmt: skip
    study = two_stages(4, answering=recorded)
    (context,) = contexts(study, "semseg")
    roles = candidates(study, context, DESIGN)
    assert roles.reference == "raw weight_decay=0"
    assert roles.raw == ("raw weight_decay=0.0005",)
    assert roles.pretrained == ("pre-trained weight_decay=0",)
    assert context.cell_labels["raw weight_decay=0.0005"] == "weight decay 5e-4"


def test_one_half_of_the_images_nominates_and_the_other_is_reported(two_stages):
    study = two_stages(4)
    trials = study.trials
    # Half a likes the strongest decay; half b, which is reported, does not.
    strongest = trials["weight_decay"] == 5e-3
    trials["last_semseg_val_miou_a"] = trials["last_semseg_val_miou"] + 0.2 * strongest
    trials["last_semseg_val_miou_b"] = trials["last_semseg_val_miou"] - 0.01
    trials["semseg_images"] = "halves of the validation images"
    (context,) = contexts(study, "semseg")
    table = screening_table(study, context.in_stage("screening"))
    assert nominate(table, reference_setting(context), DESIGN).roles.raw == ("raw weight_decay=0.005",)
    stage = answering_stage(study, context, DESIGN, candidates(study, context, DESIGN))
    expected = trials.loc[trials["stage"] == "answering", "last_semseg_val_miou_b"]
    assert sorted(stage.values.to_numpy().ravel()) == pytest.approx(sorted(expected))
    assert answer_study(study).primary[0].images == "halves of the validation images"


def test_a_diverged_answering_trial_counts_with_the_floor(two_stages):
    def diverge(trials):
        last = next(
            entry for entry in trials if entry["stage"] == "answering" and entry["axes"]["pretrained"]
        )
        last |= {"status": "diverged", "curve": [0.1, None], "train": None}
        return trials

    study = two_stages(4, diverge, data={"name": "figures", "constant_miou": {"semseg": {"val": 0.08}}})
    verdict = answer_study(study).primary[0]
    assert verdict.stage.values["pre-trained weight_decay=0"].min() == pytest.approx(0.08)
    assert verdict.contrasts.gap.n == 4


def test_the_page_compares_the_plan_with_what_was_observed(two_stages):
    study = two_stages(6)
    found = answer_study(study)
    page = make_page(found)
    sd = 100 * observed_seed_sd(found.primary[0].stage.values)
    assert f"they vary by {sd:.1f} points" in page.cost_sentence
    assert "trained 18 of at most 18 trials" in page.cost_sentence
    assert "over the 2 planned looks (Bonferroni)" in page.claims_note


def test_a_second_task_of_multi_task_arms_alone_is_no_question(study_writer, make_trial):
    """Single-task trials have no score for it, so no raw cell is left to be compared with its reference."""
    rng = np.random.default_rng(0)
    trials = []
    for stage, seeds in (("screening", (0, 1)), ("answering", range(2, 6))):
        for tasks in (["semseg"], ["semseg", "boundaries"]):
            for pretrained in (False, True):
                score = 0.25 + 0.1 * pretrained + 0.03 * (len(tasks) - 1)
                trials += [
                    make_trial(
                        {"pretrained": pretrained, "tasks": tasks, "seed": seed},
                        float(score + rng.normal(0, 0.003)),
                        stage=stage,
                        tasks=tasks,
                    )
                    for seed in seeds
                ]
    folder = study_writer(
        trials, roles={"pretrained": "arm", "tasks": "arm"}, space="multitask", design=DESIGN.to_dict()
    )
    content = json.loads((folder / "manifest.json").read_text())
    for entry, planned in zip(trials, content["trials"], strict=True):
        planned["stage"] = entry["stage"]
    (folder / "manifest.json").write_text(json.dumps(content))
    write_frames(folder)
    study = Study.open(folder)
    verdicts = {task: decide_all(study, task) for task in ("semseg", "boundaries")}
    assert [verdict.label for verdict in verdicts["semseg"]] == ["narrows"]
    assert [verdict.label for verdict in verdicts["boundaries"]] == ["undetermined"]
    assert verdicts["boundaries"][0].stage is None
    assert make_page(answer_study(study)).pictures
