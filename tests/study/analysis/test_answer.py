"""The whole way from records to the answer, sound studies and broken ones."""

import json
import math

import numpy as np
import pytest

from study.analysis.answer import answer_study
from study.analysis.study import Study
from study.analysis.thesis.tables import comparison, reasons_to_differ, table_1_1, table_1_2
from study.analysis.words.method_notes import reading_notes
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
    assert "highest mean over the seeds is at weight decay 5e-4" in claims["C3"].reason
    assert claims["C4"].status == claims["C5"].status == "undetermined"
    content = answer.to_dict()
    assert content["verdict"] == "narrows"
    assert content["effects"][0]["gap"]["estimate"] == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize(
    ("pretrained", "words"),
    [
        (
            (0.25, 0.24, 0.23),
            "Pre-training itself does not help by more than the margin of 1 point: it gains −",
        ),
        ((0.36, 0.35, 0.34), "Pre-training itself is not shown to help by more than the margin of 1 point"),
    ],
)
def test_without_a_gap_there_is_nothing_to_close(study_writer, make_trial, pretrained, words):
    """Whether pre-training is known to be of no use, or its use is not shown, is said in different words."""
    noise = 0.05 if "shown" in words else 0.003
    answer = answer_of(study_writer(grid(make_trial, (0.30, 0.31, 0.30), pretrained, noise=noise)))
    assert answer.label == "undetermined"
    assert words in answer.sentence


def test_a_context_without_an_answer_says_why_in_the_headline(study_writer, make_trial):
    """Contexts that differ are listed in one sentence, which is all that many readers read."""
    trials = []
    for batch_size, raw in ((4, (0.25, 0.29, 0.27)), (8, (0.37, 0.38, 0.37))):
        for entry in grid(make_trial, raw, (0.36, 0.36, 0.33)):
            entry["axes"]["batch_size"] = batch_size
            trials.append(entry)
    roles = {"pretrained": "arm", "weight_decay": "treatment", "batch_size": "nuisance"}
    sentence = answer_of(study_writer(trials, roles=roles)).sentence
    assert "batch size 4: narrows, gap 1" in sentence
    assert (
        "batch size 8: undetermined (pre-training is not shown to help by more than the margin)" in sentence
    )


@pytest.mark.parametrize(
    ("raw", "train", "rate", "label", "words"),
    [
        # Behind in training, and the gap closes.
        ((0.25, 0.36, 0.30), (0.7, 0.5), 1.0, "regularization", "other regularization closes the gap"),
        ((0.25, 0.29, 0.27), (0.7, 0.5), 1.0, "both", "a gap remains"),
        ((0.25, 0.29, 0.27), (0.4, 0.5), 1.0, "initialization", "Ahead on both"),
        ((0.25, 0.29, 0.27), (0.4, 0.5), 0.1, "initialization", "Ahead on both"),
        # A lower rate of the pre-trained part lowers its training score, regularization or not.
        ((0.25, 0.29, 0.27), (0.7, 0.5), 0.1, "undetermined", "learns at 0.1 of the rate"),
    ],
)
def test_h2_follows_the_thesis_logic(study_writer, make_trial, raw, train, rate, label, words):
    trials = grid(make_trial, raw, (0.36, 0.355, 0.33), train=train, noise=0.001)
    for entry in trials:
        entry["axes"]["pretrained_lr_factor"] = rate
    (found,) = answer_of(study_writer(trials)).mechanisms
    assert found.label == label
    assert words in found.reason


def test_training_scores_with_dropout_on_conclude_nothing(study_writer, make_trial):
    trials = grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.355, 0.33))
    for entry in trials:
        entry["axes"] |= {"dropout": 0.2, "pretrained_lr_factor": 1.0}
    answer = answer_of(study_writer(trials))
    assert answer.mechanisms[0].label == "undetermined"
    assert "dropout on" in answer.mechanisms[0].reason
    # The thesis used no dropout, so none of its cells is here.
    assert answer.claims[0].status == answer.claims[1].status == "undetermined"
    assert "no trial with a weight decay of the thesis" in answer.claims[0].reason


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


