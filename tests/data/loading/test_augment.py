"""The one-warp augmentation against a naive version that scales, crops, flips and rotates in turn."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segstrat.data.dataset import VOID
from segstrat.data.loading.augment import (
    Placement,
    draw_placement,
    mirrored_labels,
    place_image,
    place_label,
)


def draw(size=(300, 400), *, crop_size=128, strength=1.0, seed=0, epoch=0, index=0) -> Placement:
    return draw_placement(size, crop_size=crop_size, strength=strength, seed=seed, epoch=epoch, index=index)


def place(image_HW3, label_HW, placement, crop_size, mirrored=None):
    image = np.full((crop_size, crop_size, 3), 77, np.uint8)
    label = np.full((crop_size, crop_size), 77, np.uint8)
    place_image(image_HW3, placement, image)
    place_label(label_HW, placement, label, mirrored)
    return image, label


def step_by_step(image_HW3, label_HW, placement, crop_size):
    """Thesis §6.1 with Pillow, one step after the other; antialiased bilinear scaling, bicubic rotation."""
    height, width = placement.scaled_size
    image = Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BILINEAR)
    label = Image.fromarray(label_HW).resize((width, height), Image.Resampling.NEAREST)
    image_crop = Image.new("RGB", (crop_size, crop_size))
    image_crop.paste(image, (-placement.left, -placement.top))
    label_crop = Image.new("L", (crop_size, crop_size), VOID)
    label_crop.paste(label, (-placement.left, -placement.top))
    if placement.flip:
        image_crop = image_crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        label_crop = label_crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image_crop = image_crop.rotate(placement.degrees, Image.Resampling.BICUBIC)
    label_crop = label_crop.rotate(placement.degrees, Image.Resampling.NEAREST, fillcolor=VOID)
    return np.asarray(image_crop), np.asarray(label_crop)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def read_voc(shared_data: Path, count: int):
    root = shared_data / "voc-animals"
    ids = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    for name in ids[:: len(ids) // count][:count]:
        image = np.asarray(Image.open(root / f"JPEGImages/{name}.jpg").convert("RGB"))
        yield image, np.asarray(Image.open(root / f"SegmentationClass/{name}.png"))


@pytest.mark.parametrize("crop_size", [256, 384])
def test_agrees_with_step_by_step_on_real_images(shared_data, crop_size):
    agreements, ratios = [], []
    for index, (image, label) in enumerate(read_voc(shared_data, 24)):
        for epoch in range(3):
            placement = draw(image.shape[:2], crop_size=crop_size, epoch=epoch, index=index)
            ours = place(image, label, placement, crop_size)
            naive = step_by_step(image, label, placement, crop_size)
            agreements.append((ours[1] == naive[1]).mean())
            ratios.append(psnr(ours[0], naive[0]))
    assert min(agreements) >= 0.95
    assert np.median(ratios) >= 38
    assert np.quantile(ratios, 0.1) >= 35
    assert min(ratios) >= 30


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_every_strength_covers_the_pixels_that_step_by_step_covers(strength):
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (150, 210, 3), dtype=np.uint8), (0, 0), 4)
    label = rng.integers(0, 4, (15, 21), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    for index in range(20):
        placement = draw(label.shape, strength=strength, index=index)
        ours = place(smooth, label, placement, 128)
        naive = step_by_step(smooth, label, placement, 128)
        assert ((ours[1] == VOID) == (naive[1] == VOID)).mean() > 0.985
        assert (ours[1] == naive[1]).mean() > 0.95
        assert psnr(ours[0], naive[0]) > 30


def test_image_and_label_move_together():
    # A label drawn into the image: wherever the label says 1, the image must be bright.
    label = np.zeros((200, 260), np.uint8)
    label[60:140, 80:190] = 1
    image = np.repeat((label * 200)[..., None], 3, axis=2)
    for index in range(20):
        image_crop, label_crop = place(image, label, draw(label.shape, index=index), 128)
        bright = image_crop[..., 1] > 100
        labelled = label_crop != VOID
        assert (bright == (label_crop == 1))[labelled].mean() > 0.99


def test_strength_zero_is_a_plain_random_crop():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    label = rng.integers(0, 21, (90, 120), dtype=np.uint8)
    corners = set()
    for index in range(200):
        placement = draw((90, 120), crop_size=64, strength=0.0, index=index)
        assert placement.scaled_size == (90, 120)
        assert not placement.flip
        assert placement.degrees == 0
        top, left = placement.top, placement.left
        image_crop, label_crop = place(image, label, placement, 64)
        np.testing.assert_array_equal(image_crop, image[top : top + 64, left : left + 64])
        np.testing.assert_array_equal(label_crop, label[top : top + 64, left : left + 64])
        corners.add((top, left))
    tops, lefts = zip(*corners, strict=True)
    assert min(tops) == 0
    assert max(tops) == 90 - 64
    assert min(lefts) == 0
    assert max(lefts) == 120 - 64


def test_small_images_are_padded_with_black_and_void():
    image = np.full((40, 200, 3), 200, np.uint8)
    label = np.full((40, 200), 3, np.uint8)
    placement = draw((40, 200), crop_size=64, strength=0.0)
    assert -24 <= placement.top <= 0
    image_crop, label_crop = place(image, label, placement, 64)
    inside = slice(-placement.top, -placement.top + 40)
    assert (image_crop[inside] == 200).all()
    assert (label_crop[inside] == 3).all()
    outside = np.delete(np.arange(64), np.arange(64)[inside])
    assert (image_crop[outside] == 0).all()
    assert (label_crop[outside] == VOID).all()


def test_corners_uncovered_by_the_rotation_are_black_and_void():
    # The image is far larger than the crop, so only the rotation of the crop in itself can uncover a pixel.
    image = np.full((400, 400, 3), 200, np.uint8)
    label = np.full((400, 400), 3, np.uint8)
    placement = Placement((400, 400), top=150, left=150, flip=False, degrees=10.0)
    image_crop, label_crop = place(image, label, placement, 100)
    for row, column in ((0, 0), (0, 99), (99, 0), (99, 99)):
        assert label_crop[row, column] == VOID
        assert (image_crop[row, column] == 0).all()
    uncovered = label_crop == VOID
    # Four right triangles: each hypotenuse c is the middle piece of a side that is cut into c·cos, c, c·sin.
    angle = np.radians(10)
    hypotenuse = 100 / (1 + np.cos(angle) + np.sin(angle))
    assert uncovered.sum() == pytest.approx(hypotenuse**2 * np.sin(2 * angle), rel=0.05)
    np.testing.assert_array_equal(uncovered, (image_crop == 0).all(axis=2))


def test_draws_are_a_pure_function_of_seed_epoch_and_index():
    assert draw(seed=3, epoch=4, index=5) == draw(seed=3, epoch=4, index=5)
    varied = {draw(seed=s, epoch=e, index=i) for s in (0, 1) for e in (0, 1) for i in (0, 1)}
    assert len(varied) == 8


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_draws_are_distributed_as_documented(strength):
    draws = [draw((1000, 1000), strength=strength, index=index) for index in range(3000)]
    scales = np.array([each.scaled_size[0] / 1000 for each in draws])
    low, high = 0.5**strength, 2.0**strength
    assert low - 1e-3 <= scales.min() < low * 1.05
    assert high * 0.98 < scales.max() <= high + 1e-3
    assert scales.mean() == pytest.approx((low + high) / 2, rel=0.03)
    degrees = np.array([each.degrees for each in draws])
    assert np.abs(degrees).max() <= 10 * strength
    assert degrees.std() == pytest.approx(20 * strength / np.sqrt(12), rel=0.05)
    assert np.mean([each.flip for each in draws]) == pytest.approx(min(strength, 1) / 2, abs=0.03)


def test_mirrored_images_swap_left_and_right_parts():
    classes = ("background", "Left-arm", "torso", "Right-arm", "left of nothing")
    mirrored = mirrored_labels(classes)
    assert mirrored is not None
    label = np.array([[0, 1, 2, 3, VOID, 1]], np.uint8).repeat(6, 0)
    image = np.zeros((6, 6, 3), np.uint8)
    placement = Placement((6, 6), top=0, left=0, flip=True, degrees=0.0)
    _, crop = place(image, label, placement, 6, mirrored)
    np.testing.assert_array_equal(crop[0], [3, VOID, 1, 2, 3, 0])
    _, unflipped = place(image, label, Placement((6, 6), 0, 0, False, 0.0), 6, mirrored)
    np.testing.assert_array_equal(unflipped, label)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("arm_left", "arm_right"),
        ("lung-left", "lung-right"),
        ("upper left arm", "upper right arm"),
        ("arm (left)", "arm (right)"),
        ("armLeft", "ArmRight"),
        ("left lane of the right road", "right lane of the left road"),
    ],
)
def test_sides_are_found_wherever_the_words_are(left, right):
    table = mirrored_labels(["background", left, "torso", right])
    assert table is not None
    assert table[:4].tolist() == [0, 3, 2, 1]
    assert table[VOID] == VOID


def test_pairs_may_be_stated_or_denied():
    classes = ("background", "arm_l", "arm_r", "left", "right")
    assert mirrored_labels(classes, [("arm_l", "arm_r")])[:5].tolist() == [0, 2, 1, 3, 4]
    assert mirrored_labels(classes, []) is None


def test_without_flip_the_other_draws_stay_the_same():
    for index in range(20):
        free = draw(index=index)
        fixed = draw_placement(
            (300, 400), crop_size=128, strength=1.0, seed=0, epoch=0, index=index, flip=False
        )
        assert fixed == dataclasses.replace(free, flip=False)


def test_classes_without_sides_need_no_table():
    assert mirrored_labels(("background", "head", "torso", "upper arms")) is None


def test_read_only_views_are_placed_as_well():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    label = rng.integers(0, 21, (90, 120), dtype=np.uint8)
    placement = draw((90, 120), crop_size=64)
    writable = place(image, label, placement, 64)
    image.flags.writeable = label.flags.writeable = False
    for one, other in zip(writable, place(image, label, placement, 64), strict=True):
        np.testing.assert_array_equal(one, other)
