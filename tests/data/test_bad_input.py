"""Mistakes in the data: one sentence that names the file, the problem and the fix."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.data import build_protocol
from segstrat.data.audit.checks import audit
from segstrat.errors import UserError

VOC = "VOCdevkit/VOC2012"


@pytest.fixture
def voc_root(trees) -> Path:
    trees.voc([f"t{index}" for index in range(4)], ["v0", "v1"])
    return trees.root


def replace(path: Path, content: bytes) -> None:
    # The trees' files are many names of one file: only this name is to change.
    path.unlink()
    path.write_bytes(content)


def message_of_building(root: Path, name: str = "voc") -> str:
    """What a user reads who builds the protocol and reads it all."""
    with pytest.raises(UserError) as raised:
        audit(build_protocol(name, root), full=True).check()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_truncated_image(voc_root: Path, trees) -> None:
    path = voc_root / VOC / "JPEGImages/t2.jpg"
    replace(path, trees.jpeg(0, (200, 200))[:2000])
    replace(voc_root / VOC / "SegmentationClass/t2.png", trees.index_png(np.zeros((200, 200))))
    message = message_of_building(voc_root)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith("download it again")


def test_an_image_that_is_none(voc_root: Path) -> None:
    path = voc_root / VOC / "JPEGImages/t2.jpg"
    replace(path, b"<html>404</html>")
    assert message_of_building(voc_root) == f"{path} is not an image that can be read; download it again"


def test_a_truncated_mask(voc_root: Path, trees) -> None:
    path = voc_root / VOC / "SegmentationClass/v1.png"
    content = trees.index_png(np.random.default_rng(0).integers(0, 20, (200, 200)))
    replace(path, content[: len(content) // 2])
    replace(voc_root / VOC / "JPEGImages/v1.jpg", trees.jpeg(0, (200, 200)))
    assert message_of_building(voc_root).startswith(f"{path} is damaged (")


def test_a_mask_of_another_size(voc_root: Path, trees) -> None:
    path = voc_root / VOC / "SegmentationClass/t1.png"
    replace(path, trees.index_png(np.zeros((8, 6))))
    assert message_of_building(voc_root) == (
        f"{path} is 6×8 pixels, its image t1.jpg is 8×6; a label map must have the size of its image"
    )


def test_a_label_that_is_no_class(voc_root: Path, trees) -> None:
    path = voc_root / VOC / "SegmentationClass/t1.png"
    replace(path, trees.index_png(np.full((6, 8), 23)))
    assert message_of_building(voc_root) == (
        f"{path} contains label 23, but the 21 classes have the values 0–20 and void is 255; fix the file or "
        "the list of classes"
    )


def test_a_mask_in_colours(voc_root: Path) -> None:
    path = voc_root / VOC / "SegmentationClass/t1.png"
    path.unlink()
    Image.new("RGB", (8, 6), (128, 0, 0)).save(path)
    message = message_of_building(voc_root)
    assert message.startswith(f"{path} is a RGB image, but labels are index PNGs")
    assert message.endswith("convert its colors to class numbers first")


def test_an_empty_split_list(voc_root: Path) -> None:
    path = voc_root / VOC / "ImageSets/Segmentation/train.txt"
    replace(path, b"\n \n")
    assert (
        message_of_building(voc_root) == f"split list {path} is empty; it must contain one image id per line"
    )


def test_an_id_that_is_listed_twice(voc_root: Path) -> None:
    path = voc_root / VOC / "ImageSets/Segmentation/train.txt"
    replace(path, b"t0\nt1\nt0\n")
    assert message_of_building(voc_root) == (
        f"{path} line 3: id t0 is listed twice (first in line 1); keep one"
    )


def test_a_list_of_paths_instead_of_ids(voc_root: Path) -> None:
    path = voc_root / VOC / "ImageSets/Segmentation/train.txt"
    replace(path, b"/JPEGImages/t0.jpg /SegmentationClass/t0.png\n")
    assert "line 1: expected one image id" in message_of_building(voc_root)


def test_ids_without_files(voc_root: Path) -> None:
    for name in ("t1", "t3"):
        (voc_root / VOC / f"JPEGImages/{name}.jpg").unlink()
    message = message_of_building(voc_root)
    assert message.startswith(f"{voc_root / VOC}/JPEGImages/t1.jpg (No such file or directory) and 1 more")
    assert "remove their ids from the split list" in message


def test_an_id_without_a_mask(voc_root: Path) -> None:
    (voc_root / VOC / "SegmentationClass/v0.png").unlink()
    assert message_of_building(voc_root).startswith(
        f"{voc_root / VOC}/SegmentationClass/v0.png (No such file"
    )


def test_links_that_lead_to_themselves(voc_root: Path) -> None:
    path = voc_root / VOC / "JPEGImages/t1.jpg"
    path.unlink()
    path.symlink_to(path)
    message = message_of_building(voc_root)
    assert message.startswith(f"{path} (Too many levels of symbolic links)")


def test_a_folder_that_links_to_its_parent_is_no_endless_search(voc_root: Path, trees) -> None:
    (voc_root / "again").symlink_to(voc_root)
    protocol = build_protocol("voc", voc_root / VOC / "..")
    assert len(protocol.train) == 4


def test_a_root_that_is_a_link_to_itself(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match=r"loop cannot be read \(Too many levels of symbolic links\)"):
        build_protocol("voc", loop)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nowhere cannot be read \(No such file or directory\); give a readable data root"
    ):
        build_protocol("voc", tmp_path / "nowhere")


def test_a_read_only_root_is_only_read(voc_root: Path, tmp_path: Path) -> None:
    def state() -> dict[Path, float]:
        return {path: path.lstat().st_mtime for path in sorted(voc_root.rglob("*"))}

    before = state()
    writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    folders = [path for path in (voc_root, *voc_root.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(folder.stat().st_mode & ~writable)
    try:
        protocol = build_protocol("voc", voc_root, cache_dir=tmp_path / "cache")
        report = audit(protocol, full=True, cache_dir=tmp_path / "cache")
    finally:
        for folder in folders:
            folder.chmod(folder.stat().st_mode | stat.S_IWUSR)
    assert not report.errors
    assert state() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_root_without_permission(voc_root: Path) -> None:
    voc_root.chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read \\(Permission denied\\)"):
            build_protocol("voc", voc_root)
    finally:
        voc_root.chmod(0o755)


@pytest.mark.parametrize("length", [0, 100, 150])
def test_a_truncated_matlab_file(trees, length: int) -> None:
    trees.voc(["v1"], ["v2"])
    trees.sbd(["s1"], ["s2"])
    path = trees.root / "benchmark_RELEASE/dataset/cls/s1.mat"
    replace(path, path.read_bytes()[:length])
    message = message_of_building(trees.root, "d1")
    assert message.startswith(f"{path} is not a complete MATLAB file with GTcls")


def test_a_matlab_file_of_something_else(trees) -> None:
    import scipy.io

    trees.voc(["v1"], ["v2"])
    trees.sbd(["s1"], ["s2"])
    path = trees.root / "benchmark_RELEASE/dataset/cls/s1.mat"
    path.unlink()
    scipy.io.savemat(path, {"GTcls": {"Other": np.zeros((6, 8))}})
    assert message_of_building(trees.root, "d1").startswith(f"{path} has no label map in GTcls.Segmentation")
    path.unlink()
    scipy.io.savemat(path, {"GTinst": np.zeros((6, 8))})
    assert message_of_building(trees.root, "d1").startswith(
        f"{path} is not a complete MATLAB file with GTcls"
    )


def test_a_label_out_of_range_in_a_matlab_file(trees) -> None:
    trees.voc(["v1"], ["v2"])
    trees.sbd(["s1"], ["s2"], label=23)
    assert "s1.mat contains label 23, but the 21 classes" in message_of_building(trees.root, "d1")
