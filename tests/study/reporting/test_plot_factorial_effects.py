"""Tables, figures and sentences of factorial effects."""

import itertools

import numpy as np
import pandas as pd
import pytest

from study.analysis.sections.factorial_effects import (
    BOTH,
    DIFFERENCE,
    PRETRAINED,
    RAW,
    effect_sentences,
    factorial_effects,
)
from study.analysis.study import Study
from study.reporting.plot_factorial_effects import draw_effects, effect_table, effects_picture

AXES = {"weight_decay": (0.0, 5e-4), "dropout": (0.0, 0.2), "label_smoothing": (0.0, 0.1)}
ROLES = {"pretrained": "arm"} | dict.fromkeys(AXES, "treatment")


def make_effects(seeds=(0, 1), sd=0.003, change=None):
    rng = np.random.default_rng(1)
    rows = []
    for seed, pretrained, *levels in itertools.product(seeds, (False, True), *AXES.values()):
        cell = dict(zip(AXES, levels, strict=True))
        gain = 0.03 * (cell["dropout"] > 0) * (not pretrained)
        value = 0.25 + 0.1 * pretrained + gain + sd * rng.normal()
        facts = {"trial_id": str(len(rows)), "tasks": "semseg", "multi_task": False, "status": "completed"}
        budget = {"epochs_run": 40, "epochs_budget": 40, "arm": "pre-trained" if pretrained else "raw"}
        rows.append(
            facts | budget | cell | {"pretrained": pretrained, "seed": seed, "last_semseg_val_miou": value}
        )
    trials = pd.DataFrame(rows)
    if change is not None:
        change(trials)
    study = Study("study", {"roles": ROLES, "metric": "semseg_val_miou"}, trials, pd.DataFrame())
    (effects,) = factorial_effects(study, "semseg")
    return effects


def test_table_is_in_points_and_says_what_is_shown():
    table = effect_table(make_effects())
    dropout = table[(table["label"] == "dropout 0.2") & (table["kind"] == "main")].set_index("response")
    assert dropout.loc[RAW, "estimate"] == pytest.approx(3, abs=0.5)
    assert dropout.loc[DIFFERENCE, "shown"]
    assert not dropout.loc[PRETRAINED, "shown"]
    assert "weight decay 5e-4 × dropout 0.2" in set(table["label"])


def test_each_effect_has_a_dot_and_an_interval_per_response():
    table = effect_table(make_effects())
    chosen = table[(table["kind"] == "main") & table["response"].isin([RAW, PRETRAINED])]
    (ax,) = draw_effects(chosen, "Main effects", "points").axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == len(chosen) == 6
    filled = [line for line in dots if line.get_markerfacecolor() == line.get_markeredgecolor()]
    assert len(filled) == chosen["shown"].sum() == 1
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "weight decay 5e-4",
        "dropout 0.2",
        "label smoothing 0.1",
    ]


def test_picture_shows_arms_difference_and_interactions():
    picture = effects_picture(make_effects(), "figures (synthetic)")
    titles = [panel.axes[0].get_title(loc="left") for panel in picture.panels]
    assert titles == ["Main effects", "More for raw than for pre-trained", "Two-way interactions"]
    assert picture.name == "effects-semseg"


def test_effects_without_intervals_are_drawn_as_hollow_dots():
    effects = make_effects(seeds=(0,))
    nothing = effect_table(make_effects(change=lambda trials: trials.__setitem__("status", "failed")))
    assert nothing.empty
    table = effect_table(effects).assign(low=np.nan, high=np.nan, shown=False)
    (ax,) = draw_effects(table[table["response"] == BOTH], "Main effects", "points").axes
    assert {line.get_marker() for line in ax.lines[1:]} == {"o"}


def test_sentences_name_what_is_shown_with_its_interval():
    text = " ".join(effect_sentences(make_effects()))
    assert "each averaged over the levels of the other factors; 2 seeds" in text
    assert "In the raw arm: dropout 0.2 (+" in text
    assert "2 others are not shown" in text
    assert "More for raw than for pre-trained: dropout 0.2" in text
    assert "diverged" not in text


def test_sentences_say_when_trials_diverged_and_when_there_is_no_interval():
    def diverge(trials):
        trials.loc[3, "status"] = "diverged"

    assert "1 trial diverged" in " ".join(effect_sentences(make_effects(change=diverge)))

    def keep_few(trials):
        trials.loc[trials.index[4:], "status"] = "failed"

    assert "no intervals" in " ".join(effect_sentences(make_effects(change=keep_few)))
