"""Whether statements are about one checkpoint, or include the variation of pre-training."""

import json

import pandas as pd
import pytest

from study.analysis.study import Study
from study.analysis.words.checkpoint import GIVEN, PER_SEED, checkpoint_note
from study.frame import write_frames
from study.reporting.render import write_report


def study(rows: list[tuple], **manifest: object) -> Study:
    trials = pd.DataFrame(rows, columns=["stage", "pretrained", "seed", "weights_digest"])
    return Study("s", manifest, trials, pd.DataFrame())


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
    assert checkpoint_note(Study("s", {}, pd.DataFrame({"seed": [0]}), pd.DataFrame())) == ""


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
    assert "given this checkpoint" in sentence
    assert "given this checkpoint" in json.loads((folder / "verdict.json").read_text())["sentence"]
    assert "given this checkpoint" in (folder / "report.html").read_text()
