"""The whole way from records to the answer, sound studies and broken ones."""

import json
import math

import numpy as np
import pytest

from study.analysis.conclusion import answer_study
from study.analysis.study import Study
from study.analysis.thesis import comparison, reasons_to_differ, table_1_1, table_1_2
from study.frame import write_frames
from study.reporting.render import make_page, render

DECAYS = (0.0, 5e-4, 5e-3)


def grid(make_trial, raw, pretrained, *, seeds=(0, 1, 2), noise=0.003, train=(0.7, 0.5), **more):
    rng = np.random.default_rng(1)
    return [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "seed": seed},
            float(value + 0.01 * seed + rng.normal(0, noise)),
            train=float(train[pre] + rng.normal(0, noise)),
            **more,
        )
        for seed in seeds
        for pre, values in ((False, raw), (True, pretrained))
        for decay, value in zip(DECAYS, values, strict=True)
    ]


def answer_of(folder, **options):
    write_frames(folder)
    return answer_study(Study.open(folder), **options)


def test_a_known_effect_is_found(study_writer, make_trial):
    answer = answer_of(study_writer(grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33))))
    assert answer.label == "narrows"
    assert answer.sentence.startswith("On figures (synthetic), weight decay narrows the gap to pre-training")
    claims = {claim.name: claim for claim in answer.claims}
    assert claims["C1"].status == "supported"
    assert claims["C2"].status == "supported"
    assert claims["C3"].status == "supported"
    assert "best at weight decay 5e-4" in claims["C3"].reason
    assert claims["C4"].status == claims["C5"].status == "undetermined"
    assert answer.mechanisms[0].label == "both"
    content = answer.to_dict()
    assert content["verdict"] == "narrows"
    assert content["effects"][0]["gap"]["estimate"] == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize(
    ("raw", "train", "label"),
    [
        ((0.25, 0.36, 0.30), (0.7, 0.5), "regularization"),  # behind in training, and the gap closes
        ((0.25, 0.29, 0.27), (0.7, 0.5), "both"),
        ((0.25, 0.29, 0.27), (0.4, 0.5), "initialization"),  # ahead on both
    ],
)
def test_h2_follows_the_thesis_logic(study_writer, make_trial, raw, train, label):
    trials = grid(make_trial, raw, (0.36, 0.355, 0.33), train=train, noise=0.001)
    assert answer_of(study_writer(trials)).mechanisms[0].label == label


def test_a_contradicted_claim_is_reported(study_writer, make_trial):
    trials = grid(make_trial, (0.36, 0.36, 0.36), (0.25, 0.25, 0.25), train=(0.4, 0.6))
    claims = {claim.name: claim.status for claim in answer_of(study_writer(trials)).claims}
    assert claims["C1"] == "contradicted"
    assert claims["C2"] == "contradicted"


@pytest.mark.parametrize(
    ("multi_raw", "multi_pre", "c4", "c5"),
    [
        (0.40, 0.49, "supported", "supported"),
        (0.30, 0.56, "contradicted", "contradicted"),
    ],
)
def test_multi_task_claims(study_writer, make_trial, multi_raw, multi_pre, c4, c5):
    rng = np.random.default_rng(0)
    trials = [
        make_trial(
            {"pretrained": pre, "tasks": tasks, "seed": seed},
            float(value + rng.normal(0, 0.001)),
            tasks=tasks,
        )
        for seed in range(3)
        for pre, tasks, value in (
            (False, ["semseg"], 0.3), (False, ["parts"], 0.3), (False, ["semseg", "parts"], multi_raw),
            (True, ["semseg"], 0.5), (True, ["parts"], 0.5), (True, ["semseg", "parts"], multi_pre),
        )
    ]  # fmt: skip
    folder = study_writer(trials, roles={"pretrained": "arm", "tasks": "arm"}, space="multitask")
    answer = answer_of(folder)
    claims = {claim.name: claim.status for claim in answer.claims}
    assert (claims["C4"], claims["C5"]) == (c4, c5)
    assert list(answer.verdicts) == ["semseg", "parts"]
    assert "multi-task training" in answer.sentence
    assert "Multi-task training counts as regularization here" in render([make_page(answer)])


def test_stopped_trials_that_could_overturn_the_verdict_make_it_undetermined(study_writer, make_trial):
    """Completed raw cells stay far behind, but a stopped one had already reached the pre-trained level."""
    trials = grid(make_trial, (0.25, 0.26, 0.27), (0.36, 0.36, 0.36), noise=0.001)
    assert answer_of(study_writer(trials, name="complete")).label == "narrows"
    for entry in trials:
        if not entry["axes"]["pretrained"] and entry["axes"]["weight_decay"] == 5e-4:
            entry.update(status="stopped", stop_epoch=2, stop_rung=0, curve=[0.30, 0.37], epochs=4)
    answer = answer_of(study_writer(trials, name="stopped"))
    assert answer.label == "undetermined"
    # The other seeds prefer the stopped setting, which has no final value anywhere.
    assert "no final value on seed 0, 1, 2" in answer.sentence
    assert any("3 of 18 trials were stopped" in note for note in answer.caveats)


