"""Claims C1–C5 and hypothesis H2 on studies whose effects are known, and on the thesis's own numbers."""

import numpy as np
import pytest

from study.analysis.answer import answer_study
from study.analysis.answering.design import AnsweringDesign
from study.analysis.intervals import Interval
from study.analysis.sections.thesis_claims import Effect, adjust, p_value
from study.analysis.sections.thesis_numbers import comparison, reasons_to_differ
from study.reporting.render import make_page, render
from tests.study.published import table_1_1, table_1_2

LOOKS = AnsweringDesign().looks


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
def test_h2_follows_the_thesis_logic(study_writer, answer_of, grid, raw, train, rate, label, words):
    trials = grid(raw, (0.36, 0.355, 0.33), train=train, noise=0.001)
    for entry in trials:
        entry["axes"]["pretrained_lr_factor"] = rate
    (found,) = answer_of(study_writer(trials)).sections["h2"]
    assert found.label == label
    assert words in found.reason


def test_training_scores_with_dropout_on_conclude_nothing(study_writer, answer_of, grid):
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.355, 0.33))
    for entry in trials:
        entry["axes"] |= {"dropout": 0.2, "pretrained_lr_factor": 1.0}
    answer = answer_of(study_writer(trials))
    assert answer.sections["h2"][0].label == "undetermined"
    assert "dropout on" in answer.sections["h2"][0].reason
    # The thesis used no dropout, so none of its cells is here.
    assert answer.sections["claims"][0].status == answer.sections["claims"][1].status == "undetermined"
    assert "no trial with a weight decay of the thesis" in answer.sections["claims"][0].reason


def test_clean_training_scores_decide_where_every_trial_has_them(study_writer, answer_of, grid):
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.355, 0.33), train=(0.4, 0.6))
    rng = np.random.default_rng(2)
    for entry in trials:
        entry["axes"] |= {"dropout": 0.2, "pretrained_lr_factor": 1.0}
        # Without augmentation and dropout it is raw that is ahead.
        entry["clean"] = 0.7 - 0.1 * entry["axes"]["pretrained"] + float(rng.normal(0, 0.003))
    answer = answer_of(study_writer(trials))
    assert answer.sections["h2"][0].label == "both"
    del trials[0]["clean"]
    answer = answer_of(study_writer(trials, name="one-without"))
    assert "dropout on" in answer.sections["h2"][0].reason


def test_claims_are_judged_on_own_images_where_the_space_says_so(study_writer, answer_of, grid):
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.355, 0.33), data="folder")
    for claims in (False, True):
        answer = answer_of(study_writer(trials, name=f"claims-{claims}", claims=claims))
        assert bool(answer.sections["claims"]) is claims


def test_a_contradicted_claim_is_reported(study_writer, answer_of, grid):
    trials = grid((0.36, 0.36, 0.36), (0.25, 0.25, 0.25), train=(0.4, 0.6))
    claims = {claim.name: claim.status for claim in answer_of(study_writer(trials)).sections["claims"]}
    assert claims["C1"] == claims["C2"] == "contradicted"


@pytest.fixture
def multi_task_answer(study_writer, answer_of, make_trial):
    """`multi_task_answer(raw, pretrained)`: scores of single-task and multi-task trials of each arm."""

    def make(raw, pretrained):
        rng = np.random.default_rng(0)
        trials = [
            make_trial(
                {"pretrained": pre, "tasks": tasks, "seed": seed},
                float(scores[len(tasks) - 1] + rng.normal(0, 0.001)),
                tasks=tasks,
            )
            for seed in range(4)
            for pre, scores in ((False, raw), (True, pretrained))
            for tasks in (["semseg"], ["parts"], ["semseg", "parts"])
        ]
        return answer_of(study_writer(trials, roles={"pretrained": "arm", "tasks": "arm"}, space="multitask"))

    return make


