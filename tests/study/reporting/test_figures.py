"""Every figure's table on a small study whose values are known, and that each table can be drawn."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from segstrat.image_counts import ImageCounts, write_counts
from segstrat.store import Store
from study.analysis.answer import answer_study
from study.analysis.intervals import Interval
from study.analysis.study import Study
from study.frame import write_frames
from study.reporting.figure_style import arm_colors
from study.reporting.page import Page, draw_pictures
from study.reporting.plot_classes import (
    CONFUSED,
    MOST_CLASSES,
    OTHERS,
    class_picture,
    class_table,
    confusion_picture,
    confusion_tables,
    iou_table,
)
from study.reporting.plot_contrasts import (
    context_table,
    contrast_table,
    draw_contexts,
    draw_contrasts,
    draw_seeds,
    seed_table,
)
from study.reporting.plot_cost import cost_table
from study.reporting.plot_gap_closure import closure_picture, closure_table, shown_closure
from study.reporting.plot_training import curve_table, plane_table, start_and_speed
from study.reporting.plot_treatments import (
    color_range,
    draw_map,
    draw_treatment,
    map_table,
    sampled_table,
    treatment_table,
)
from study.reporting.render import make_page, render
from tests.study.published import table_1_2

RAW = {0.0: 0.25, 5e-4: 0.30, 5e-3: 0.28}
PRE = {0.0: 0.40, 5e-4: 0.38, 5e-3: 0.35}


@pytest.fixture
def answer(study_writer, make_trial):
    """Three seeds that differ by a constant; the strongest raw decay of seed 2 was stopped."""
    trials = []
    for seed in range(3):
        for pre, cells in ((False, RAW), (True, PRE)):
            for decay, value in cells.items():
                axes = {"pretrained": pre, "weight_decay": decay, "seed": seed}
                if (pre, decay, seed) == (False, 5e-3, 2):
                    stopped = {"status": "stopped", "stop_epoch": 2, "stop_rung": 0, "epochs": 4}
                    trials.append(make_trial(axes, [0.1, 0.2], **stopped))
                else:
                    trials.append(make_trial(axes, value + 0.01 * seed, train=0.8 if not pre else 0.6))
    folder = study_writer(trials)
    write_frames(folder)
    return answer_study(Study.open(folder))


def test_figure_6_1_is_reproduced_from_the_thesis():
    table = treatment_table(table_1_2(), "weight_decay", "semseg")
    lines = table.pivot_table(index=["arm", "split", "score"], columns="level", values="value")
    assert lines.loc[("raw", "val", "miou")].tolist() == [0.380, 0.398, 0.411, 0.397]
    assert lines.loc[("raw", "train", "miou")].tolist() == [0.697, 0.727, 0.707, 0.661]
    assert lines.loc[("pre-trained", "val", "miou")].tolist() == [0.472, 0.474, 0.471, 0.457]
    assert lines.loc[("pre-trained", "train", "loss")].tolist() == [0.323, 0.329, 0.344, 0.381]
    assert len(lines) == 8
    assert table["final"].all()


def test_stopped_trials_are_not_final_in_figure_6_1(answer):
    table = treatment_table(answer.study, "weight_decay", "semseg")
    stopped = table[~table["final"]]
    assert set(stopped["level"]) == {5e-3}
    assert set(stopped["arm"]) == {"raw"}
    assert stopped.query("split == 'val' and score == 'miou'")["value"].tolist() == [0.2]


def test_the_line_of_figure_6_1_leaves_stopped_trials_out(answer):
    table = treatment_table(answer.study, "weight_decay", "semseg")
    ax = draw_treatment(table, "weight_decay", "miou").axes[0]
    solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    ends = sorted(round(float(line.get_ydata()[-1]), 6) for line in solid)
    # The mean of the two completed raw seeds, not of all three.
    assert ends[0] == pytest.approx(0.285)
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_ydata())]
    assert sorted(float(value) for line in hollow for value in line.get_ydata()) == pytest.approx([0.2, 0.3])


def drawn_texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_values_by_seed(answer):
    table = seed_table(answer.primary[0])
    means = table.groupby("column")["value"].mean()
    assert means["raw, reference"] == pytest.approx(0.26)
    assert means["raw, best regularized"] == pytest.approx(0.31)
    assert means["pre-trained, best"] == pytest.approx(0.41)
    assert drawn_texts(draw_seeds(table)) == ["0.260", "0.310", "0.410"]
    without = draw_seeds(table[table["column"] != "raw, reference"])
    assert drawn_texts(without) == ["no value", "0.310", "0.410"]


def test_contrasts_are_in_points(answer):
    table = contrast_table(answer.primary[0])
    assert table["contrast"].tolist() == ["gap", "improvement", "remaining"]
    assert table["estimate"].tolist() == pytest.approx([15, 5, 10])
    assert table["margin"].tolist() == [1.0] * 3
    dots = [line.get_xdata()[0] for line in draw_contrasts(table).axes[0].lines if line.get_marker() == "o"]
    assert dots == pytest.approx([15, 5, 10])


def test_closure_of_every_setting(answer):
    table = closure_table(answer.primary[0])
    assert table["setting"].tolist() == [
        "weight decay 5e-4", "weight decay 5e-3", "best, chosen on other seeds"
    ]  # fmt: skip
    assert table["estimate"].tolist() == pytest.approx([100 / 3, 20, 100 / 3])
    # The stopped seed leaves two of the second setting: no interval.
    assert table["n"].tolist() == [3, 2, 3]
    assert np.isnan(table["low"].iloc[1])


def test_contexts(answer):
    table = context_table(answer)
    assert table["contrast"].tolist() == ["gap", "remaining"]
    assert [label.get_text() for label in draw_contexts(table, 0.01).axes[0].get_yticklabels()] == [""]


def test_map_counts_completed_and_stopped_trials(answer):
    table = map_table(answer.study, "semseg", None, "weight_decay").set_index(["arm", "column"])
    cell = table.loc[("raw", 5e-3)]
    assert (cell["n"], cell["stopped"], cell["planned"]) == (2, 1, 3)
    assert cell["val_miou"] == pytest.approx(0.285)
    # Seeds 0 and 1 ended at .28 and .29; the stopped one had shown .2 and its arm's best is .32.
    assert cell["shown"] == pytest.approx(0.2)


def test_a_map_without_any_value_is_drawn(answer):
    table = map_table(answer.study, "semseg", None, "weight_decay")
    empty = table.assign(n=0, val_miou=None, low=None, high=None, shown=np.nan)
    figure = draw_map(empty, None, "weight_decay", "map", color_range(empty))
    assert set(drawn_texts(figure)) == {"no value"}


def test_panels_of_a_map_share_their_colors(answer):
    """Raw's best cell must not look like pre-trained's: the same color means the same mIoU in each panel."""
    table = map_table(answer.study, "semseg", None, "weight_decay")
    low, high = color_range(table)
    assert (low, high) == pytest.approx((0.26, 0.41))
    faces = []
    for arm in ("raw", "pre-trained"):
        part = table[table["arm"] == arm]
        figure = draw_map(part, None, "weight_decay", arm, (low, high))
        faces.append([patch.get_facecolor()[:3] for patch in figure.axes[0].patches])
    assert not set(faces[0]) & set(faces[1])


def test_a_long_closure_table_is_cut_to_what_closes_most():
    known = {"low": 0.0, "high": 1.0, "n": 3}
    rows = [{"setting": f"s{i}", "estimate": float(i), "chosen": False} | known for i in range(20)]
    rows.append({"setting": "best", "estimate": 3.0, "chosen": True} | known)
    shown = shown_closure(pd.DataFrame(rows))
    assert shown["setting"].tolist() == [*(f"s{i}" for i in range(12, 20)), "best"]


def test_two_treatments_make_a_square_map(study_writer, make_trial):
    trials = [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "dropout": rate, "seed": 0}, 0.2 + rate + 10 * decay
        )
        for pre in (False, True)
        for decay in (0.0, 1e-3)
        for rate in (0.0, 0.2)
    ]
    roles = {"pretrained": "arm", "weight_decay": "treatment", "dropout": "treatment"}
    folder = study_writer(trials, roles=roles)
    write_frames(folder)
    study = Study.open(folder)
    table = map_table(study, "semseg", "weight_decay", "dropout")
    assert len(table) == 8
    assert table.query("arm == 'raw' and row == 1e-3 and column == 0.2")["val_miou"].item() == pytest.approx(
        0.41
    )
    # One treatment is shown with the other at its weakest.
    shown = treatment_table(study, "dropout", "semseg").query("split == 'val' and score == 'miou'")
    assert shown["value"].tolist() == pytest.approx([0.2, 0.4] * 2)
    names = [picture.name for picture in draw_pictures(answer_study(study))["treatments"]]
    assert "map-semseg-weight_decay-dropout" in names


def test_sampled_points_are_each_shown(study_writer, make_trial):
    trials = [
        make_trial({"pretrained": pre, "weight_decay": 1e-5 * 1.7**index, "seed": 0}, 0.3 + 0.001 * index)
        for pre in (False, True)
        for index in range(14)
    ]
    folder = study_writer(trials, roles={"pretrained": "arm", "weight_decay": "treatment"})
    write_frames(folder)
    study = Study.open(folder)
    table = sampled_table(study, "semseg")
    assert len(table) == 28
    assert table["weight_decay"].nunique() == 14
    pictures = draw_pictures(answer_study(study))["treatments"]
    assert [picture.name for picture in pictures] == ["sampled-semseg"]


def test_curves_hold_completed_trials_with_seed_bands(answer):
    table = curve_table(answer.study, answer.primary[0])
    best = table.query("line == 'raw, best regularized' and split == 'val' and score == 'miou'")
    assert best["epoch"].tolist() == [1, 2, 3, 4]
    last = best.iloc[-1]
    assert (last["low"], last["mean"], last["high"]) == pytest.approx((0.30, 0.31, 0.32))
    assert last["n"] == 3


def test_the_curves_say_who_starts_ahead_and_who_is_faster():
    def curve(line, means):
        rows = {"line": line, "split": "val", "score": "miou", "epoch": [2, 4, 6], "mean": means}
        return pd.DataFrame(rows)

    raw, ahead = curve("raw, reference", [0.1, 0.2, 0.3]), curve("pre-trained, best", [0.25, 0.32, 0.4])
    words = start_and_speed(pd.concat([raw, ahead]))
    assert "After epoch 2, the first that is scored in both, pre-trained has 0.250 and raw 0.100" in words
    assert "raw ends with at epoch 6 (0.300), pre-trained has first at epoch 4." in words
    behind = curve("pre-trained, best", [0.1, 0.1, 0.1])
    assert start_and_speed(pd.concat([raw, behind])).endswith("pre-trained has at no epoch.")
    assert start_and_speed(raw) == ""


def test_the_plane_has_every_trial(answer):
    table = plane_table(answer.study, "semseg")
    assert len(table) == 18
    assert table["final"].sum() == 17


def test_class_differences_leave_unknown_classes_out(answer):
    table = class_table(answer.study, answer.primary[0])
    remaining = table[table["contrast"] == "remaining"]
    # The fourth class of the synthetic records has no IoU.
    assert remaining["label"].tolist() == ["class 0", "class 1", "class 2"]
    assert remaining["estimate"].tolist() == pytest.approx([10] * 3)
    assert table[table["contrast"] == "improvement"]["estimate"].tolist() == pytest.approx([5] * 3)


def test_cost_counts_what_was_saved(answer):
    table = cost_table(answer.study).set_index("arm")
    assert table.loc["raw", ["trials", "epochs", "budget", "saved"]].tolist() == [9, 34, 36, 2]
    assert table.loc["pre-trained", "saved"] == 0
    assert table.loc["raw", "hours"] == pytest.approx(34 * 2 / 3600)


def test_a_report_has_every_figure_with_a_caption(answer):
    pictures = Page(answer, draw_pictures(answer), []).every_picture
    assert {picture.name for picture in pictures} >= {
        "answer-semseg", "semseg-weight_decay", "map-semseg-weight_decay", "curves-semseg",
        "plane-semseg", "classes-semseg", "cost",
    }  # fmt: skip
    assert all(len(picture.caption) > 60 for picture in pictures)


@pytest.mark.parametrize(("low", "shown"), [(0.01, True), (-0.02, False)])
def test_a_share_of_the_gap_is_drawn_only_where_a_gain_is_shown(answer, low, shown):
    """A study without a gain printed "67 %" in large type."""
    (verdict,) = answer.primary
    found = replace(
        verdict.contrasts,
        gap=Interval(0.15, 0.1, 0.2, 3, ""),
        improvement=Interval(0.05, low, 0.09, 3, ""),
    )
    picture = closure_picture(answer, replace(verdict, contrasts=found))
    assert (picture is not None) is shown
    if picture is not None:
        assert picture.name == "closure-semseg"
        assert len(picture.caption) > 60


def test_arms_have_colors_of_their_own():
    colors = arm_colors(["raw", "pre-trained", "raw"])
    assert len(set(colors.values())) == 2
    several = arm_colors([f"arm {index}" for index in range(6)])
    assert len(set(several.values())) == 6


def test_iou_of_every_class_is_shown_for_the_settings_that_matter(answer):
    verdict = answer.primary[0]
    table = iou_table(answer.study, verdict).set_index(["line", "label"])
    assert set(table.index.get_level_values("label")) == {"class 0", "class 1", "class 2"}, (
        "the fourth has none"
    )
    row = table.loc["raw, reference", "class 1"]
    assert row["value"] == pytest.approx(100 * verdict.contrasts.chosen_reference.value.mean())
    assert row["low"] < row["value"] < row["high"]


def many_classes(study_writer, make_trial, count, fractions=()):
    """A study of `count` classes: raw takes every class for the next one, pre-trained half of the time."""
    trials = [
        make_trial(
            {"pretrained": pre, "weight_decay": decay, "seed": seed, **context},
            0.2 + 0.1 * pre + 10 * decay + seed / 500,
        )
        | {"classes": count}
        for seed in range(3)
        for pre in (False, True)
        for decay in (0.0, 5e-4)
        for context in [{"label_fraction": fraction} for fraction in fractions] or [{}]
    ]
    roles = {"pretrained": "arm", "weight_decay": "treatment"}
    folder = study_writer(trials, roles=roles | ({"label_fraction": "nuisance"} if fractions else {}))
    right = 100 * np.diag(np.arange(count, 0, -1))
    wrong = np.roll(right, 1, axis=1)
    write_frames(folder)
    study = Study.open(folder)
    for _, trial in study.trials.iterrows():
        counts = right + wrong if trial["pretrained"] else wrong
        images = ImageCounts(
            ("a",), counts.diagonal()[None], counts.sum(1)[None], counts.sum(0)[None], None, counts
        )
        write_counts(Store(folder) / "trials" / trial["trial_id"], {("semseg", "val"): images})
    return answer_study(study), Store(folder)


def test_confusions_are_those_of_the_best_cells(study_writer, make_trial):
    answer, store = many_classes(study_writer, make_trial, CONFUSED + 3)
    found = confusion_tables(answer.study, answer.primary[0], store)
    assert set(found) == {"raw, best regularized", "pre-trained, best"}
    raw, pretrained = found["raw, best regularized"], found["pre-trained, best"]
    assert list(raw.columns) == list(pretrained.index) == [*(f"class {i}" for i in range(CONFUSED)), OTHERS]
    assert raw.loc["class 0", "class 0"] == 0
    assert raw.loc["class 0", "class 1"] == 1
    assert pretrained.loc["class 3", "class 3"] == pretrained.loc["class 3", "class 4"] == 0.5
    assert raw.loc[f"class {CONFUSED - 1}", OTHERS] == 1
    assert np.allclose(pretrained.sum(axis=1), 1)


def test_every_context_has_confusions_of_which_the_page_opens_the_first(
    study_writer, make_trial, undrawn, monkeypatch
):
    fractions = [0.25, 0.5, 0.75, 1.0]
    answer, store = many_classes(study_writer, make_trial, 4, fractions)
    page = make_page(answer, store)
    labels = [verdict.context.label for verdict in answer.contexts]
    found = page.pictures["confusions"]
    assert [picture.caption.split(": of")[0].split(", ")[1] for picture in found] == labels
    assert len({picture.name for picture in found}) == len(fractions)
    # As if there were room for two.
    monkeypatch.setattr("study.reporting.page.MOST_CONFUSIONS", 2 * found[0].size)
    for beside, link in ((), "{0}"), (("figures/",), '<a href="figures/{0}.svg">{0}</a>'):
        html = render([page], beside=beside)
        section = html[html.index('-classes">\n') : html.index('-gallery">\n')]
        folds = re.findall(
            r"<details( open)?><summary>Which class is taken for which, (.*?)</summary>", section
        )
        assert folds == [(" open", labels[0]), ("", labels[1])]
        for picture in found[2:]:
            assert all(link.format(name) in section for name in picture.names)


def test_without_counts_there_is_no_confusion(answer, tmp_path):
    assert confusion_picture(answer.study, answer.primary[0], Store(tmp_path)) is None


def test_of_many_classes_the_figure_shows_both_ends(study_writer, make_trial):
    answer, _ = many_classes(study_writer, make_trial, MOST_CLASSES + 10)
    picture = class_picture(answer.study, answer.primary[0])
    assert f"Of {MOST_CLASSES + 9} classes" in picture.caption
    assert [len(panel.axes[0].get_yticks()) for panel in picture.panels] == [MOST_CLASSES, MOST_CLASSES]