def test_the_thesis_table_says_what_the_thesis_says():
    answer = answer_study(table_1_2())
    assert answer.label == "undetermined"
    found = answer.primary[0].contrasts
    # 41.1 − 38.0 of 47.4 − 38.0.
    assert found.closure.estimate == pytest.approx(3.1 / 9.4)
    assert found.best_raw.usual == "weight decay 5e-4"
    for claim in answer.claims[:3]:
        assert claim.status == "undetermined"
        assert "the thesis's way, but one seed allows no interval" in claim.reason
    assert "as in the thesis" in answer.claims[2].reason
    estimates = [effect.interval.estimate for claim in answer.claims[:2] for effect in claim.effects]
    # Means over the four weight decays of Table 1.2: training (raw ahead), validation (pre-trained ahead).
    assert estimates == pytest.approx([(3.7 + 7.5 + 7.1 + 5.5) / 400, (9.2 + 7.6 + 6.0 + 6.0) / 400])


def test_the_backbones_of_the_thesis_are_three_contexts():
    answer = answer_study(table_1_1())
    gaps = {verdict.context.label: verdict.contrasts.gap.estimate for verdict in answer.primary}
    assert gaps == pytest.approx(
        {"backbone alexnet": 0.073, "backbone resnet18": 0.06, "backbone vgg16": 0.125}
    )
    assert "no stand-in" in answer.sentence
    c1 = answer.claims[0]
    assert [effect.interval.estimate for effect in c1.effects] == pytest.approx([-0.026, 0.071, 0.037])
    assert "both ways" in c1.reason


def test_the_comparison_says_the_data_protocol_first(study_writer, make_trial):
    folder = study_writer(grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33)))
    write_frames(folder)
    study = Study.open(folder)
    table = comparison(study, "semseg")
    assert list(table["thesis"]) == [0.380, 0.411, 0.472, 0.471]
    assert table["n"].tolist() == [3] * 4
    # The synthetic records hold 0.9 × mIoU as the thesis code's metric.
    assert table["like_with_like"].iloc[0] == pytest.approx(0.9 * table["best_epoch"].iloc[0])
    assert table["difference"].iloc[0] == pytest.approx(table["like_with_like"].iloc[0] - 0.38)
    assert reasons_to_differ(study)[0].startswith("Another data protocol")
    assert "drawn scenes" in reasons_to_differ(study)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: [], "no trials"),
        (lambda trials: [entry | {"status": "diverged"} for entry in trials], "no trial was completed"),
        (
            lambda trials: [entry | {"status": "failed", "error": "x"} for entry in trials],
            "no trial was completed",
        ),
        (lambda trials: [entry for entry in trials if entry["axes"]["pretrained"]], "no raw trial"),
        (
            lambda trials: [entry for entry in trials if not entry["axes"]["pretrained"]],
            "no pre-trained trial",
        ),
        (
            lambda trials: [entry for entry in trials if entry["axes"]["seed"] == 0],
            "One seed allows no interval",
        ),
        (lambda trials: [entry for entry in trials if entry["axes"]["weight_decay"] == 0], "no stand-in"),
        (
            lambda trials: [e for e in trials if e["axes"]["weight_decay"] > 0 or e["axes"]["pretrained"]],
            "no reference",
        ),
        (
            lambda trials: [e for e in trials if (e["axes"]["seed"] == 0) == e["axes"]["pretrained"]],
            "No seed has final values of both",
        ),
    ],
)
def test_what_cannot_be_concluded_is_said(study_writer, make_trial, change, words):
    trials = change(grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33)))
    roles = {"pretrained": "arm", "weight_decay": "treatment"}
    folder = study_writer(trials, roles=roles)
    answer = answer_of(folder)
    assert answer.label == "undetermined"
    text = answer.sentence + " ".join(answer.caveats)
    assert words in text
    json.dumps(answer.to_dict(), allow_nan=False)


@pytest.mark.parametrize("roles", [{}, {"weight_decay": "treatment"}, {"pretrained": "nuisance"}])
def test_without_an_arm_role_there_is_no_comparison(study_writer, make_trial, roles):
    answer = answer_of(study_writer(grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33)), roles=roles))
    assert answer.label == "undetermined"
    assert ("no roles" in answer.sentence) == (roles == {})
    assert answer.claims == []


def test_no_number_is_made_up(study_writer, make_trial):
    """Every number that a study of one seed reports is one of its values or a difference of two."""
    trials = grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33), seeds=(0,))
    content = answer_of(study_writer(trials)).to_dict()
    for effect in content["effects"]:
        for name in ("gap", "improvement", "remaining", "closure"):
            assert effect[name]["low"] is None
            assert effect[name]["high"] is None
            assert math.isfinite(effect[name]["estimate"])