@pytest.mark.parametrize(
    ("multi_raw", "multi_pre", "c4", "c5"),
    [
        (0.40, 0.49, "supported", "supported"),
        (0.30, 0.56, "contradicted", "contradicted"),
    ],
)
def test_multi_task_claims(multi_task_answer, multi_raw, multi_pre, c4, c5):
    answer = multi_task_answer((0.3, multi_raw), (0.5, multi_pre))
    claims = {claim.name: claim.status for claim in answer.sections["claims"]}
    assert (claims["C4"], claims["C5"]) == (c4, c5)
    assert list(answer.verdicts) == ["semseg", "parts"]
    assert "multi-task training" in answer.sentence
    assert "Multi-task training counts as regularization here" in render([make_page(answer)])


def test_the_thesis_table_says_what_the_thesis_says():
    answer = answer_study(table_1_2())
    assert answer.label == "undetermined"
    found = answer.primary[0].contrasts
    # 41.1 − 38.0 of 47.4 − 38.0.
    assert found.closure.estimate == pytest.approx(3.1 / 9.4)
    assert found.best_raw.usual == "weight decay 5e-4"
    for claim in answer.sections["claims"][:3]:
        assert claim.status == "undetermined"
        assert "the thesis's way, but one seed is too few for an interval" in claim.reason
    assert (
        "is at weight decay 5e-4 of {0, 1e-4, 5e-4, 1e-3}; in the thesis at 5e-4"
        in answer.sections["claims"][2].reason
    )
    estimates = [
        effect.interval.estimate for claim in answer.sections["claims"][:2] for effect in claim.effects
    ]
    # Means over the four weight decays of Table 1.2: training (raw ahead), validation (pre-trained ahead).
    assert estimates == pytest.approx([(3.7 + 7.5 + 7.1 + 5.5) / 400, (9.2 + 7.6 + 6.0 + 6.0) / 400])


def test_the_backbones_of_the_thesis_are_three_contexts():
    answer = answer_study(table_1_1())
    gaps = {verdict.context.label: verdict.contrasts.gap.estimate for verdict in answer.primary}
    assert gaps == pytest.approx(
        {"backbone alexnet": 0.073, "backbone resnet18": 0.06, "backbone vgg16": 0.125}
    )
    assert "no stand-in" in answer.sentence
    c1 = answer.sections["claims"][0]
    assert [effect.interval.estimate for effect in c1.effects] == pytest.approx([-0.026, 0.071, 0.037])
    assert "both ways" in c1.reason


@pytest.mark.parametrize(
    ("data", "model", "epochs", "differs"),
    [
        ("d1-half", "fcn32s", (300, 100), ["Another half of D1"]),
        ("d1", "fcn32s", (300, 100), ["Another data protocol"]),
        ("d1-half", "fcn32s", (300, 90), ["Another half of D1", "Another schedule"]),
        ("d3", "sunet64", (300, 90), []),
        ("d3", "sunet64", (300, 100), ["Another schedule"]),
        ("d3", "fcn32s", (300, 100), ["Another data protocol"]),
    ],
)
def test_a_study_of_the_thesiss_own_protocol_is_told_only_what_differs(
    study_writer, answer_of, grid, data, model, epochs, differs
):
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33), data=data)
    for entry in trials:
        entry["axes"]["model"] = model
        entry["epochs"] = epochs[entry["axes"]["pretrained"]]
    reasons = reasons_to_differ(answer_of(study_writer(trials)).study)
    words = ("Another", "narrower", "7 × 7 average pool")
    found = [reason for reason in reasons if any(word in reason for word in words)]
    pooled = ["The thesis kept"] if model == "fcn32s" else []
    assert len(found) == len([*differs, *pooled])
    assert all(reason.startswith(start) for reason, start in zip(found, [*differs, *pooled], strict=True))


