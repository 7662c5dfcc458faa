"""Notes beside the verdict: which pre-training it is about, how settings were chosen, what was planned."""

import json

import pandas as pd
import pytest

from study.analysis.answering.design import AnsweringDesign
from study.analysis.caveats_and_notes import (
    GIVEN,
    PER_SEED,
    checkpoint_note,
    planned_sentence,
    reading_notes,
)
from study.analysis.study import Study
from study.frame import write_frames
from study.reporting.render import write_report


def study(rows: list[tuple], **manifest: object) -> Study:
    trials = pd.DataFrame(rows, columns=["stage", "pretrained", "seed", "weights_digest"])
    return Study("s", manifest, trials.assign(tasks="semseg", multi_task=False, arm="raw"), pd.DataFrame())


@pytest.mark.parametrize(
    ("digests", "note"),
    [
        (["a", "a", "a"], GIVEN),
        (["a", "b", "c"], PER_SEED),
        (["a", "a", "b"], GIVEN),
        (["", "", ""], ""),
    ],
)
def test_the_files_that_answering_trials_used_decide(digests, note):
    rows = [("answering", True, seed, digest) for seed, digest in enumerate(digests)]
    raw = [("answering", False, seed, "") for seed in range(3)]
    # All screening seeds share a pre-training, also where each answering seed has its own.
    screening = [("screening", True, seed, "s") for seed in (7, 8)]
    assert checkpoint_note(study([*rows, *raw, *screening])) == note


def test_of_a_single_seed_the_manifest_knows():
    rows = [("answering", True, 0, "a")]
    assert checkpoint_note(study(rows)) == GIVEN
    assert checkpoint_note(study(rows, weights={"per_seed": True})) == PER_SEED


def test_frames_without_digests_say_nothing():
    known = study([("answering", True, 0, "a")])
    trials = known.trials.drop(columns="weights_digest")
    assert checkpoint_note(Study("s", {}, trials, pd.DataFrame())) == ""


def test_sentence_report_and_verdict_say_it(study_writer, make_trial):
    trials = [
        make_trial({"pretrained": pretrained, "weight_decay": decay, "seed": seed}, 0.3 + 0.2 * pretrained)
        for pretrained in (False, True)
        for decay in (0.0, 1e-3)
        for seed in range(3)
    ]
    folder = study_writer(trials)
    for path in (folder / "trials").glob("*/records.json"):
        records = json.loads(path.read_text())
        records["facts"]["weights_digest"] = "c" * 64
        path.write_text(json.dumps(records))
    write_frames(folder)
    sentence = write_report(folder, files=False)
    assert "hold for this checkpoint only" in sentence
    assert "hold for this checkpoint only" in json.loads((folder / "verdict.json").read_text())["sentence"]
    assert "hold for this checkpoint only" in (folder / "report.html").read_text()


@pytest.fixture
def notes(study_writer, answer_of, make_trial):
    """Notes on a study of one stage with these raw values, by weight decay and seed."""

    def write(raw):
        trials = [
            make_trial(
                {"pretrained": pre, "weight_decay": decay, "seed": seed},
                0.4 + 0.001 * seed + 0.02 * (decay > 0) if pre else raw[decay][seed],
            )
            for seed in range(3)
            for pre in (False, True)
            for decay in (0.0, 1e-3, 5e-3)
        ]
        answer = answer_of(study_writer(trials))
        return " ".join(reading_notes(answer.study, answer.primary, answer.tunings))

    return write


def test_where_all_seeds_choose_the_same_setting_its_values_are_the_winners_own(notes):
    found = notes({0.0: (0.20, 0.21, 0.22), 1e-3: (0.23, 0.24, 0.25), 5e-3: (0.26, 0.27, 0.28)})
    assert "its scores are the winner's" in found
    assert "raw is best" not in found


def test_seeds_that_disagree_are_counted(notes):
    found = notes({0.0: (0.20, 0.21, 0.22), 1e-3: (0.23, 0.28, 0.24), 5e-3: (0.26, 0.24, 0.28)})
    assert "raw is best at weight decay" in found
    assert "of 3" in found


def test_a_plan_says_what_it_can_detect():
    found = planned_sentence(AnsweringDesign())
    assert "a difference 0.9 points beyond its threshold in 80 % of studies with 26 seeds" in found
    assert "no difference" in planned_sentence(AnsweringDesign.single_look(2))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"val_images": 12}, "12 validation images"),
        ({"val_images": 1}, "1 validation image,"),
        ({"val_images": 12, "test_images": 0}, "12 validation images"),
        ({"val_images": 300, "test_images": 29}, "29 test images"),
        ({"val_images": 12, "test_images": 30}, ""),
        ({"val_images": 30}, ""),
        ({}, ""),
    ],
)
def test_few_scored_images_are_a_caveat(study_writer, answer_of, make_trial, data, words):
    trials = [
        make_trial({"pretrained": pre, "weight_decay": decay, "seed": 0}, 0.3 + pre / 10)
        for pre in (False, True)
        for decay in (0.0, 1e-3)
    ]
    found = [each for each in answer_of(study_writer(trials, data=data)).caveats if "image" in each]
    assert [words in each for each in found] == [True] * bool(words)
