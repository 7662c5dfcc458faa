"""The embedded data: the same on every machine, rightly labelled, in the real formats, written once."""

import errno
import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.figures import (
    CLASSES,
    IMAGE_SIZE,
    KINDS,
    PARTS,
    VOID,
    draw_scene,
    draw_single,
    ensure_figures,
    write,
)
from segstrat.data.figures.canvas import SUBPIXELS, Canvas, Material, Placement
from segstrat.errors import UserError
from segstrat.pretraining.images import open_classification
from segstrat.store import cache_dir, say_once

PERSON = CLASSES.index("person")


def digest(*arrays: np.ndarray) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(array.tobytes())
    return hasher.hexdigest()[:16]


# Pixels


@pytest.mark.parametrize(
    ("split", "index", "expected"),
    [("train", 0, "7fe68a4ffd850406"), ("val", 7, "0034d310884273e0"), ("test", 42, "c2e653b3718ffd64")],
)
def test_scenes_are_the_same_on_every_machine(split: str, index: int, expected: str) -> None:
    scene = draw_scene(split, index)
    assert digest(scene.image, scene.semseg, scene.parts) == expected


@pytest.mark.parametrize(
    ("split", "index", "expected"), [("train", 11, "f7e020c26e55d3eb"), ("val", 6, "0cb5f6c3f4bad56d")]
)
def test_single_objects_are_the_same_on_every_machine(split: str, index: int, expected: str) -> None:
    assert digest(draw_single(split, index)[0]) == expected


def test_no_image_occurs_twice() -> None:
    drawn = [
        digest(draw_scene(split, index).image) for split in ("train", "val", "test") for index in range(6)
    ]
    drawn += [digest(draw_single(split, index)[0]) for split in ("train", "val") for index in range(6)]
    assert len(set(drawn)) == len(drawn)


# Labels


@pytest.fixture(scope="module")
def scenes() -> list:
    return [draw_scene("train", index) for index in range(40)]


def test_scenes_hold_every_class_and_part_and_little_void(scenes: list) -> None:
    semseg, parts = (np.stack([getattr(scene, name) for scene in scenes]) for name in ("semseg", "parts"))
    assert set(np.unique(semseg)) == {*range(len(CLASSES)), VOID}
    assert set(np.unique(parts)) == {*range(len(PARTS)), VOID}
    counts = np.bincount(semseg.ravel(), minlength=256) / semseg.size
    assert 0.4 < counts[0] < 0.75
    assert 0.02 < counts[VOID] < 0.12
    assert counts[1 : len(CLASSES)].min() > 0.005


def test_parts_are_those_of_people(scenes: list) -> None:
    for scene in scenes:
        person = scene.semseg == PERSON
        known = scene.parts != VOID
        assert (scene.parts[person & known] > 0).all()
        assert (scene.parts[~person & known & (scene.semseg != VOID)] == 0).all()
        # Where the parts are void a person meets something, and that is void for both tasks.
        assert (scene.semseg[~known] == VOID).all()
    assert any((scene.semseg == VOID).sum() > (scene.parts == VOID).sum() > 0 for scene in scenes)


def test_void_separates_whatever_meets(scenes: list) -> None:
    for scene in scenes:
        for a, b in (
            (scene.semseg[:, :-1], scene.semseg[:, 1:]),
            (scene.semseg[:-1], scene.semseg[1:]),
        ):
            assert ((a == b) | (a == VOID) | (b == VOID)).all()


def test_people_stand_in_most_scenes_and_are_sometimes_hidden(scenes: list) -> None:
    with_people = sum(bool((scene.semseg == PERSON).any()) for scene in scenes)
    assert 0.7 * len(scenes) < with_people < len(scenes)


def test_scenes_differ_in_light_and_are_not_blown_out(scenes: list) -> None:
    means = np.array([scene.image.mean() for scene in scenes])
    assert means.std() > 8
    clipped = np.mean([((scene.image == 0) | (scene.image == 255)).mean() for scene in scenes])
    assert clipped < 0.1


def test_kinds_take_turns_in_the_classification_images() -> None:
    labels = [draw_single("train", index)[1] for index in range(16)]
    assert labels == [*range(len(KINDS)), *range(len(KINDS))]


# Shapes, against a loop over pixels


def pixels(mask_of) -> np.ndarray:
    """Boolean (12, 16) of a predicate on the centre (x, y) of each pixel of a canvas of 16."""
    centres = [index * SUBPIXELS + SUBPIXELS // 2 for index in range(16)]
    return np.array([[mask_of(x, y) for x in centres] for y in centres])


def drawn(region) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[region.window] = region.inside
    return mask


@pytest.fixture
def canvas() -> Canvas:
    return Canvas(16, np.random.default_rng(0))


@pytest.mark.parametrize("ends", [((40, 50), (200, 170)), ((100, 100), (100, 100)), ((-60, 90), (400, 20))])
def test_a_capsule_is_all_that_is_near_a_segment(canvas: Canvas, ends: tuple) -> None:
    (ax, ay), (bx, by) = ends

    def near(x: int, y: int) -> bool:
        length2 = (bx - ax) ** 2 + (by - ay) ** 2
        t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length2 if length2 else 0.0
        t = min(1.0, max(0.0, t))
        return math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)) <= 35

    mask = drawn(canvas.capsule(*ends, 35))
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(mask, pixels(near))