def blocked_everywhere(answer):
    assert answer.label == "undetermined"
    assert {claim.status for claim in answer.claims} == {"undetermined"}
    assert {found.label for found in answer.mechanisms} == {"undetermined"}
    assert {view.label for views in answer.sensitivity for view in views} == {"undetermined"}
    assert set(answer.primary[0].by_margin.values()) == {"undetermined"}


def test_early_stopping_answers_nothing(study_writer, make_trial):
    """The best raw setting closes the gap, but was stopped at its first rung, far behind the others.

    Completed trials alone say "narrows", and so did both bounds on what stopped trials could have reached.
    """
    trials = grid(make_trial, (0.25, 0.36, 0.30), (0.36, 0.355, 0.33), noise=0.001)
    assert answer_of(study_writer(trials, name="complete")).label == "closes"
    for entry in trials:
        if not entry["axes"]["pretrained"] and entry["axes"]["weight_decay"] == 5e-4:
            entry.update(status="stopped", stop_epoch=1, stop_rung=0, curve=[0.10], epochs=4)
    answer = answer_of(study_writer(trials, name="stopped", scheduler={"name": "asha"}))
    assert answer.primary[0].by_intervals.label == "narrows"
    blocked_everywhere(answer)
    assert "Early stopping nominates candidates and never answers" in answer.sentence
    assert "completed trials alone: “narrows”" in answer.sentence


def test_a_running_study_answers_nothing_yet(study_writer, make_trial):
    """Looking after every seed would say "closes" too often."""
    trials = grid(make_trial, (0.25, 0.36, 0.30), (0.36, 0.355, 0.33), seeds=(0, 1, 2, 3), noise=0.001)
    for entry in trials[-2:]:
        entry["status"] = "unfinished"
    answer = answer_of(study_writer(trials, scheduler={"name": "asha"}))
    assert answer.primary[0].by_intervals.label == "closes"
    blocked_everywhere(answer)
    assert "interim view" in answer.sentence


def test_an_arm_that_did_not_learn_gives_no_verdict(study_writer, make_trial):
    """Every raw trial calls every pixel background; that was "does not close, 0.0 to 0.0"."""
    trials = grid(make_trial, (0.104,) * 3, (0.272,) * 3, noise=0.0)
    for entry in trials:
        entry["curve"] = [0.104] * 4 if not entry["axes"]["pretrained"] else entry["curve"]
    floor = {"constant_miou": {"semseg": {"val": 0.104}}}
    answer = answer_of(study_writer(trials, data={"name": "voc", **floor}))
    blocked_everywhere(answer)
    assert "the raw arm did not learn here" in answer.sentence
    assert "0.104" in answer.sentence
    text = render([make_page(answer)])
    assert '<h1 class="label-undetermined">Undetermined: the raw arm did not learn here</h1>' in text


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
    trials = grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33))
    for entry in trials:
        entry["axes"]["data"] = "d1"
    folder = study_writer(trials, data={"name": "d1"})
    write_frames(folder)
    study = Study.open(folder)
    table = comparison(study, "semseg")
    assert list(table["thesis"]) == [0.380, 0.411, 0.472, 0.471]
    assert table["n"].tolist() == [3] * 4
    # The synthetic records hold 0.9 × mIoU as the thesis code's metric.
    assert table["like_with_like"].iloc[0] == pytest.approx(0.9 * table["best_epoch"].iloc[0])
    assert table["difference"].iloc[0] == pytest.approx(table["like_with_like"].iloc[0] - 0.38)
    assert reasons_to_differ(study)[0].startswith("Another data protocol")


def test_c1_is_judged_on_the_grid_of_the_thesis(study_writer, make_trial):
    """On the thesis's decays raw trains better; a strong one that it did not try reverses the mean."""
    decays = (0.0, 1e-4, 5e-4, 1e-3, 2e-2)
    trials = [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "seed": seed},
            0.3 + 0.1 * pre + 0.001 * seed,
            train=0.6 + 0.002 * seed * (1 + pre) + (-0.03 if pre else (-0.6 if decay == 2e-2 else 0.03)),
        )
        for seed in range(4)
        for pre in (False, True)
        for decay in decays
    ]
    claim = answer_of(study_writer(trials)).claims[0]
    assert claim.status == "supported"
    assert claim.effects[0].interval.estimate == pytest.approx(0.06, abs=0.005)
    assert "weight decay 0, 1e-4, 5e-4, 1e-3" in claim.effects[0].what


