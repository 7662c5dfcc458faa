"""The whole way from records to the answer, sound studies and broken ones."""

import importlib
import json
import math
import re

import numpy as np
import pytest

from study.analysis.answer import answer_study
from study.analysis.caveats_and_notes import reading_notes
from study.analysis.study import Study
from study.frame import write_frames
from study.reporting.render import make_page, render


def test_a_known_effect_is_found(study_writer, answer_of, grid):
    answer = answer_of(study_writer(grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33))))
    assert answer.label == "narrows"
    headline, numbers, rest = answer.lines
    assert headline.startswith(
        "In part: weight decay narrows the gap to pre-training here without closing it ("
    )
    assert "figures (synthetic)" in headline
    assert re.match(r"Mean validation mIoU of 3 seeds: 0\.3\d\d pre-trained, 0\.2\d\d raw, 0\.", numbers)
    assert "raw with weight decay 5e-4. Of the gap, " in numbers
    assert numbers.endswith(" remain.")
    assert "Not tested: dropout, longer training and multi-task training." in rest
    assert answer.sentence == " ".join(answer.lines)
    claims = {claim.name: claim for claim in answer.sections["claims"]}
    assert claims["C1"].status == "supported"
    assert claims["C2"].status == "supported"
    assert claims["C3"].status == "supported"
    assert "highest mean over the seeds is at weight decay 5e-4" in claims["C3"].reason
    assert claims["C4"].status == claims["C5"].status == "undetermined"
    content = answer.to_dict()
    assert content["verdict"] == "narrows"
    assert content["effects"][0]["gap"]["estimate"] == pytest.approx(0.11, abs=0.01)


def test_the_answer_depends_on_no_section(study_writer, grid, answer_of, monkeypatch):
    folder = study_writer(grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33)))
    whole = answer_of(folder).to_dict()
    monkeypatch.setattr(importlib.import_module("study.analysis.answer"), "SECTIONS", {})
    alone = answer_of(folder).to_dict()
    sections = {"h2", "claims", "labels_needed", "factorial_effects", "response_surfaces"}
    assert alone == {key: value for key, value in whole.items() if key not in sections}
    assert whole.keys() - alone.keys() == sections


@pytest.mark.parametrize(
    ("pretrained", "noise", "label", "words"),
    [
        ((0.20, 0.19, 0.18), 0.003, "hurts", "Pre-training loses 9.6 points"),
        ((0.30, 0.29, 0.28), 0.001, "not needed", "Pre-training is not needed here"),
        (
            (0.36, 0.35, 0.34),
            0.05,
            "undetermined",
            "Pre-training itself is not shown to help by more than the",
        ),
    ],
)
def test_without_a_gap_there_is_nothing_to_close(
    study_writer, answer_of, grid, pretrained, noise, label, words
):
    """Harm, no use, and a use that is not shown are different answers to "do I need pre-training?"."""
    answer = answer_of(study_writer(grid((0.30, 0.31, 0.30), pretrained, noise=noise)))
    assert answer.label == label
    assert words in answer.sentence
    assert "of the gap" not in answer.sentence


def test_a_context_without_an_answer_says_why_in_the_headline(study_writer, answer_of, grid):
    """Contexts that differ are listed in one sentence, which is all that many readers read."""
    trials = []
    for batch_size, raw in ((4, (0.25, 0.29, 0.27)), (8, (0.37, 0.38, 0.37))):
        for entry in grid(raw, (0.36, 0.36, 0.33)):
            entry["axes"]["batch_size"] = batch_size
            trials.append(entry)
    roles = {"pretrained": "arm", "weight_decay": "treatment", "batch_size": "nuisance"}
    sentence = answer_of(study_writer(trials, roles=roles)).sentence
    assert "Batch size 4: narrows, gap 1" in sentence
    assert "Batch size 8: not needed, gap −0.9 points" in sentence


def blocked_everywhere(answer):
    assert answer.label == "undetermined"
    assert {claim.status for claim in answer.sections["claims"]} == {"undetermined"}
    assert {found.label for found in answer.sections["h2"]} == {"undetermined"}
    assert {view.label for views in answer.sensitivity for view in views} == {"undetermined"}
    assert set(answer.primary[0].by_margin.values()) == {"undetermined"}


def test_early_stopping_answers_nothing(study_writer, answer_of, grid):
    """The best raw setting closes the gap, but was stopped at its first rung, far behind the others.

    Completed trials alone say "narrows", and so did both bounds on what stopped trials could have reached.
    """
    trials = grid((0.25, 0.36, 0.30), (0.36, 0.355, 0.33), noise=0.001)
    assert answer_of(study_writer(trials, name="complete")).label == "closes"
    for entry in trials:
        if not entry["axes"]["pretrained"] and entry["axes"]["weight_decay"] == 5e-4:
            entry.update(status="stopped", stop_epoch=1, stop_rung=0, curve=[0.10], epochs=4)
    answer = answer_of(study_writer(trials, name="stopped", scheduler={"name": "asha"}))
    assert answer.primary[0].by_intervals.label == "narrows"
    blocked_everywhere(answer)
    assert "Early stopping nominates candidates and never answers" in answer.sentence
    assert "completed trials alone: “narrows”" in answer.sentence


def test_a_running_study_answers_nothing_yet(study_writer, answer_of, grid):
    """Looking after every seed would say "closes" too often."""
    trials = grid((0.25, 0.36, 0.30), (0.36, 0.355, 0.33), seeds=(0, 1, 2, 3), noise=0.001)
    for entry in trials[-2:]:
        entry["status"] = "unfinished"
    answer = answer_of(study_writer(trials, scheduler={"name": "asha"}))
    assert answer.primary[0].by_intervals.label == "closes"
    blocked_everywhere(answer)
    assert "interim view" in answer.sentence