def test_an_ellipse_is_turned_clockwise(canvas: Canvas) -> None:
    turn = math.radians(30)

    def inside(x: int, y: int) -> bool:
        u = (x - 120) * math.cos(turn) + (y - 130) * math.sin(turn)
        v = (y - 130) * math.cos(turn) - (x - 120) * math.sin(turn)
        return (u / 90) ** 2 + (v / 40) ** 2 <= 1

    np.testing.assert_array_equal(drawn(canvas.ellipse((120, 130), (90, 40), 30)), pixels(inside))


@pytest.mark.parametrize("sense", [1, -1])
def test_a_polygon_is_filled_in_either_sense(canvas: Canvas, sense: int) -> None:
    corners = [(30, 20), (220, 60), (130, 240)][::sense]
    mask = drawn(canvas.polygon(corners))

    def inside(x: int, y: int) -> bool:
        crossings = 0
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossings += 1
        return crossings % 2 == 1

    np.testing.assert_array_equal(mask, pixels(inside))


def test_what_is_painted_last_is_seen(canvas: Canvas) -> None:
    canvas.paint(canvas.below(0), Material((10, 10, 10), mottle=0))
    canvas.paint(canvas.below(4), Material((100, 0, 0), mottle=0), instance=1, label=3, part=2)
    canvas.paint(canvas.below(10), Material((0, 100, 0), mottle=0), instance=2, label=1)
    instances, labels, parts = canvas.seen()
    assert labels[:, 5].tolist() == [0] * 4 + [3] * 6 + [1] * 6
    assert parts[:, 5].tolist() == [0] * 4 + [2] * 6 + [0] * 6
    assert instances[:, 5].tolist() == [0] * 4 + [1] * 6 + [2] * 6
    assert canvas.image()[[0, 5, 15], 7].tolist() == [[10, 10, 10], [100, 0, 0], [0, 100, 0]]


def test_a_shape_outside_the_canvas_paints_nothing(canvas: Canvas) -> None:
    for region in (
        canvas.capsule((900, 900), (950, 990), 20),
        canvas.ellipse((-400, 100), (50, 50)),
        canvas.polygon([(300, 0), (400, 0), (300, 90)]),
    ):
        assert not drawn(region).any()
        canvas.paint(region, Material((1, 2, 3)), label=1)
    assert not canvas.seen()[1].any()


def test_a_placement_turns_flips_and_scales() -> None:
    upright = Placement(5, 7, 10)
    assert upright.points([(0.5, 0.25)]) == [(160, 152)]
    assert Placement(5, 7, 10, flip=True).points([(0.5, 0.25)]) == [(0, 152)]
    # Clockwise by 90° on screen, what pointed right points down.
    assert Placement(5, 7, 10, angle=90).points([(0.5, 0.0)]) == [(80, 192)]
    assert upright.length(0.5) == 80
    assert upright.length(0.01) == SUBPIXELS


# Files


@pytest.mark.usefixtures("few_figures")
def test_the_files_are_read_by_the_real_readers(tmp_path: Path) -> None:
    root = ensure_figures(tmp_path)
    protocol = build_protocol("figures", cache_dir=tmp_path)
    assert protocol.synthetic
    assert (len(protocol.train), len(protocol.val)) == (4, 2)
    for index in range(4):
        sample, scene = protocol.train.read(index), draw_scene("train", index)
        np.testing.assert_array_equal(sample.image, scene.image)
        np.testing.assert_array_equal(sample.labels["semseg"], scene.semseg)
        np.testing.assert_array_equal(sample.labels["parts"], scene.parts)
    label = Image.open(root / "SegmentationClass" / "val_0001.png")
    assert label.mode == "P"
    assert label.getpalette()[3:6] == [128, 0, 0]
    assert label.size == (IMAGE_SIZE, IMAGE_SIZE)


@pytest.mark.usefixtures("few_figures")
def test_the_classification_split_is_an_image_folder(tmp_path: Path) -> None:
    data = open_classification(ensure_figures(tmp_path) / "Classification")
    assert data.classes == tuple(sorted(kind.name for kind in KINDS))
    assert np.bincount(data.train.labels).tolist() == [2] * len(KINDS)
    image, which = draw_single("train", 10)
    path = next(path for path in data.train.paths if path.name == "00010.png")
    assert path.parent.name == KINDS[which].name
    np.testing.assert_array_equal(data.train.read(data.train.paths.index(path)), image)


