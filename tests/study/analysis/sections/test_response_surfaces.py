"""Response surfaces of sampled spaces, and the second-order fit: recovery, coverage, place of the maximum."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

from study.analysis.sections.response_surfaces import (
    SurfaceAxis,
    difference_interval,
    fit_quadratic,
    inside_hull,
    point_means,
    response_surfaces,
    second_order_terms,
)
from study.analysis.study import Study

ROLES = {"pretrained": "arm", "weight_decay": "treatment", "dropout": "treatment"}
FLOOR = 0.1
GRID = np.array(list(itertools.product(np.linspace(-1, 1, 11), repeat=2)))
POINTS = 2 * qmc.Sobol(2, scramble=True, rng=0).random_base2(4) - 1


def sobol(count=15):
    unit = qmc.Sobol(2, scramble=True, rng=0).random_base2(4)[:count]
    drawn = np.stack([10 ** (-5 + 3 * unit[:, 0]), 0.6 * unit[:, 1]], axis=1)
    return np.vstack([[0.0, 0.0], drawn])


def smooth(pretrained, decay, dropout):
    """A maximum at weight decay 1e-3 and dropout 0.3, lower for raw."""
    peak = 0.35 if pretrained else 0.28
    return peak - 0.005 * (np.log10(decay + 1e-6) + 3) ** 2 - 0.2 * (dropout - 0.3) ** 2


def make_study(truth=smooth, points=None, seeds=(0,), sd=0.001, roles=ROLES):
    rng = np.random.default_rng(3)
    rows = []
    for pretrained in (False, True):
        chosen = points(pretrained) if callable(points) else sobol()
        for seed in seeds:
            shift = 0.02 * rng.normal() * (len(seeds) > 1)
            for decay, dropout in chosen:
                value = truth(pretrained, decay, dropout) + shift + sd * rng.normal()
                rows.append(
                    {
                        "trial_id": str(len(rows)), "tasks": "semseg", "pretrained": pretrained, "seed": seed,
                        "weight_decay": decay, "dropout": dropout, "status": "completed", "multi_task": False,
                        "last_semseg_val_miou": value, "epochs_run": 40, "epochs_budget": 40,
                        "semseg_val_constant_miou": FLOOR, "arm": "pre-trained" if pretrained else "raw",
                    }
                )  # fmt: skip
    manifest = {"roles": roles, "metric": "semseg_val_miou"}
    return Study("study", manifest, pd.DataFrame(rows), pd.DataFrame())


def arms(study):
    (surfaces,) = response_surfaces(study, "semseg")
    return {arm.arm: arm for arm in surfaces.arms}


def test_logarithmic_axis_has_room_for_zero():
    axis = SurfaceAxis.of("weight_decay", pd.Series([0.0, 1e-5, 1e-3, 1e-2]))
    scaled = axis.scale(np.array([0.0, 1e-5, 1e-2]))
    assert scaled[0] == pytest.approx(-1)
    assert -1 < scaled[1] < -0.5
    assert scaled[2] == pytest.approx(1)
    np.testing.assert_allclose(axis.unscale(scaled), [0.0, 1e-5, 1e-2], atol=1e-12)


def test_narrow_axis_is_linear():
    axis = SurfaceAxis.of("dropout", pd.Series([0.0, 0.05, 0.6]))
    assert axis.scale(np.array([0.3]))[0] == pytest.approx(0.0)


def test_the_maximum_and_its_place_are_found():
    raw = arms(make_study())["raw"]
    estimate, low, high = raw.maximum
    assert low < 0.28 < high
    assert high - low < 0.03
    assert estimate == pytest.approx(0.28, abs=0.005)
    best, smallest, largest = raw.location["weight_decay"]
    assert smallest <= 1e-3 <= largest
    assert 3e-4 < best < 3e-3
    assert raw.location["dropout"][0] == pytest.approx(0.3, abs=0.1)
    assert raw.edges == ()


def test_remaining_gap_between_the_maxima():
    (surfaces,) = response_surfaces(make_study(seeds=(0, 1)), "semseg")
    expected = surfaces.arms[1].maximum[0] - surfaces.arms[0].maximum[0]
    estimate, low, high = surfaces.remaining
    assert estimate == pytest.approx(expected)
    assert low < estimate < high


def test_gain_is_measured_from_the_unregularized_point():
    truth_gain = smooth(False, 1e-3, 0.3) - smooth(False, 0.0, 0.0)
    _, low, high = arms(make_study())["raw"].gain
    assert low <= truth_gain <= high
    assert low > 0


def test_points_that_did_not_learn_are_left_out_and_counted():
    def with_cliff(pretrained, decay, dropout):
        return FLOOR if decay > 2e-3 else smooth(pretrained, decay, dropout)

    raw, plain = arms(make_study(with_cliff))["raw"], arms(make_study())["raw"]
    lost = int((sobol()[:, 0] > 2e-3).sum())
    assert lost > 0
    assert (~raw.points["learned"]).sum() == lost
    # A fit through the cliff would miss by points.
    assert raw.maximum[0] == pytest.approx(plain.maximum[0], abs=0.005)


def test_a_maximum_at_the_end_of_the_region_is_flagged():
    def rising(pretrained, decay, dropout):
        return 0.25 + 0.1 * dropout - 0.005 * (np.log10(decay + 1e-6) + 3.5) ** 2

    assert "dropout" in arms(make_study(rising))["raw"].edges


def test_seeds_are_averaged_per_point_so_that_lack_of_fit_is_not_divided_by_their_number():
    def wavy(pretrained, decay, dropout):
        return smooth(pretrained, decay, dropout) + 0.01 * np.sin(40 * dropout)

    one, four = (arms(make_study(wavy, seeds=seeds))["raw"] for seeds in ((0,), (0, 1, 2, 3)))
    assert (four.points["seeds"] == 4).all()
    assert four.fit.degrees == one.fit.degrees
    assert four.fit.sd > 0.6 * one.fit.sd


def test_point_means_ignore_which_seeds_a_point_lacks():
    trials = pd.DataFrame(
        [(x, seed, 0.1 * x + (0.5 if seed == 1 else 0.0)) for x in (0, 1, 2) for seed in (0, 1)],
        columns=["x", "seed", "value"],
    )
    incomplete = trials.drop(index=5)
    means = point_means(incomplete, ["x"])
    assert np.diff(means["value"]) == pytest.approx([0.1, 0.1])


def test_points_chosen_by_each_arm_itself_are_called_adaptive():
    shifted = make_study(points=lambda pretrained: sobol() * (1 + 0.1 * pretrained))
    assert response_surfaces(shifted, "semseg")[0].adaptive
    assert not response_surfaces(make_study(), "semseg")[0].adaptive


def test_a_grid_has_no_surface():
    levels = [(d, p) for d in (0.0, 1e-3, 1e-2) for p in (0.0, 0.2, 0.4)]
    assert response_surfaces(make_study(points=lambda _: levels), "semseg") == []


def test_an_arm_without_final_values_has_no_maximum():
    study = make_study()
    study.trials.loc[~study.trials["pretrained"], "status"] = "failed"
    (surfaces,) = response_surfaces(study, "semseg")
    assert surfaces.arms[0].maximum is None
    assert surfaces.remaining is None


def test_candidates_that_were_trained_again_are_no_part_of_the_surface():
    screening = make_study().trials.assign(stage="screening")
    again = screening.iloc[[3, 20]].assign(stage="answering", seed=7, last_semseg_val_miou=0.9)
    trials = pd.concat([screening, again], ignore_index=True)
    study = Study("study", {"roles": ROLES, "metric": "semseg_val_miou"}, trials, pd.DataFrame())
    assert arms(study)["raw"].maximum == arms(make_study())["raw"].maximum


def bowl(places, at=(0.2, -0.2)):
    return 0.3 - 0.03 * (places[:, 0] - at[0]) ** 2 - 0.02 * (places[:, 1] - at[1]) ** 2


def noisy(truth, seed, sd=0.005):
    return truth(POINTS) + sd * np.random.default_rng(seed).normal(size=len(POINTS))


def test_terms_of_two_axes():
    assert second_order_terms(np.array([[2.0, 3.0]])).tolist() == [[1, 2, 3, 4, 9, 6]]


def test_a_noise_free_surface_is_recovered():
    tiny = 1e-6 * np.random.default_rng(0).normal(size=len(POINTS))
    fit = fit_quadratic(POINTS, bowl(POINTS) + tiny, GRID)
    np.testing.assert_allclose(fit.mean, bowl(GRID), atol=1e-5)
    np.testing.assert_allclose(fit.grid[fit.best], [0.2, -0.2], atol=1e-9)


def test_statements_hold_in_at_least_their_share_of_repetitions():
    held = {"band": 0, "maximum": 0, "gain": 0, "location": 0}
    repetitions = 150
    reference = np.array([0.0, 0.0])
    for seed in range(repetitions):
        fit = fit_quadratic(POINTS, noisy(bowl, seed), GRID)
        truth = bowl(GRID)
        low, high = fit.band
        held["band"] += bool(((low <= truth) & (truth <= high))[fit.inside].all())
        largest = truth[fit.inside].max()
        held["maximum"] += fit.maximum[1] <= largest <= fit.maximum[2]
        gain = largest - bowl(reference[None])[0]
        held["gain"] += fit.gain(reference)[1] <= gain <= fit.gain(reference)[2]
        held["location"] += bool(fit.plausible[np.where(fit.inside, truth, -1).argmax()])
    # Three standard errors below 95 %.
    assert min(held.values()) >= repetitions * (0.95 - 3 * np.sqrt(0.95 * 0.05 / repetitions))


def test_the_location_is_vague_for_a_flat_surface_and_narrow_for_a_steep_one():
    flat = fit_quadratic(POINTS, noisy(lambda places: np.full(len(places), 0.3), 0), GRID)
    steep = fit_quadratic(POINTS, noisy(lambda places: 0.3 + 10 * (bowl(places) - 0.3), 0), GRID)
    assert flat.plausible.sum() > 0.6 * flat.inside.sum()
    assert steep.plausible.sum() < 0.1 * steep.inside.sum()


def test_nothing_is_read_outside_the_hull():
    corner = POINTS[(POINTS < 0.5).all(axis=1)]
    fit = fit_quadratic(
        corner, corner.sum(axis=1) + 0.01 * np.random.default_rng(0).normal(size=len(corner)), GRID
    )
    assert not fit.inside[-1]
    assert (fit.grid[fit.best] <= 0.5).all()


@pytest.mark.parametrize("count", [0, 5, 7])
def test_too_few_points_give_no_surface(count):
    assert fit_quadratic(POINTS[:count], bowl(POINTS[:count]), GRID) is None


def test_points_on_a_line_give_no_surface():
    line = np.stack([np.linspace(-1, 1, 16)] * 2, axis=1)
    assert fit_quadratic(line, noisy(bowl, 0), GRID) is None
    assert not inside_hull(GRID, line).any()


def test_hull_of_one_axis_is_the_range():
    assert inside_hull(np.array([[-1.0], [0.0], [1.0]]), np.array([[-0.5], [1.0]])).tolist() == [
        False,
        True,
        True,
    ]


def test_difference_of_two_estimates_with_symmetric_intervals():
    estimate, low, high = difference_interval((5.0, 2.0, 8.0), (1.0, -3.0, 5.0))
    assert (estimate, low, high) == (4.0, -1.0, 9.0)
