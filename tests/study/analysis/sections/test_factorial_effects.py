"""Effects of a study's regularizers: per arm, between arms, and with trials that have no final value."""

import itertools

import numpy as np
import pytest

from study.analysis.answering.design import AnsweringDesign
from study.analysis.sections.factorial_effects import (
    BOTH,
    DIFFERENCE,
    PRETRAINED,
    RAW,
    SIGNIFICANT,
    effect_sentences,
    factorial_effects,
)
from study.analysis.study import Study
from study.frame import write_frames

ROLES = {
    "pretrained": "arm",
    "weight_decay": "treatment",
    "dropout": "treatment",
    "label_smoothing": "treatment",
    "seed": "seed",
}
AXES = {"weight_decay": (0.0, 5e-4), "dropout": (0.0, 0.2), "label_smoothing": (0.0, 0.1)}


def cells(seeds=(0,)):
    for pretrained, *levels, seed in itertools.product((False, True), *AXES.values(), seeds):
        yield {"pretrained": pretrained, "seed": seed} | dict(zip(AXES, levels, strict=True))


@pytest.fixture
def make_study(study_writer, make_trial):
    def make(mean, seeds=(0,), sd=0.0, change=None, roles=None):
        rng = np.random.default_rng(5)
        trials = []
        for number, axes in enumerate(cells(seeds)):
            entry = make_trial(axes, float(mean(axes) + sd * rng.normal()))
            trials.append((change or (lambda _, entry: entry))(number, entry))
        folder = study_writer(trials, roles=roles or ROLES)
        write_frames(folder)
        return Study.open(folder)

    return make


def estimate(effects, response, axis, column="estimate"):
    table = effects.table
    rows = table[(table["response"] == response) & (table["axis"] == axis) & (table["kind"] == "main")]
    assert len(rows) == 1
    return rows[column].iloc[0]


def helps_raw_only(axes):
    gain = 0.02 * (axes["dropout"] > 0) * (not axes["pretrained"])
    return 0.25 + 0.1 * axes["pretrained"] + gain + 0.01 * (axes["weight_decay"] > 0)


def test_a_factor_that_helps_raw_only_shows_in_raw_and_in_the_difference(make_study):
    (effects,) = factorial_effects(make_study(helps_raw_only), "semseg")
    assert effects.responses == [BOTH, RAW, PRETRAINED, DIFFERENCE]
    assert estimate(effects, RAW, "dropout") == pytest.approx(0.02)
    assert estimate(effects, PRETRAINED, "dropout") == pytest.approx(0.0)
    assert estimate(effects, BOTH, "dropout") == pytest.approx(0.01)
    assert estimate(effects, DIFFERENCE, "dropout") == pytest.approx(0.02)
    assert estimate(effects, DIFFERENCE, "weight_decay") == pytest.approx(0.0)


def test_each_arm_has_an_error_of_its_own(make_study):
    study = make_study(helps_raw_only, seeds=(0, 1, 2))
    noise = np.random.default_rng(0).normal(size=len(study.trials))
    raw = ~study.trials["pretrained"].astype(bool)
    study.trials["last_semseg_val_miou"] += noise * np.where(raw, 0.02, 0.002)
    (effects,) = factorial_effects(study, "semseg")
    raw_sd, pretrained_sd = effects.errors[RAW, "main"].sd, effects.errors[PRETRAINED, "main"].sd
    assert raw_sd == pytest.approx(0.02, rel=0.5)
    assert pretrained_sd == pytest.approx(0.002, rel=0.5)


def test_a_diverged_trial_counts_with_the_floor_and_survivors_are_shown_too(make_study):
    def diverge(number, entry):
        return entry | {"status": "diverged"} if entry["axes"]["dropout"] > 0 and number < 4 else entry

    study = make_study(helps_raw_only, change=diverge)
    assert (study.trials["status"] == "diverged").sum() == 2
    study.trials["semseg_val_constant_miou"] = 0.1
    (effects,) = factorial_effects(study, "semseg")
    assert effects.used.counts["diverged"] == 2
    assert estimate(effects, RAW, "dropout") == pytest.approx(0.02 - 2 * (0.27 - 0.1) / 4, abs=1e-6)
    survivors = effects.survivors
    row = survivors[(survivors["response"] == RAW) & (survivors["axis"] == "dropout")].iloc[0]
    assert row["estimate"] == pytest.approx(0.02)