@pytest.mark.usefixtures("few_figures")
def test_the_facts_hold_a_digest_of_every_pixel(tmp_path: Path) -> None:
    facts = json.loads((ensure_figures(tmp_path) / "figures.json").read_text())
    hasher = hashlib.sha256()
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for index in range(count):
            scene = draw_scene(split, index)
            for array in (scene.image, scene.semseg, scene.parts):
                hasher.update(array.tobytes())
    for split, count in (("train", 16), ("val", 8)):
        for index in range(count):
            hasher.update(draw_single(split, index)[0].tobytes())
    assert facts["digest"] == hasher.hexdigest()
    assert facts["semseg"] == list(CLASSES)


def test_several_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helpers' images are in their places, and in the digest in their order."""
    monkeypatch.setattr(write, "SHARED_FROM", 1)
    drawn = {}
    for cores in (1, 3):
        monkeypatch.setattr(write, "cpu_cores", lambda cores=cores: cores)
        root = tmp_path / str(cores)
        write._make_folders(root)
        drawn[cores] = list(islice(write._drawn(root), 12))
    assert drawn[1] == drawn[3]
    assert len({*drawn[1]}) == 12
    names = [path.name for path in sorted((tmp_path / "3" / "JPEGImages").iterdir())]
    assert names[:12] == [f"train_{index:04d}.png" for index in range(12)]
    for name in names[:12]:
        first, second = ((tmp_path / cores / "JPEGImages" / name).read_bytes() for cores in ("1", "3"))
        assert first == second


def test_the_error_of_a_helper_is_that_of_the_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SHARED_FROM", 1)
    monkeypatch.setattr(write, "cpu_cores", lambda: 2)
    monkeypatch.setattr(write, "_write_job", lambda *_: b"drawn here")
    with pytest.raises(FileNotFoundError):
        list(write._drawn(tmp_path / "no folder"))


@pytest.mark.usefixtures("few_figures")
def test_it_is_drawn_once_even_if_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = write._draw
    monkeypatch.setattr(write, "_draw", lambda *given: (calls.append(given), plain(*given)))
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: ensure_figures(tmp_path, progress=False), range(4)))
    assert len(set(roots)) == len(calls) == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]


@pytest.mark.usefixtures("few_figures")
def test_data_that_is_damaged_is_drawn_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = ensure_figures(tmp_path, progress=False)
    scene = root / "JPEGImages" / "train_0000.png"
    before = scene.read_bytes()
    ensure_figures(tmp_path, verify=True, progress=False)
    assert not caplog.records
    for damage in (
        lambda: scene.write_bytes(before[:100]),
        lambda: scene.write_bytes(before[:-20] + bytes([before[-20] ^ 1]) + before[-19:]),
        scene.unlink,
        (root / "figures.json").unlink,
    ):
        damage()
        say_once.cache_clear()
        assert ensure_figures(tmp_path, verify=True, progress=False) == root
        assert scene.read_bytes() == before
    assert [record.message for record in caplog.records] == [
        f"the drawn scenes in {root} are damaged or of an earlier version; they are drawn again"
    ] * 4
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("few_figures")
def test_without_locks_the_first_to_finish_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with ThreadPoolExecutor(3) as pool:
        roots = list(pool.map(lambda _: ensure_figures(tmp_path, progress=False), range(3)))
    assert len(set(roots)) == 1
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [roots[0]]
    assert (roots[0] / "figures.json").is_file()


@pytest.mark.usefixtures("few_figures")
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_single", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_figures(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.undo()


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(errno.ENOSPC, "No space left"), "the disk is full"), (PermissionError(13, "denied"), "denied")],
)
def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(write, "_save", fails)
    with pytest.raises(UserError, match=rf"cannot be written to .*{words}.*SEGSTRAT_CACHE"):
        ensure_figures(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cache_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        ensure_figures(tmp_path / "cache")


def test_a_changed_generator_is_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write.generator_digest()
    for name in write.GENERATOR:
        (tmp_path / name).write_text((Path(write.__file__).parent / name).read_text())
    monkeypatch.setattr(write, "__file__", str(tmp_path / "write.py"))
    assert write.generator_digest() == before
    (tmp_path / "kinds.py").write_text((tmp_path / "kinds.py").read_text() + "# more\n")
    after = write.generator_digest()
    assert after != before
    monkeypatch.setattr(write, "SCENES", {"train": 1})
    assert write.generator_digest() not in (before, after)


@pytest.mark.usefixtures("few_figures")
def test_a_relative_cache_folder_is_the_same_for_all_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGSTRAT_CACHE", "cache")
    root = ensure_figures(progress=False)
    assert root.is_absolute()
    assert root.parent == cache_dir() == tmp_path / "cache"


def test_without_a_choice_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGSTRAT_CACHE")
    assert cache_dir().name == "segstrat"
