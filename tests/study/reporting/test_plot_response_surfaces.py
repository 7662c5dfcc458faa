"""Tables, figures and sentences of response surfaces."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Polygon
from scipy.stats import qmc

from study.analysis.sections.response_surfaces import response_surfaces, surface_sentences
from study.analysis.study import Study
from study.reporting.plot_response_surfaces import draw_surface, surface_picture, surface_table


def make_surfaces(axes=("weight_decay", "dropout"), lost=0, sd=0.002, failed=False):
    unit = qmc.Sobol(2, scramble=True, rng=0).random_base2(4)
    rng = np.random.default_rng(0)
    rows = []
    for pretrained in (False, True):
        for number, (a, b) in enumerate(unit):
            cell = dict(zip(axes, (10 ** (-5 + 3 * a), 0.6 * b), strict=False))
            value = (
                0.25 + 0.1 * pretrained - 0.02 * (a - 0.5) ** 2 - 0.05 * (b - 0.5) ** 2 + sd * rng.normal()
            )
            facts = {"trial_id": str(len(rows)), "tasks": "semseg", "multi_task": False, "seed": 0}
            facts |= {"status": "failed" if failed else "completed", "epochs_run": 40, "epochs_budget": 40}
            facts["arm"] = "pre-trained" if pretrained else "raw"
            value = 0.05 if number < lost else value
            rows.append(facts | cell | {"pretrained": pretrained, "last_semseg_val_miou": value})
    roles = {"pretrained": "arm"} | dict.fromkeys(axes, "treatment")
    study = Study("study", {"roles": roles, "metric": "semseg_val_miou"}, pd.DataFrame(rows), pd.DataFrame())
    (surfaces,) = response_surfaces(study, "semseg")
    return surfaces


def test_table_is_in_percent_and_holds_the_maximum():
    surfaces = make_surfaces()
    raw = surfaces.arms[0]
    table = surface_table(surfaces, raw)
    inside = table[table["inside"]]
    assert inside["value"].max() == pytest.approx(100 * raw.maximum[0])
    assert (inside["low"] < inside["value"]).all()
    assert inside["weight_decay"].between(1e-5, 1e-2).all()
    assert table.loc[inside["value"].idxmax(), "plausible"]


def test_the_surface_is_clipped_to_the_points_that_learned():
    surfaces = make_surfaces(lost=2)
    raw = surfaces.arms[0]
    figure = draw_surface(surface_table(surfaces, raw), raw, tuple(surfaces.axes))
    ax = figure.axes[0]
    (region,) = [patch for patch in ax.patches if isinstance(patch, Polygon)]
    assert all(drawn.get_clip_path() is not None for drawn in ax.collections)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert len(crosses[0].get_xdata()) == 2
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert region.get_path().contains_points([(star.get_xdata()[0], star.get_ydata()[0])], radius=0.02).any()


def test_picture_has_a_panel_per_arm():
    picture = surface_picture(make_surfaces(), "figures (synthetic)")
    assert [panel.axes[0].get_title(loc="left") for panel in picture.panels] == ["raw", "pre-trained"]
    assert picture.name == "surface-semseg"


def test_one_sampled_axis_is_a_curve():
    picture = surface_picture(make_surfaces(axes=("weight_decay",)), "figures")
    assert picture.panels[0].axes[0].get_ylabel() == "validation mIoU, %"


def test_no_picture_without_values():
    surfaces = make_surfaces(failed=True)
    assert surface_picture(surfaces, "figures") is None
    assert "too few for a surface" in " ".join(surface_sentences(surfaces))


def test_sentences_give_maximum_place_region_and_gap():
    text = " ".join(surface_sentences(make_surfaces(lost=1)))
    assert "Raw: the fitted maximum is 25." in text
    assert "beyond them the surface would extrapolate" in text
    assert "1 point did not learn and is left out" in text
    assert "The maximum of pre-trained is 10." in text