def test_failed_trials_are_missing_values(make_study):
    def fail(number, entry):
        return entry | {"status": "failed"} if number == 3 else entry

    study = make_study(helps_raw_only, change=fail)
    (effects,) = factorial_effects(study, "semseg")
    assert estimate(effects, RAW, "dropout") == pytest.approx(0.02)
    assert effects.survivors is None


def test_stopped_trials_move_the_comparison_to_an_epoch_that_all_reached(make_study):
    # Curves rise to 0.4, 0.7, 0.9 and 1 times the final value; half of the trials are stopped after epoch 2.
    def stop(number, entry):
        if number % 2:
            return entry | {"curve": entry["curve"][:2], "status": "stopped", "stop_epoch": 2, "epochs": 4}
        return entry

    (effects,) = factorial_effects(make_study(helps_raw_only, change=stop), "semseg")
    assert effects.used.fraction == pytest.approx(0.5)
    assert "50 %" in effects.used.when
    assert estimate(effects, RAW, "dropout") == pytest.approx(0.7 * 0.02)


def test_seeds_on_which_only_candidates_were_trained_are_left_out(make_study):
    study = make_study(helps_raw_only, seeds=(0, 1))
    keep = (study.trials["seed"] == 0) | (study.trials["dropout"] > 0)
    candidates_only = Study(study.name, study.manifest, study.trials[keep], study.epochs)
    (effects,) = factorial_effects(candidates_only, "semseg")
    assert effects.seeds == (0,)


def test_holm_counts_the_effects_of_all_contexts(make_study):
    study = make_study(helps_raw_only, sd=0.005, roles=ROLES | {"label_smoothing": "nuisance"}, seeds=(0, 1))
    effects = factorial_effects(study, "semseg")
    assert [each.context for each in effects] == ["label smoothing 0", "label smoothing 0.1"]
    p = [estimate(each, RAW, axis, "p") for each in effects for axis in ("weight_decay", "dropout")]
    adjusted = [
        estimate(each, RAW, axis, "adjusted_p") for each in effects for axis in ("weight_decay", "dropout")
    ]
    assert min(adjusted) == pytest.approx(min(1.0, 4 * min(p)))


def test_a_study_without_treatments_has_no_effects(make_study):
    study = make_study(helps_raw_only, roles={"pretrained": "arm"})
    assert factorial_effects(study, "semseg") == []


def test_a_clear_effect_is_found_at_one_seed(make_study):
    (effects,) = factorial_effects(make_study(helps_raw_only, sd=0.001), "semseg")
    assert estimate(effects, DIFFERENCE, "dropout", "adjusted_p") < SIGNIFICANT
    assert estimate(effects, DIFFERENCE, "label_smoothing", "adjusted_p") > SIGNIFICANT


def test_one_axis_needs_several_seeds(make_study):
    roles = {"pretrained": "arm", "dropout": "treatment", "seed": "seed"}
    study = make_study(helps_raw_only, seeds=(0, 1, 2), sd=0.003, roles=roles)
    trials = study.trials.drop_duplicates(["pretrained", "dropout", "seed"])
    one_seed = Study(study.name, study.manifest, trials[trials["seed"] == 0], study.epochs)
    assert factorial_effects(one_seed, "semseg") == []
    (effects,) = factorial_effects(Study(study.name, study.manifest, trials, study.epochs), "semseg")
    assert effects.errors[RAW, "main"].degrees == 2


def test_the_answering_stage_answers_for_a_single_axis_in_the_raw_arm(make_study):
    """A second estimate on fewer of the same seeds could call an effect shown that the verdict does not."""
    roles = {"pretrained": "arm", "dropout": "treatment", "seed": "seed"}
    study = make_study(helps_raw_only, seeds=(0, 1, 2), sd=0.003, roles=roles)
    trials = study.trials.drop_duplicates(["pretrained", "dropout", "seed"])
    design = AnsweringDesign(max_seeds=6, looks=(3, 6)).to_dict()
    two_stages = Study(study.name, study.manifest | {"design": design}, trials, study.epochs)
    (effects,) = factorial_effects(two_stages, "semseg")
    assert effects.responses == [BOTH, PRETRAINED, DIFFERENCE]
    assert not any("raw arm" in sentence for sentence in effect_sentences(effects))
    raw_only = Study(study.name, two_stages.manifest, trials[~trials["pretrained"]], study.epochs)
    assert factorial_effects(raw_only, "semseg") == []