def test_the_comparison_says_the_data_protocol_first(study_writer, grid, answer_of):
    trials = grid((0.25, 0.29, 0.27), (0.36, 0.36, 0.33))
    for entry in trials:
        entry["axes"]["data"] = "d1"
    study = answer_of(study_writer(trials, data={"name": "d1"})).study
    table = comparison(study, "semseg")
    assert list(table["thesis"]) == [0.380, 0.411, 0.472, 0.471]
    assert table["n"].tolist() == [3] * 4
    # The synthetic records hold 0.9 × mIoU as the thesis code's metric.
    assert table["like_with_like"].iloc[0] == pytest.approx(0.9 * table["best_epoch"].iloc[0])
    assert table["difference"].iloc[0] == pytest.approx(table["like_with_like"].iloc[0] - 0.38)
    assert reasons_to_differ(study)[0].startswith("Another data protocol")


def test_c1_is_judged_on_the_grid_of_the_thesis(study_writer, answer_of, make_trial):
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
    claim = answer_of(study_writer(trials)).sections["claims"][0]
    assert claim.status == "supported"
    assert claim.effects[0].interval.estimate == pytest.approx(0.06, abs=0.005)
    assert "weight decay 0, 1e-4, 5e-4, 1e-3" in claim.effects[0].what


def test_c3_names_the_best_setting_with_none_among_them(study_writer, answer_of, grid):
    """The best regularized setting is worse than none."""
    trials = grid((0.30, 0.27, 0.28), (0.36, 0.36, 0.33), noise=0.001)
    claim = answer_of(study_writer(trials)).sections["claims"][2]
    assert claim.status == "contradicted"
    assert claim.effects[0].interval.estimate < 0
    assert "highest mean over the seeds is without weight decay" in claim.reason


def test_c3_gives_the_sum_of_rate_and_decay(study_writer, answer_of, grid):
    """120 images by tens for 300 epochs, at 0.1 and half of it on average: 180 × weight decay."""
    trials = grid((0.30, 0.33, 0.28), (0.36, 0.36, 0.33), noise=0.001)
    for entry in trials:
        entry["axes"] |= {"learning_rate": 0.1, "batch_size": 10, "epochs": 300}
    claim = answer_of(study_writer(trials)).sections["claims"][2]
    decays = sorted({entry["axes"]["weight_decay"] for entry in trials})
    sums = ", ".join(f"{180 * decay:.2g}" for decay in decays)
    assert f"over all updates ({sums} here, 0.2 at the thesis's best)" in claim.reason


def test_nothing_is_supported_that_the_verdict_contradicts(study_writer, answer_of, grid):
    trials = grid((0.25, 0.36, 0.30), (0.36, 0.355, 0.33), noise=0.001)
    answer = answer_of(study_writer(trials))
    assert answer.label == "closes"
    assert answer.sections["claims"][2].status != "supported"


def test_claims_are_corrected_for_their_number(study_writer, answer_of, make_trial):
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
        effect
        for claim in answer_of(study_writer(trials, roles=roles)).sections["claims"]
        for effect in claim.effects
    ]
    assert min(effect.p for effect in effects if effect.p == effect.p) < 0.05
    assert all(effect.side == "" for effect in effects)
    assert all(effect.adjusted_p >= effect.p for effect in effects if effect.p == effect.p)


def test_a_large_gap_is_more_than_a_margin(multi_task_answer):
    """Two points help, but the thesis's large gap was 9 and 7.5."""
    claim = multi_task_answer((0.3, 0.32), (0.3, 0.32)).sections["claims"][3]
    assert claim.status == "contradicted"
    assert "more than 5 points" in claim.reason
    assert "helps by more than the margin of 1 point in 2 of 2" in claim.reason


def smallest_p(rng):
    """Of a difference that does not exist, at the look where it seems most real."""
    values = rng.normal(size=LOOKS[-1])
    return min(p_value(values[:seeds], 0.0) for seeds in LOOKS)


def test_stopping_where_a_difference_seems_real_calls_few_absent_ones_real():
    rng = np.random.default_rng(0)
    p = [smallest_p(rng) for _ in range(2000)]
    effects = [Effect("", Interval(1.0, 0.5, 1.5, 3, "t"), p=value) for value in p]
    ordinary, adjusted = (
        np.mean([adjust([effect], looks)[0].side != "" for effect in effects]) for looks in (1, len(LOOKS))
    )
    assert ordinary > 0.14
    assert adjusted < 0.05