def test_an_arm_that_did_not_learn_gives_no_verdict(study_writer, answer_of, grid):
    """Every raw trial calls every pixel background; that was "does not close, 0.0 to 0.0"."""
    trials = grid((0.104,) * 3, (0.272,) * 3, noise=0.0)
    for entry in trials:
        entry["curve"] = [0.104] * 4 if not entry["axes"]["pretrained"] else entry["curve"]
    floor = {"constant_miou": {"semseg": {"val": 0.104}}}
    answer = answer_of(study_writer(trials, data={"name": "voc", **floor}))
    blocked_everywhere(answer)
    assert "the raw arm did not learn here" in answer.sentence
    assert "0.104" in answer.sentence
    text = render([make_page(answer)])
    assert '<h1 class="label-undetermined">Undetermined: the raw arm did not learn here (' in text


def test_regularization_that_every_trial_has_is_named(study_writer, answer_of, make_trial):
    trials = [
        make_trial(
            {"pretrained": pre, "label_smoothing": level, "weight_decay": 5e-4, "seed": seed}, 0.3 + 0.1 * pre
        )
        for seed in range(3)
        for pre in (False, True)
        for level in (0.0, 0.1)
    ]
    answer = answer_of(study_writer(trials, roles={"pretrained": "arm", "label_smoothing": "treatment"}))
    notes = reading_notes(answer.study, answer.primary, answer.tunings)
    assert any("Every trial has weight decay 5e-4, the reference included" in note for note in notes)


def test_a_longer_schedule_is_no_regularization(study_writer, answer_of, make_trial):
    """The threefold schedule alone closes the gap; without it nothing does."""
    rng = np.random.default_rng(0)
    trials = [
        make_trial(
            {"pretrained": pre, "label_smoothing": level, "epochs_factor": factor, "seed": seed},
            float(0.4 if pre or factor == 3 else 0.3 + level / 10 + rng.normal(0, 0.002)) + 0.001 * seed,
            epochs=4 * factor,
        )
        for seed in range(4)
        for pre in (False, True)
        for level in (0.0, 0.1)
        for factor in (1, 3)
    ]
    roles = {"pretrained": "arm", "label_smoothing": "treatment", "epochs_factor": "treatment"}
    answer = answer_of(study_writer(trials, roles=roles))
    views = {view.name: view for view in answer.sensitivity[0]}
    assert views["primary"].contrasts.remaining.estimate == pytest.approx(0, abs=0.005)
    assert views["same schedule"].contrasts.remaining.estimate == pytest.approx(0.09, abs=0.01)
    assert any(
        "not a regularizer" in note for note in reading_notes(answer.study, answer.primary, answer.tunings)
    )


@pytest.mark.parametrize(("scale", "shown"), [(1.0, False), (3.0, True)])
def test_equal_compute_needs_different_work(study_writer, grid, scale, shown):
    """Measured times of the same epochs differ by the noise of the machine."""
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33))
    for entry in trials:
        if not entry["axes"]["pretrained"] and scale > 1:
            entry["curve"] = [value for value in entry["curve"] for _ in range(int(scale))]
    folder = study_writer(trials)
    write_frames(folder)
    study = Study.open(folder)
    of_raw = study.trials.loc[~study.trials["pretrained"].astype(bool), "trial_id"]
    slow = study.epochs["trial_id"].isin(of_raw)
    study.epochs.loc[slow, "seconds"] *= 1.5
    names = [view.name for view in answer_study(study).sensitivity[0]]
    assert ("equal compute" in names) is shown


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
            "One seed is too few for an interval",
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
def test_what_cannot_be_concluded_is_said(study_writer, answer_of, grid, change, words):
    trials = change(grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33)))
    roles = {"pretrained": "arm", "weight_decay": "treatment"}
    folder = study_writer(trials, roles=roles)
    answer = answer_of(folder)
    assert answer.label == "undetermined"
    text = answer.sentence + " ".join(answer.caveats)
    assert words in text
    json.dumps(answer.to_dict(), allow_nan=False)


@pytest.mark.parametrize("roles", [{}, {"weight_decay": "treatment"}, {"pretrained": "nuisance"}])
def test_without_an_arm_role_there_is_no_comparison(study_writer, answer_of, grid, roles):
    answer = answer_of(study_writer(grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33)), roles=roles))
    assert answer.label == "undetermined"
    assert ("no roles" in answer.sentence) == (roles == {})
    assert answer.sections["claims"] == []


def test_no_number_is_made_up(study_writer, answer_of, grid):
    """Every number that a study of one seed reports is one of its values or a difference of two."""
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33), seeds=(0,))
    content = answer_of(study_writer(trials)).to_dict()
    for effect in content["effects"]:
        for name in ("gap", "improvement", "remaining", "closure"):
            assert effect[name]["low"] is None
            assert effect[name]["high"] is None
            assert math.isfinite(effect[name]["estimate"])


def test_a_gap_between_two_settings_names_both(study_writer, make_trial, answer_of):
    """A pre-trained arm that is best with weight decay is not compared with raw at equal settings."""
    gains = {(False, 0.0): 0.20, (False, 5e-4): 0.23, (True, 0.0): 0.20, (True, 5e-4): 0.215}
    rng = np.random.default_rng(0)
    trials = [
        make_trial({"pretrained": arm, "weight_decay": decay, "seed": seed}, [mean + rng.normal(0, 0.01)])
        for (arm, decay), mean in gains.items()
        for seed in range(4)
    ]
    answer = answer_of(study_writer(trials))
    assert answer.label == "undetermined"
    assert re.search(
        r"it gains [\d.]+ points \(.*?\) with weight decay 5e-4 on raw with weight decay 0, so",
        answer.lines[1],
    )
