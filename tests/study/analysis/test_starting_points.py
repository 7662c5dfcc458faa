"""Studies of three starting points: raw, self-supervised and given weights, with known truth."""

import re

import numpy as np
import pandas as pd
import pytest

from segstrat.config import INITIALIZATIONS
from segstrat.store import Store
from study.analysis.answer import answer_study
from study.analysis.answering.decision import Label
from study.analysis.cells import cell_table
from study.analysis.contrasts import contrasts
from study.analysis.starting_points import comparisons
from study.analysis.study import PAIRINGS, Study, contexts
from study.analysis.verdict import decide_all
from study.frame import epoch_table
from study.frame.build import START_WORDS
from study.reporting.plot_self_supervision import add_runs
from study.reporting.render import make_page, render

ROLES = {"initialization": "arm", "weight_decay": "treatment"}
DECAYS = (0.0, 5e-4)


def simulate(means, *, seeds=6, spread=0.002, starts=INITIALIZATIONS, seed=0, decays=DECAYS) -> Study:
    """A study with these true means: one value per weight decay of each starting point."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(seeds):
        shift = rng.normal(0, 0.01)
        for start in starts:
            for decay, mean in zip(decays, means[start], strict=True):
                value = mean + shift + rng.normal(0, spread)
                rows.append(
                    {
                        "trial_id": f"{number}{start}{decay}",
                        "arm": START_WORDS[start],
                        "tasks": "semseg",
                        "multi_task": False,
                        "pretrained": start != "raw",
                        "initialization": start,
                        "weight_decay": decay,
                        "seed": number,
                        "status": "completed",
                        "seconds": 1.0,
                        "semseg_val_miou": value,
                        "semseg_best_epoch": 10,
                        "last_semseg_val_miou": value,
                        "last_semseg_train_miou": value + 0.2,
                        "last_semseg_val_loss": 1 - value,
                        "last_semseg_train_loss": 0.8 - value,
                        "last_semseg_val_miou_thesis": value,
                        "semseg_val_constant_miou": 0.05,
                        "epochs_budget": 10,
                        "epochs_run": 10,
                    }
                )
    manifest = {"roles": ROLES, "metric": "semseg_val_miou", "data": {"name": "simulated"}}
    return Study("simulated", manifest, pd.DataFrame(rows), epoch_table("", []))


def test_every_two_starting_points_are_compared():
    study = simulate({"raw": (0.20, 0.21), "self": (0.25, 0.26), "given": (0.40, 0.38)}, spread=0.0)
    found = contexts(study, "semseg")
    assert [context.starts for context in found] == list(PAIRINGS)
    assert len({context.key for context in found}) == len({context.label for context in found}) == 3
    truth = {
        ("raw", "given"): (0.20, 0.01, 0.19),
        ("raw", "self"): (0.06, 0.01, 0.05),
        ("self", "given"): (0.15, 0.01, 0.14),
    }
    for context in found:
        each = contrasts(study, context)
        numbers = (each.gap.estimate, each.improvement.estimate, each.remaining.estimate)
        assert numbers == pytest.approx(truth[context.starts])


def test_a_reference_is_the_first_of_the_two_without_regularization():
    study = simulate({"raw": (0.2, 0.2), "self": (0.3, 0.3), "given": (0.4, 0.4)})
    for context in contexts(study, "semseg"):
        reference = context.trials[context.trials["reference"].astype(bool)]
        assert set(reference["initialization"]) == {context.starts[0]}
        assert set(reference["weight_decay"]) == {0.0}
        assert set(context.trials.loc[context.pretrained, "initialization"]) == {context.starts[1]}
        assert context.answerable


def test_the_comparisons_share_the_error():
    means = {"raw": (0.20, 0.21), "self": (0.25, 0.26), "given": (0.40, 0.38)}
    three, two = simulate(means), simulate(means, starts=("raw", "given"))
    for study, confidence in ((three, 1 - 0.05 / 3), (two, 0.95)):
        found = contrasts(study, contexts(study, "semseg")[0])
        for interval in (found.gap, found.improvement, found.remaining):
            assert interval.confidence == pytest.approx(confidence)
    wide, narrow = (contrasts(study, contexts(study, "semseg")[0]).gap for study in (three, two))
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("means", "label", "words"),
    [
        (((0.20, 0.20), (0.20, 0.20), (0.40, 0.40)), Label.DOES_NOT_CLOSE, "No: given"),
        (((0.20, 0.20), (0.40, 0.40), (0.40, 0.40)), Label.CLOSES, "own images are enough"),
        (((0.20, 0.40), (0.20, 0.20), (0.40, 0.40)), Label.CLOSES, "weight decay alone"),
        (((0.20, 0.20), (0.30, 0.30), (0.40, 0.40)), Label.NARROWS, "your own images add"),
        (((0.40, 0.40), (0.40, 0.40), (0.40, 0.40)), Label.NOT_NEEDED, "Nothing helps"),
        (((0.40, 0.40), (0.30, 0.30), (0.30, 0.30)), Label.HURTS, "Nothing helps"),
        (((0.40, 0.40), (0.50, 0.50), (0.40, 0.40)), Label.NOT_NEEDED, "not needed"),
    ],
)
def test_the_answer_names_the_starting_point_that_is_enough(means, label, words):
    answer = answer_study(simulate(dict(zip(INITIALIZATIONS, means, strict=True)), spread=0.001))
    assert answer.label == label
    assert words in answer.lines[0]


@pytest.mark.parametrize(
    ("means", "label", "words"),
    [
        ((0.20, 0.20, 0.40), Label.DOES_NOT_CLOSE, "No: given weights add 20 points"),
        ((0.20, 0.40, 0.40), Label.CLOSES, "own images are enough"),
        (
            (0.20, 0.30, 0.40),
            Label.NARROWS,
            "own images add 10 points to raw here, and given weights add 10 points",
        ),
        ((0.40, 0.40, 0.40), Label.NOT_NEEDED, "Nothing helps"),
        ((0.40, 0.50, 0.40), Label.NOT_NEEDED, "not needed"),
    ],
)
def test_starting_points_are_compared_without_regularization_too(means, label, words):
    each = {start: (mean,) for start, mean in zip(INITIALIZATIONS, means, strict=True)}
    study = simulate(each, spread=0.0001, decays=(0.0,))
    answer = answer_study(study)
    assert answer.label == label
    assert words in answer.lines[0]
    assert "regulariz" not in " ".join(answer.lines)
    for start, mean in study.trials.groupby("initialization")["semseg_val_miou"].mean().items():
        assert f"{START_WORDS[str(start)]} {mean:.3f}" in answer.lines[1]
    assert answer.lines[2].count("98.3 %") == 3


def test_noise_without_regularization_leaves_it_open():
    means = {"raw": (0.20,), "self": (0.215,), "given": (0.23,)}
    answer = answer_study(simulate(means, seeds=3, spread=0.02, decays=(0.0,)))
    assert answer.label == Label.UNDETERMINED
    assert answer.lines[0].startswith("Undetermined: whether your own images can stand in for given weights")
    assert "not shown to help by more than the margin" in answer.lines[2]


def test_two_seeds_without_regularization_are_too_few():
    study = simulate({"raw": (0.20,), "self": (0.25,), "given": (0.40,)}, seeds=2, decays=(0.0,))
    answer = answer_study(study)
    assert answer.label == Label.UNDETERMINED
    words = r"pre-trained ends (20|19\.\d|20\.\d) points ahead of raw\."
    assert re.search(rf"2 seeds are too few for an interval\. There, {words}", answer.lines[2])


def test_two_arms_without_regularization_show_their_gap_only():
    means = {"raw": (0.20,), "given": (0.40,)}
    answer = answer_study(simulate(means, starts=("raw", "given"), decays=(0.0,)))
    assert answer.label == Label.UNDETERMINED
    assert "varies no stand-in" in answer.lines[0]


def test_noise_leaves_it_open():
    means = {"raw": (0.20, 0.20), "self": (0.215, 0.215), "given": (0.23, 0.23)}
    answer = answer_study(simulate(means, seeds=3, spread=0.02))
    assert answer.label == Label.UNDETERMINED
    assert answer.lines[0].startswith("Undetermined")
    assert "undetermined" in answer.lines[2]


def test_a_mean_that_is_stated_is_that_of_the_arm():
    study = simulate({"raw": (0.20, 0.24), "self": (0.30, 0.28), "given": (0.40, 0.38)}, spread=0.001)
    (found,) = comparisons(decide_all(study, "semseg")).values()
    means = study.trials.groupby(["initialization", "weight_decay"])["semseg_val_miou"].mean()
    for start, decay in (("raw", 5e-4), ("self", 0.0), ("given", 0.0)):
        assert f"{START_WORDS[start]} {means[start, decay]:.3f}" in found.numbers


def test_tables_have_each_cell_once():
    study = simulate({"raw": (0.20, 0.21), "self": (0.25, 0.26), "given": (0.40, 0.38)})
    table = cell_table(study, "semseg")
    assert list(table["arm"]) == [
        "raw",
        "raw",
        "self-supervised",
        "self-supervised",
        "pre-trained",
        "pre-trained",
    ]
    assert table["n"].eq(6).all()


def test_two_starting_points_of_three_are_an_ordinary_study():
    means = {"raw": (0.20, 0.20), "self": (0.40, 0.39)}
    study = simulate(means, starts=("raw", "self"))
    (context,) = contexts(study, "semseg")
    assert context.label == ""
    assert (context.raw_name, context.pretrained_name) == ("raw", "self-supervised")
    answer = answer_study(study)
    assert answer.label == Label.DOES_NOT_CLOSE
    assert "does not close the gap to self-supervised pre-training" in answer.lines[0]
    assert re.search(r"0\.\d\d\d self-supervised, 0\.\d\d\d raw", answer.lines[1])
    assert not any(claim.effects for claim in answer.sections["claims"])


LONG = {"weight_decay": "treatment", "epochs_factor": "treatment", "initialization": "arm"}
CURVE = [0.10, 0.15, 0.18, 0.20]


def with_costs(folder, seconds):
    """A study's folder with so many seconds of self-supervision for each seed; an epoch takes two."""
    runs = [{"backbone": "resnet18", "width": 1.0, "seed": seed, "seconds": seconds} for seed in range(3)]
    add_runs(Store(folder), {f"{run['seed']}.pth": run for run in runs})
    return folder


