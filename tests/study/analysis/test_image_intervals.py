"""Intervals over seeds and images, on simulated images whose true means are known."""

import numpy as np
import pytest

from segstrat.image_counts import GROUPS, ImageCounts, image_group
from study.analysis.caveats_and_notes import FEW_IMAGES
from study.analysis.contrasts import add_image_variance
from study.analysis.intervals import Interval, mean_interval

IMAGES = 120
IDS = tuple(f"image-{index}" for index in range(IMAGES))


def simulated_difference(rng, *, seeds, truth=0.02, seed_sd=0.004, image_sd=0.06, ids=IDS):
    """Differences of two cells whose advantage differs from image to image; images are drawn anew each time.

    Returns:
        differences by seed, and their mean without each group of images.
    """
    by_image = truth + rng.normal(0, image_sd, len(ids))
    by_seed = by_image + rng.normal(0, seed_sd, (seeds, 1))
    groups = np.array([image_group(name) for name in ids])
    without = np.array([by_seed[:, groups != group].mean() for group in range(GROUPS)])
    return by_seed.mean(axis=1), without


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_what_other_images_would_show(seeds):
    """The interval over seeds alone takes the images as fixed and misses the truth in most cases."""
    rng = np.random.default_rng(seeds)
    truth, runs = 0.02, 400
    covered = {"seeds": 0, "images": 0}
    for _ in range(runs):
        differences, without = simulated_difference(rng, seeds=seeds, truth=truth)
        over_seeds = mean_interval(differences)
        over_both = add_image_variance(over_seeds, differences, without)
        covered["seeds"] += over_seeds.low <= truth <= over_seeds.high
        covered["images"] += over_both.low <= truth <= over_both.high
    assert 0.925 <= covered["images"] / runs <= 0.98
    assert covered["seeds"] / runs < 0.85


def width_and_coverage(images, runs=400, truth=0.02):
    """Half the mean width of the interval over three seeds and so many images, and how often it is right."""
    rng = np.random.default_rng(images)
    widths, covered = [], 0
    for run in range(runs):
        ids = tuple(f"image-{run}-{index}" for index in range(images))
        differences, without = simulated_difference(rng, seeds=3, truth=truth, ids=ids)
        found = add_image_variance(mean_interval(differences), differences, without)
        widths.append((found.high - found.low) / 2)
        covered += found.low <= truth <= found.high
    return np.mean(widths), covered / runs


def test_below_thirty_images_the_interval_is_wide_and_then_too_narrow():
    """The rule of the warning about few images."""
    width, coverage = width_and_coverage(FEW_IMAGES)
    assert 0.02 < width < 0.026
    assert coverage > 0.915
    fewer, _ = width_and_coverage(FEW_IMAGES // 3)
    assert fewer > 1.6 * width
    assert width_and_coverage(4)[1] < 0.92


def test_the_variance_of_seeds_and_images_is_added():
    differences = np.array([0.01, 0.02, 0.03, 0.04])
    interval = mean_interval(differences)
    # A jackknife that never changes adds nothing.
    same = add_image_variance(interval, differences, np.full(20, 0.025))
    assert (same.low, same.high) == pytest.approx((interval.low, interval.high))
    spread = add_image_variance(interval, differences, 0.025 + np.linspace(-0.01, 0.01, 20))
    assert spread.low < interval.low
    assert spread.high > interval.high
    assert spread.estimate == interval.estimate


@pytest.mark.parametrize("share", [0.1, 0.5, 1, 2])
def test_images_widen_the_interval_of_few_seeds(share):
    """With 20 groups of images and three seeds, both intervals had been equal to the last digit."""
    differences = np.array([0.01, 0.02, 0.03])
    over_seeds = differences.std(ddof=1) / np.sqrt(3)
    groups = np.linspace(-1, 1, 20)
    groups *= share * over_seeds / np.sqrt(19 / 20 * (groups**2).sum())
    alone = mean_interval(differences)
    both = add_image_variance(alone, differences, 0.02 + groups)
    wider = (both.high - both.low) / (alone.high - alone.low)
    # The quantiles of Student's t with 19 and with two degrees of freedom.
    assert wider == pytest.approx(np.sqrt(1 + (share * 2.093 / 4.303) ** 2), rel=1e-3)


def test_too_few_seeds_or_no_spread_give_no_interval():
    few = Interval(0.01, None, None, 2, "no interval")
    assert not add_image_variance(few, np.array([0.01, 0.01]), np.linspace(0, 1, 20)).known
    flat = Interval(0.01, 0.01, 0.01, 4, "")
    assert not add_image_variance(flat, np.full(4, 0.01), np.full(20, 0.01)).known


def test_the_jackknife_of_miou_matches_the_spread_over_samples_of_images():
    """mIoU is no mean over images; its grouped jackknife still estimates how it varies with them."""
    rng = np.random.default_rng(1)

    def sample():
        labeled = rng.integers(20, 60, (IMAGES, 3))
        hits = np.round(labeled * rng.beta(4, 2, (IMAGES, 3))).astype(int)
        return ImageCounts(IDS, hits, labeled, hits + rng.integers(0, 20, (IMAGES, 3)))

    samples = [sample() for _ in range(150)]
    spread = np.std([counts.miou() for counts in samples], ddof=1)
    estimated = []
    for counts in samples:
        without = counts.jackknife_mious()
        estimated.append(np.sqrt((len(without) - 1) / len(without) * ((without - without.mean()) ** 2).sum()))
    assert np.mean(estimated) == pytest.approx(spread, rel=0.2)
