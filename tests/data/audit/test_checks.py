"""What the audit finds, counts and remembers."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.audit.__main__ import main
from segstrat.data.audit.checks import QUICK_IMAGES, audit
from segstrat.data.audit.overlap import PUBLISHED, overlaps, published_lists
from segstrat.data.files import FileDataset
from segstrat.errors import UserError

VOC = "VOCdevkit/VOC2012"


@pytest.fixture
def voc_root(trees) -> Path:
    trees.voc([f"t{index:02}" for index in range(30)], [f"v{index:02}" for index in range(12)])
    # Different images, so that no two splits share one.
    for index, path in enumerate(sorted((trees.root / VOC / "JPEGImages").iterdir())):
        path.unlink()
        path.write_bytes(trees.jpeg(index))
    return trees.root


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-40])


def test_the_leakage_of_the_published_lists_is_reproduced(official_trees: Path) -> None:
    rows = {(row.left, row.right): row for row in overlaps(published_lists(official_trees))}
    # Numbers of the thesis's sets, independent of the table in the code.
    facts = {
        ("SBD train", "SBD val"): 0,
        ("VOC train", "SBD train"): 1133,
        ("VOC train", "SBD val"): 1,
        ("VOC val", "SBD train"): 545,
        ("VOC val", "SBD val"): 558,
        ("Person-Part val", "SBD train"): 911,
        ("trainaug", "Person-Part val"): 1570,
        ("Person-Part train", "SBD val"): 2,
        ("Person-Part train", "VOC val"): 0,
    }
    assert {pair: rows[pair].common for pair in facts} == facts
    assert rows["VOC train", "SBD"].left_only == 330
    assert rows["VOC val", "SBD"].left_only == 346
    assert rows["trainaug", "Person-Part val"].left_only == 9012
    assert rows["trainaug", "VOC val"].left_only == 10_582
    assert all((row.common, row.left_only) == row.published for row in rows.values())
    assert set(PUBLISHED) - set(rows) == {("CIHP train", "CIHP val")}


def test_cihp_lists_share_nothing(official_ids, trees) -> None:
    trees.cihp(["1"], ["2"])
    top = trees.root / "instance-level_human_parsing"
    for split, folder in (("train", "Training"), ("val", "Validation")):
        trees_list = top / folder / f"{split}_id.txt"
        trees_list.unlink()
        trees_list.write_text("\n".join(official_ids(f"cihp_{split}")))
    (row,) = overlaps(published_lists(trees.root))
    assert (row.common, row.left_only) == row.published == (0, 28_280)


def test_a_sound_protocol_has_no_errors_and_says_what_differs(voc_root: Path) -> None:
    report = audit(build_protocol("voc", voc_root), full=True)
    assert report.errors == []
    assert report.images == {"train": 30, "val": 12}
    assert report.pixels["semseg"]["train"][:3] == [0, 30 * 5 * 8, 0]
    assert report.warnings[0].startswith("train has 30 images, 1,434 fewer than the official 1,464")
    assert report.warnings[1].startswith("val has 12 images, 1,437 fewer than the official 1,449")
    assert "train has no pixel of 20 semseg classes (background, bicycle" in report.warnings[2]
    report.check()


def test_official_counts_give_no_warning(official_trees: Path) -> None:
    report = audit(build_protocol("d3", official_trees))
    assert report.images == {"train": 1695, "val": 893}
    assert report.warnings == report.errors == []


def test_every_damaged_file_is_named_by_a_full_audit(voc_root: Path) -> None:
    paths = [voc_root / VOC / "JPEGImages" / f"{name}.jpg" for name in ("t05", "t17", "v03")]
    for path in paths:
        damage(path)
    report = audit(build_protocol("voc", voc_root), full=True)
    assert len(report.errors) == 3
    for path, error in zip(paths, report.errors, strict=True):
        assert error.startswith(f"{path} is damaged")
    with pytest.raises(UserError, match=r"t05\.jpg is damaged.*\(2 more like it\)"):
        report.check()


def test_a_quick_audit_decodes_a_few_of_each_split(voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    plain = FileDataset.image

    def image(self: FileDataset, index: int) -> np.ndarray:
        seen.append(self.ids[index])
        return plain(self, index)

    monkeypatch.setattr(FileDataset, "image", image)
    report = audit(build_protocol("voc", voc_root))
    assert not report.full
    assert len(seen) == 2 * QUICK_IMAGES
    assert {"t00", "t29", "v00", "v11"} <= set(seen)


def test_an_image_of_two_splits_is_an_error(voc_root: Path) -> None:
    path = voc_root / VOC / "ImageSets/Segmentation/val.txt"
    path.unlink()
    path.write_text("v00\nt03\nt04\n")
    report = audit(build_protocol("voc", voc_root))
    assert report.errors == ["train and val share t03 and 1 more; remove these from one of the lists"]


def test_the_same_pixels_under_another_name_are_noticed(voc_root: Path) -> None:
    images = voc_root / VOC / "JPEGImages"
    (images / "v07.jpg").unlink()
    (images / "v07.jpg").write_bytes((images / "t11.jpg").read_bytes())
    report = audit(build_protocol("voc", voc_root), full=True)
    assert "v07 of val is pixel by pixel t11 of train; remove one" in report.warnings


def test_leakage_across_tasks_and_sources_is_an_error(trees) -> None:
    # One image under two tasks: the parts' validation image is a training image of the other task.
    trees.list_ids("train.txt", ["a", "b"])
    trees.list_ids("val.txt", ["b"])
    tables = "".join(
        f'[tasks.{task}]\nlabels = "{task}"\nclasses = ["background", "thing"]\n'
        for task in ("semseg", "parts")
    )
    splits = '[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
    trees.write("dataset.toml", f'images = "images"\n{splits}{tables}'.encode())
    for name, tasks in (("a", ["semseg"]), ("b", ["semseg", "parts"])):
        trees.write(f"images/{name}.jpg", trees.jpeg())
        for task in tasks:
            trees.write(f"{task}/{name}.png", trees.index_png(np.zeros((6, 8))))
    report = audit(build_protocol("folder", trees.root))
    assert "train and val share b; remove" in report.errors[0]


def test_a_full_audit_leaves_a_stamp_that_a_quick_one_finds(voc_root: Path, tmp_path: Path) -> None:
    protocol = build_protocol("voc", voc_root)
    full = audit(protocol, full=True, cache_dir=tmp_path)
    assert audit(build_protocol("voc", voc_root), cache_dir=tmp_path) == full
    assert not audit(protocol, cache_dir=tmp_path / "other").full


def test_a_stamp_covers_the_tasks_that_were_audited(trees, tmp_path: Path) -> None:
    trees.sbd(["x"], ["y"])
    trees.person_part(["x"], ["y"])
    audit(build_protocol("d3", trees.root), full=True, cache_dir=tmp_path)
    assert audit(build_protocol("d3", trees.root, tasks=["parts"]), cache_dir=tmp_path).full
    assert not audit(build_protocol("d3", trees.root, tasks=["boundaries"]), cache_dir=tmp_path).full


def test_images_are_counted_for_each_task(trees) -> None:
    trees.voc(["v1", "v2"], ["v3"])
    trees.sbd(["s1"], ["s2"])
    trees.cihp(["c1"], ["c2", "c3"])
    report = audit(build_protocol("d1+d2", trees.root))
    assert report.images == {"train": 5, "val": 3}
    assert report.labelled == {"semseg": {"train": 4, "val": 1}, "parts": {"train": 1, "val": 2}}


def test_a_stamp_is_void_once_a_file_has_changed(voc_root: Path, tmp_path: Path) -> None:
    audit(build_protocol("voc", voc_root), full=True, cache_dir=tmp_path)
    damage(voc_root / VOC / "JPEGImages/t00.jpg")
    report = audit(build_protocol("voc", voc_root), cache_dir=tmp_path)
    assert not report.full
    assert "t00.jpg is damaged" in report.errors[0]


def test_a_stamp_of_another_version_does_not_count(voc_root: Path, tmp_path: Path) -> None:
    protocol = build_protocol("voc", voc_root)
    audit(protocol, full=True, cache_dir=tmp_path)
    (path,) = (tmp_path / "audits").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    assert not audit(protocol, cache_dir=tmp_path).full
    path.write_text("{")
    with pytest.raises(UserError, match=r"stamp .* cannot be read"):
        audit(protocol, cache_dir=tmp_path)


def test_the_command_prints_its_findings(
    voc_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["voc", "--root", str(voc_root), "--cache-dir", str(tmp_path)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "1,464" in output
    assert "aeroplane" in output
    assert "warning: train has 30 images" in output
    assert "voc: no errors, 4 warnings" in output
    damage(voc_root / VOC / "JPEGImages/t00.jpg")
    assert main(arguments) == 1
    assert "error: " in capsys.readouterr().out


def test_the_command_prints_the_leakage_table(
    trees, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.voc(["a", "b"], ["c"])
    trees.sbd(["a"], ["c"])
    assert main(["d1", "--root", str(trees.root), "--cache-dir", str(tmp_path)]) == 0
    rows = [
        line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│ VOC train")
    ]
    assert [cell.strip() for cell in rows[0][1:-1]] == ["VOC train", "SBD train", "1", "1", "1,133 and 331"]


def test_the_command_ends_with_a_sentence_where_there_is_no_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["d1", "--root", str(tmp_path / "nowhere")]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: folder ")
    assert captured.err.count("\n") == 1
    with pytest.raises(UserError):
        main([*arguments, "--verbose"])


def encode_jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.mark.slow
def test_ten_thousand_items_are_audited_in_two_minutes(trees) -> None:
    label = np.zeros((375, 500))
    label[100:200, 100:300] = 8
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (25, 34, 3)), np.ones((15, 15, 1)))[:375, :500].astype(np.uint8)
    image, mask = encode_jpeg(smooth), trees.index_png(label)
    for split, count in (("train", 9000), ("val", 1000)):
        names = [f"{split}{index}" for index in range(count)]
        trees.list_ids(f"{VOC}/ImageSets/Segmentation/{split}.txt", names)
        for name in names:
            trees.write(f"{VOC}/JPEGImages/{name}.jpg", image)
            trees.write(f"{VOC}/SegmentationClass/{name}.png", mask)
    started = time.process_time()
    report = audit(build_protocol("voc", trees.root), full=True)
    seconds = time.process_time() - started
    assert not report.errors
    # Two minutes of two cores, whatever else the machine does meanwhile.
    assert seconds < 2 * 120
