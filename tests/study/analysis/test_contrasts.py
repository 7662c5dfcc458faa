"""Contrasts on simulated studies, whose true effects are known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study.analysis.answer import answer_study
from study.analysis.cells import best_shown, cell_table
from study.analysis.contrasts import Arm, choose, compare_pairs, contrasts
from study.analysis.intervals import mean_interval
from study.analysis.scores import final_values
from study.analysis.sensitivity import sensitivity_views
from study.analysis.study import Study, contexts
from study.analysis.verdict import MARGIN, decide, judge_contrasts
from study.frame import build_frames

ROLES = {"pretrained": "arm", "weight_decay": "treatment"}
DECAYS = (0.0, 1e-4, 5e-4, 1e-3, 5e-3, 2e-2)


def simulate(raw, pretrained, *, seeds=5, spread=0.01, shared=0.01, rng, status=None) -> Study:
    """A weight-decay grid whose true means are `raw` and `pretrained` (one value a decay).

    Seeds share a shift between arms (they are paired) and each trial has its own noise.
    """
    rows = []
    for seed in range(seeds):
        shift = rng.normal(0, shared)
        for is_pre, means in ((False, raw), (True, pretrained)):
            for decay, mean in zip(DECAYS, means, strict=False):
                value = mean + shift + rng.normal(0, spread)
                row = {
                    "trial_id": f"{seed}{is_pre}{decay}", "arm": "pre-trained" if is_pre else "raw",
                    "tasks": "semseg", "multi_task": False, "pretrained": is_pre, "weight_decay": decay,
                    "seed": seed, "status": "completed", "semseg_val_miou": value,
                    "last_semseg_val_miou": value, "last_semseg_train_miou": value + 0.2,
                    "last_semseg_val_loss": 1 - value, "last_semseg_train_loss": 0.8 - value,
                    "last_semseg_val_miou_thesis": value, "epochs_budget": 10, "epochs_run": 10,
                }  # fmt: skip
                rows.append(row | (status(row) if status else {}))
    manifest = {"roles": ROLES, "metric": "semseg_val_miou", "data": {"name": "simulated"}}
    return Study("simulated", manifest, pd.DataFrame(rows), pd.DataFrame())


def only_context(study):
    (context,) = contexts(study, "semseg")
    return context


def test_contrasts_by_hand():
    study = simulate([0.30, 0.34], [0.40, 0.38], spread=0, shared=0, seeds=3, rng=np.random.default_rng(0))
    found = contrasts(study, only_context(study))
    assert found.gap.estimate == pytest.approx(0.10)
    assert found.improvement.estimate == pytest.approx(0.04)
    assert found.remaining.estimate == pytest.approx(0.06)
    assert found.closure.estimate == pytest.approx(0.4)
    assert found.reference == "weight decay 0"
    assert set(found.best_raw.counts) == {"weight decay 1e-4"}
    assert set(found.best_pretrained.counts) == {"weight decay 0"}


def simulate_arms(raw, pretrained, *, rng, seeds=5, spread=0.006, shared=0.01):
    """The same as `simulate`, straight as seeds × settings."""
    shift = rng.normal(0, shared, (seeds, 1))
    arms = []
    for means in (raw, pretrained):
        values = pd.DataFrame(np.asarray(means) + shift + rng.normal(0, spread, (seeds, len(means))))
        values.columns = [f"decay {index}" for index in range(len(means))]
        arms.append(Arm(values, values, "decay 0"))
    return arms


@pytest.mark.parametrize(
    ("raw", "pretrained"),
    [
        ([0.25, 0.26, 0.28, 0.31], [0.36, 0.36, 0.36, 0.33]),  # one raw setting is clearly best
        ([0.25, 0.28, 0.28, 0.28, 0.28, 0.28], [0.34] * 6),  # all regularized ones are tied
        ([0.25, 0.262, 0.268, 0.274, 0.268], [0.34, 0.338, 0.336, 0.32, 0.31]),  # a flat optimum
    ],
)
def test_intervals_cover_the_true_effects_at_five_seeds(raw, pretrained):
    rng = np.random.default_rng(11)
    truth = {
        "gap": max(pretrained) - raw[0],
        "improvement": max(raw[1:]) - raw[0],
        "remaining": max(pretrained) - max(raw[1:]),
    }
    truth["closure"] = truth["improvement"] / truth["gap"]
    hits = dict.fromkeys(truth, 0)
    runs = 500
    for _ in range(runs):
        found = compare_pairs([simulate_arms(raw, pretrained, rng=rng)])
        for name, value in truth.items():
            interval = getattr(found, name)
            hits[name] += bool(interval.known and interval.low <= value <= interval.high)
    for name, count in hits.items():
        assert 0.92 <= count / runs <= 0.98, f"{name} covered in {count} of {runs}"


def test_closes_is_rarely_said_where_nothing_is_closed():
    rng = np.random.default_rng(3)
    labels = [
        judge_contrasts(
            compare_pairs([simulate_arms([0.25] * 6, [0.28] * 6, spread=0.012, rng=rng)]), MARGIN
        ).label
        for _ in range(500)
    ]
    assert labels.count("closes") / 500 < 0.05
    # It is not said rarely because nothing is ever said.
    closed = [
        judge_contrasts(compare_pairs([simulate_arms([0.25, 0.3], [0.3] * 2, rng=rng)]), MARGIN).label
        for _ in range(100)
    ]
    assert closed.count("closes") > 30


def test_choosing_on_other_seeds_is_unbiased():
    """All settings are equal: picking the best on the reported seeds would show a gain that is not there."""
    rng = np.random.default_rng(5)
    honest, naive = [], []
    for _ in range(300):
        raw, pre = simulate_arms([0.25] * 6, [0.30] * 6, spread=0.01, rng=rng)
        honest.append(compare_pairs([(raw, pre)]).improvement.estimate)
        naive.append(raw.values.mean().iloc[1:].max() - raw.values.mean().iloc[0])
    assert abs(np.mean(honest)) < 0.0015
    assert np.mean(naive) > 0.004


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    seeds = pd.RangeIndex(5)
    clear = pd.DataFrame({"none": 0.2, "a": 0.3 + rng.normal(0, 1e-3, 5), "b": 0.25}, index=seeds)
    # Each of two settings is far ahead on some seeds, so that leaving one out changes the choice.
    mixed = clear.assign(a=[0.3, 0.2, 0.3, 0.2, 0.3], b=[0.2, 0.3, 0.2, 0.3, 0.25])
    pre = pd.DataFrame({"none": 0.4}, index=seeds)
    for values, factor in ((clear, 1.0), (mixed, 2.0)):
        found = compare_pairs([(Arm(values, values, "none"), Arm(pre, pre, "none"))])
        assert found.best_raw.unanimous is (factor == 1.0)
        assert found.variance_factors == {"gap": 1.0, "improvement": factor, "remaining": factor}
        plain = mean_interval(found.differences["improvement"].to_numpy())
        widened = found.improvement.high - found.improvement.low
        assert widened == pytest.approx(factor**0.5 * (plain.high - plain.low))


def test_the_choice_of_a_seed_ignores_that_seed():
    values = pd.DataFrame({"a": [0.9, 0.1, 0.1], "b": [0.2, 0.2, 0.2]}, index=[0, 1, 2])
    chosen = choose(Arm(values, values, None), ["a", "b"])
    # Seed 0 alone likes `a`; judged on seeds 1 and 2 it gets `b`, and they get `a` because of seed 0.
    assert chosen.settings == {0: ("b",), 1: ("a",), 2: ("a",)}
    assert list(chosen.value) == [0.2, 0.1, 0.1]


def test_a_single_seed_says_that_it_chose_on_itself():
    study = simulate([0.25, 0.30], [0.36, 0.35], seeds=1, rng=np.random.default_rng(0))
    found = contrasts(study, only_context(study))
    assert found.same_seed
    assert not found.remaining.known


def test_a_setting_that_misses_a_hard_seed_does_not_win_by_that():
    values = pd.DataFrame({"a": [0.5, 0.5, np.nan, 0.3], "b": [0.51, 0.51, 0.31, 0.31]}, index=range(4))
    chosen = choose(Arm(values, values, None), ["a", "b"])
    assert set(chosen.counts) == {"b"}


def stopped_after_half(row):
    """The raw trials with weight decay 5e-4 were stopped at the half of their final value."""
    if row["pretrained"] or row["weight_decay"] != 5e-4:
        return {}
    half = row["last_semseg_val_miou"] / 2
    return {"status": "stopped", "semseg_val_miou": half, "last_semseg_val_miou": half}


def test_stopped_trials_have_no_final_value():
    study = simulate(
        [0.25, 0.27, 0.35], [0.40, 0.40, 0.40], spread=0, shared=0, seeds=3,
        rng=np.random.default_rng(0), status=stopped_after_half,
    )  # fmt: skip
    context = only_context(study)
    stopped = study.trials["status"] == "stopped"
    assert final_values(study, context)[stopped].isna().all()
    assert best_shown(context)[stopped].tolist() == pytest.approx([0.175] * 3)
    assert best_shown(context)[~stopped].isna().all()
    cell = cell_table(study, "semseg").query("not pretrained and weight_decay == 5e-4").iloc[0]
    assert cell["stopped"] == 3
    assert np.isnan(cell["val_miou"]) or cell["val_miou"] is None
    assert cell["shown"] == pytest.approx(0.175)
    assert set(contrasts(study, context).best_raw.counts) == {"weight decay 1e-4"}


def test_a_diverged_trial_counts_against_its_setting():
    def diverge(row):
        broken = not row["pretrained"] and row["weight_decay"] == 5e-4 and row["seed"] == 0
        return {"status": "diverged", "last_semseg_val_miou": np.nan} if broken else {}

    study = simulate(
        [0.25, 0.33, 0.34],
        [0.40] * 3,
        spread=0,
        shared=0,
        seeds=3,
        rng=np.random.default_rng(0),
        status=diverge,
    )
    study.manifest["data"]["constant_miou"] = {"semseg": {"val": 0.05}}
    context = only_context(study)
    # Intention to treat: it chooses and reports with the score of a constant prediction.
    assert final_values(study, context)[study.trials["status"] == "diverged"].tolist() == [0.05]
    assert final_values(study, context, survivors=True).isna().sum() == 1
    chosen = contrasts(study, context).best_raw
    # Only seed 0 does not see the divergence.
    assert chosen.settings == {
        0: ("weight decay 5e-4",),
        1: ("weight decay 1e-4",),
        2: ("weight decay 1e-4",),
    }
    assert chosen.value[0] == 0.05


def test_a_setting_that_diverges_on_half_of_the_seeds_does_not_close_the_gap():
    """The surviving three of six seeds alone would say "closes"."""

    def diverge(row):
        broken = not row["pretrained"] and row["weight_decay"] == 5e-4 and row["seed"] % 2 == 0
        return {"status": "diverged", "last_semseg_val_miou": np.nan} if broken else {}

    study = simulate(
        [0.25, 0.26, 0.40], [0.40, 0.39, 0.38], spread=0.002, shared=0, seeds=6,
        rng=np.random.default_rng(0), status=diverge,
    )  # fmt: skip
    context = only_context(study)
    survivors = contrasts(study, context, final_values(study, context, survivors=True))
    assert judge_contrasts(survivors, MARGIN).label == "closes"
    assert judge_contrasts(contrasts(study, context), MARGIN).label != "closes"
    assert "survivors" in [view.name for view in sensitivity_views(study, decide(study, context))]


def test_contexts_split_by_backbone_and_nuisance():
    study = simulate([0.2, 0.3], [0.4, 0.4], rng=np.random.default_rng(0))
    other = study.trials.assign(backbone="vgg16", trial_id=study.trials["trial_id"] + "v")
    trials = pd.concat([study.trials.assign(backbone="resnet18"), other], ignore_index=True)
    both = Study("both", {**study.manifest, "roles": ROLES | {"backbone": "arm"}}, trials, study.epochs)
    found = contexts(both, "semseg")
    assert [context.label for context in found] == ["backbone resnet18", "backbone vgg16"]
    assert all(len(context.trials) == len(study.trials) for context in found)


def test_multi_task_training_is_a_setting(study_writer, make_trial):
    trials = [
        make_trial({"pretrained": pre, "tasks": tasks, "seed": seed}, value + 0.001 * seed, tasks=tasks)
        for seed in range(3)
        for pre, tasks, value in (
            (False, ["semseg"], 0.3), (False, ["parts"], 0.2), (False, ["semseg", "parts"], 0.35),
            (True, ["semseg"], 0.5), (True, ["parts"], 0.4), (True, ["semseg", "parts"], 0.45),
        )
    ]  # fmt: skip
    folder = study_writer(trials, roles={"pretrained": "arm", "tasks": "arm"})
    study = Study("multi", {"roles": {"pretrained": "arm", "tasks": "arm"}}, *build_frames(folder))
    for task, single in (("semseg", 0.3), ("parts", 0.2)):
        (context,) = contexts(study, task)
        assert len(context.trials) == 12
        assert context.reference == {"tasks": task}
        found = contrasts(study, context)
        assert found.improvement.estimate == pytest.approx(0.35 - single)


def with_image_noise(raw, pretrained, *, rng, seeds=5, image_sd=0.007, **noise) -> Study:
    """The same grid; each cell is better on one half of the images than on the other by a fixed amount.

    The true mean of a cell is over all images that there could be, so both halves carry an error that no seed
    removes.
    """
    study = simulate(raw, pretrained, seeds=seeds, rng=rng, **noise)
    errors = {}
    for half in ("a", "b"):
        keys = list(zip(study.trials["pretrained"], study.trials["weight_decay"], strict=True))
        for key in dict.fromkeys(keys):
            errors[half, key] = rng.normal(0, image_sd)
        shift = [errors[half, key] for key in keys]
        study.trials[f"last_semseg_val_miou_{half}"] = study.trials["last_semseg_val_miou"] + shift
    halves = study.trials[["last_semseg_val_miou_a", "last_semseg_val_miou_b"]]
    study.trials["last_semseg_val_miou"] = halves.mean(axis=1)
    return study


def test_images_that_choose_are_not_the_images_that_report():
    """Six tied settings: what gains on the images that chose does not gain on the others."""
    rng = np.random.default_rng(2)
    same, halves = [], []
    for _ in range(60):
        study = with_image_noise([0.25] * 6, [0.3] * 6, rng=rng, spread=0.004)
        context = only_context(study)
        assert context.images == "halves of the validation images"
        halves.append(contrasts(study, context).improvement.estimate)
        same.append(contrasts(study, context, final_values(study, context)).improvement.estimate)
    assert np.mean(same) > 0.003
    assert abs(np.mean(halves)) < 0.0025


def test_a_test_split_reports_and_validation_chooses():
    study = simulate([0.25, 0.30, 0.28], [0.4] * 3, spread=0, shared=0, seeds=3, rng=np.random.default_rng(0))
    # On test images the setting that validation prefers is worse.
    test = study.trials["last_semseg_val_miou"].where(study.trials["weight_decay"] != 1e-4, 0.27)
    study.trials["last_semseg_test_miou"] = test
    context = only_context(study)
    assert context.images == "test images"
    found = contrasts(study, context)
    assert set(found.best_raw.counts) == {"weight decay 1e-4"}
    assert found.improvement.estimate == pytest.approx(0.02)


def test_a_missing_test_score_falls_back_to_validation():
    study = simulate([0.25, 0.30], [0.4] * 2, seeds=3, rng=np.random.default_rng(0))
    study.trials["last_semseg_test_miou"] = study.trials["last_semseg_val_miou"]
    study.trials.loc[0, "last_semseg_test_miou"] = np.nan
    assert only_context(study).images == "the images that chose"


def test_seeds_added_after_an_answer_widen_the_intervals():
    planned = simulate([0.30, 0.34], [0.40, 0.38], seeds=6, rng=np.random.default_rng(0))
    manifest = planned.manifest | {"seeds": list(range(6))}
    extended = Study("simulated", manifest | {"extended_from": [3]}, planned.trials, planned.epochs)
    before, after = (contrasts(study, only_context(study)) for study in (planned, extended))
    for name in ("gap", "improvement", "remaining"):
        narrow, wide = getattr(before, name), getattr(after, name)
        assert wide.estimate == narrow.estimate
        assert wide.low < narrow.low < narrow.high < wide.high
        assert (narrow.level, wide.level) == ("95 %", "92.5 %")
    assert before.variance_factors == after.variance_factors
    (caveat,) = [text for text in answer_study(extended).caveats if "got more" in text]
    assert "answered with 3 seeds and then got more, 6 in all" in caveat
    assert "92.5 %" in caveat
    assert not any("got more" in text for text in answer_study(planned).caveats)


@pytest.mark.parametrize(("plans", "error"), [((3, 4), 0.075), ((3, 6), 0.075), ((3, 4, 5), 0.0875)])
def test_answers_before_and_after_an_extension_err_together_as_rarely_as_stated(plans, error):
    study = simulate([0.30, 0.34], [0.40, 0.38], seeds=plans[-1], rng=np.random.default_rng(0))
    values = np.random.default_rng(1).standard_normal((20_000, plans[-1]))
    wrong, unwidened = (np.zeros(len(values), bool) for _ in range(2))
    for number, seeds in enumerate(plans, 1):
        manifest = study.manifest | {"seeds": list(range(seeds)), "extended_from": list(plans[: number - 1])}
        context = only_context(Study("simulated", manifest, study.trials, study.epochs))
        sample = values[:, :seeds]
        t = np.abs(sample.mean(axis=1)) / (sample.std(axis=1, ddof=1) / np.sqrt(seeds))
        wrong |= t > stats.t.ppf(0.5 + context.confidence / 2, seeds - 1)
        unwidened |= t > stats.t.ppf(0.975, seeds - 1)
    assert context.joint_confidence == pytest.approx(1 - error)
    # The plan's normal theory errs by 0.8 points with so few seeds (docs/simulations.md).
    assert wrong.mean() < error + 0.012
    assert wrong.mean() <= unwidened.mean()