def test_c3_names_the_best_setting_with_none_among_them(study_writer, make_trial):
    """The best regularized setting is worse than none."""
    trials = grid(make_trial, (0.30, 0.27, 0.28), (0.36, 0.36, 0.33), noise=0.001)
    claim = answer_of(study_writer(trials)).claims[2]
    assert claim.status == "contradicted"
    assert claim.effects[0].interval.estimate < 0
    assert "highest mean over the seeds is without weight decay" in claim.reason


def test_nothing_is_supported_that_the_verdict_contradicts(study_writer, make_trial):
    trials = grid(make_trial, (0.25, 0.36, 0.30), (0.36, 0.355, 0.33), noise=0.001)
    answer = answer_of(study_writer(trials))
    assert answer.label == "closes"
    assert answer.claims[2].status != "supported"


def test_claims_are_corrected_for_their_number(study_writer, make_trial):
    """One of many contexts stands out by chance; alone it would be significant."""
    rng = np.random.default_rng(4)
    fractions = [round(0.1 * index, 1) for index in range(1, 9)]
    trials = [
        make_trial(
            {"pretrained": pre, "weight_decay": 0.0, "label_fraction": fraction, "seed": seed},
            float(0.3 + 0.01 * seed + rng.normal(0, 0.01)), train=float(0.5 + rng.normal(0, 0.01)),
        )
        for seed in range(4)
        for fraction in fractions
        for pre in (False, True)
    ]  # fmt: skip
    roles = {"pretrained": "arm", "label_fraction": "nuisance", "weight_decay": "treatment"}
    effects = [
        effect for claim in answer_of(study_writer(trials, roles=roles)).claims for effect in claim.effects
    ]
    assert min(effect.p for effect in effects if effect.p == effect.p) < 0.05
    assert all(effect.side == "" for effect in effects)
    assert all(effect.adjusted_p >= effect.p for effect in effects if effect.p == effect.p)


def test_a_large_gap_is_more_than_a_margin(study_writer, make_trial):
    """Two points help, but the thesis's large gap was 9 and 7.5."""
    rng = np.random.default_rng(0)
    trials = [
        make_trial(
            {"pretrained": pre, "tasks": tasks, "seed": seed},
            float(value + rng.normal(0, 0.001)),
            tasks=tasks,
        )
        for seed in range(4)
        for pre in (False, True)
        for tasks, value in ((["semseg"], 0.3), (["parts"], 0.3), (["semseg", "parts"], 0.32))
    ]
    folder = study_writer(trials, roles={"pretrained": "arm", "tasks": "arm"}, space="multitask")
    claim = answer_of(folder).claims[3]
    assert claim.status == "contradicted"
    assert "more than 5 points" in claim.reason
    assert "helps by more than the margin of 1 point in 2 of 2" in claim.reason


def test_regularization_that_every_trial_has_is_named(study_writer, make_trial):
    trials = [
        make_trial(
            {"pretrained": pre, "label_smoothing": level, "weight_decay": 5e-4, "seed": seed}, 0.3 + 0.1 * pre
        )
        for seed in range(3)
        for pre in (False, True)
        for level in (0.0, 0.1)
    ]
    answer = answer_of(study_writer(trials, roles={"pretrained": "arm", "label_smoothing": "treatment"}))
    notes = reading_notes(answer.study, answer.primary)
    assert any("Every trial has weight decay 5e-4, the reference included" in note for note in notes)


def test_a_longer_schedule_is_no_regularization(study_writer, make_trial):
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
    assert any("no regularizer" in note for note in reading_notes(answer.study, answer.primary))


@pytest.mark.parametrize(("scale", "shown"), [(1.0, False), (3.0, True)])
def test_equal_compute_needs_different_work(study_writer, make_trial, scale, shown):
    """Measured times of the same epochs differ by the noise of the machine."""
    trials = grid(make_trial, (0.25, 0.29, 0.27), (0.36, 0.36, 0.33))
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