def equal_time(answer, starts):
    """The row of the sensitivity analysis, None if there is none."""
    compared = [verdict.context.starts for verdict in answer.primary]
    views = answer.sensitivity[compared.index(starts)]
    return next((view for view in views if view.name == "equal time"), None)


@pytest.fixture
def long_study(study_writer, make_trial):
    """Raw, self and given train for four epochs, raw also for eight; two seconds an epoch."""

    def make(seconds):
        rng = np.random.default_rng(0)

        def curve(base):
            return [value + base + rng.normal(0, 1e-3) for value in CURVE]

        trials = []
        for seed in range(3):
            for start, base in (("raw", 0.0), ("self", 0.1), ("given", 0.2)):
                for decay in DECAYS:
                    axes = {"initialization": start, "weight_decay": decay, "epochs_factor": 1, "seed": seed}
                    trials.append(make_trial(axes | {"backbone": "resnet18"}, curve(base), epochs=4))
            longer = [float(value) for value in np.repeat(curve(0.0), 2)]
            axes = {"initialization": "raw", "weight_decay": 0.0, "epochs_factor": 2, "seed": seed}
            trials.append(make_trial(axes | {"backbone": "resnet18"}, longer, epochs=8))
        return with_costs(study_writer(trials, roles=LONG), seconds)

    return make


