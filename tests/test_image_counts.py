import dataclasses

import numpy as np
import pytest
import torch

from segstrat.image_counts import (
    COUNTS,
    GROUPS,
    ImageCounts,
    best_constant_miou,
    image_group,
    image_half,
    read_counts,
    write_counts,
)
from segstrat.metrics import ConfusionMatrix
from segstrat.store import Store

CLASSES = 4


def counts_of(labels, predictions):
    """Counts of label maps (N, H, W) by a plain loop; 255 is void."""
    tables = [np.zeros((len(labels), CLASSES), np.int64) for _ in range(3)]
    for index, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        valid = label != 255
        for name in range(CLASSES):
            tables[0][index, name] = (valid & (label == name) & (prediction == name)).sum()
            tables[1][index, name] = (valid & (label == name)).sum()
            tables[2][index, name] = (valid & (prediction == name)).sum()
    return ImageCounts(tuple(f"image-{i}" for i in range(len(labels))), *tables)


def test_a_confusion_matrix_survives_the_file_and_must_have_the_right_shape(maps, tmp_path):
    counts = counts_of(*maps)
    classes = counts.hits.shape[1]
    confusion = np.arange(classes**2).reshape(classes, classes)
    write_counts(Store(tmp_path), {("semseg", "val"): dataclasses.replace(counts, confusion=confusion)})
    np.testing.assert_array_equal(read_counts(Store(tmp_path))["semseg", "val"].confusion, confusion)
    write_counts(Store(tmp_path), {("semseg", "val"): dataclasses.replace(counts, confusion=confusion[1:])})
    with pytest.raises(ValueError, match="semseg/val/confusion is"):
        read_counts(Store(tmp_path))


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 0, 0, 1, 2, 255], size=(40, 6, 7))
    predictions = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 3, labels.shape))
    return labels, np.where(predictions == 255, 0, predictions)


def reference_miou(labels, predictions):
    matrix = ConfusionMatrix(CLASSES)
    matrix.update(torch.from_numpy(predictions), torch.from_numpy(labels))
    return matrix.compute()["miou"]


def test_all_images_give_the_miou_of_the_confusion_matrix(maps):
    assert counts_of(*maps).miou() == pytest.approx(reference_miou(*maps), abs=1e-12)


def test_halves_are_the_miou_of_their_images(maps):
    labels, predictions = maps
    counts = counts_of(labels, predictions)
    in_a = np.array([image_half(name) == "a" for name in counts.ids])
    assert 10 < in_a.sum() < 30
    found = counts.half_mious()
    assert found["a"] == pytest.approx(reference_miou(labels[in_a], predictions[in_a]), abs=1e-12)
    assert found["b"] == pytest.approx(reference_miou(labels[~in_a], predictions[~in_a]), abs=1e-12)


def test_the_jackknife_leaves_each_group_out_once(maps):
    labels, predictions = maps
    counts = counts_of(labels, predictions)
    groups = np.array([image_group(name) for name in counts.ids])
    first = np.unique(groups)[0]
    found = counts.jackknife_mious()
    assert len(found) == len(np.unique(groups)) <= GROUPS
    assert found[0] == pytest.approx(reference_miou(labels[groups != first], predictions[groups != first]))


def test_the_best_constant_prediction_is_the_most_frequent_class(maps):
    labels, _ = maps
    expected = max(reference_miou(labels, np.full_like(labels, name)) for name in range(CLASSES))
    assert counts_of(*maps).constant_miou() == pytest.approx(expected, abs=1e-12)
    # Class 3 has no pixel and counts in no mean.
    assert best_constant_miou([60, 20, 20, 0]) == pytest.approx(0.6 / 3)
    assert np.isnan(best_constant_miou([0, 0]))


def test_counts_survive_the_file(maps, tmp_path):
    store = Store(tmp_path)
    assert read_counts(store) == {}
    counts = counts_of(*maps)
    write_counts(store, {("semseg", "val"): counts, ("semseg", "test"): counts_of(maps[1], maps[0] % 4)})
    found = read_counts(store)
    assert list(found) == [("semseg", "val"), ("semseg", "test")]
    assert found["semseg", "val"].ids == counts.ids
    for name in ("hits", "labeled", "predicted"):
        np.testing.assert_array_equal(getattr(found["semseg", "val"], name), getattr(counts, name))


def test_a_damaged_file_is_one_error(maps, tmp_path):
    write_counts(Store(tmp_path), {("semseg", "val"): counts_of(*maps)})
    content = (tmp_path / COUNTS).read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"{}"):
        (tmp_path / COUNTS).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"counts\.npz cannot be read"):
            read_counts(Store(tmp_path))


def test_the_file_of_400_voc_images_is_small(tmp_path):
    rng = np.random.default_rng(0)
    hits, labeled, predicted = (np.zeros((400, 21), np.int64) for _ in range(3))
    for image in range(400):
        present = np.append(0, rng.choice(np.arange(1, 21), rng.integers(1, 4), replace=False))
        labeled[image, present] = rng.multinomial(375 * 500, rng.dirichlet(np.ones(len(present))))
        hits[image] = rng.binomial(labeled[image], 0.7)
        wrong = (labeled[image] - hits[image]).sum()
        predicted[image] = hits[image] + rng.multinomial(wrong, np.ones(21) / 21)
    ids = tuple(f"2007_{index:06d}" for index in range(400))
    write_counts(Store(tmp_path), {("semseg", "val"): ImageCounts(ids, hits, labeled, predicted)})
    assert len(Store(tmp_path).read(COUNTS)) < 40_000