def test_raw_may_use_the_time_of_self_supervision(long_study, answer_of):
    """Self has 4 epochs of 2 s and 6 s before them; raw's longest training takes 16 s: both may use 14 s."""
    view = equal_time(answer_of(long_study(6.0)), ("raw", "self"))
    assert view is not None
    assert "after 14 s, self-supervision included" in view.note
    means = view.contrasts.raw.values.mean()
    longer = next(value for label, value in means.items() if "factor 2" in label or "2 ×" in label)
    # Seven of eight epochs, of which the last two have the same score.
    assert longer == pytest.approx(0.20, abs=0.005)
    assert view.contrasts.pretrained.values.mean().max() == pytest.approx(0.30, abs=0.005)


def test_self_supervision_that_takes_longer_leaves_self_less_time(long_study, answer_of):
    """12 s before and 16 s in all leave two epochs of two seconds."""
    view = equal_time(answer_of(long_study(12.0)), ("raw", "self"))
    assert view is not None
    assert view.contrasts.pretrained.values.mean().max() == pytest.approx(0.25, abs=0.005)


def test_without_equal_time_there_is_no_row_and_the_cost_is_said(long_study, answer_of):
    answer = answer_of(long_study(100.0))
    assert equal_time(answer, ("raw", "self")) is None
    assert equal_time(answer, ("raw", "given")) is None
    assert "times a raw training" in answer.lines[3]
    assert "for each point that it gains on raw" in answer.lines[3]


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_every_comparison(study_writer, make_trial, answer_of):
    rng = np.random.default_rng(0)
    means = {"raw": 0.2, "self": 0.25, "given": 0.4}
    trials = [
        make_trial(
            {"initialization": start, "weight_decay": decay, "seed": seed}, mean + rng.normal(0, 0.003)
        )
        for seed in range(3)
        for start, mean in means.items()
        for decay in DECAYS
    ]
    answer = answer_of(study_writer(trials, roles=ROLES))
    assert answer.label == Label.NARROWS
    text = render([make_page(answer)])
    for words in (
        "self-supervised against raw",
        "pre-trained against self-supervised",
        "Does self-supervised pre-training help",
        "gained: best regularized self-supervised",
    ):
        assert words in text
