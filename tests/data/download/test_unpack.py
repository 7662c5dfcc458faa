"""Archives that are damaged or hostile leave nothing behind."""

from pathlib import Path

import pytest

from segstrat.data.download.fetch import unpack
from segstrat.errors import UserError


@pytest.mark.parametrize(
    "names", [{"../outside.txt": ""}, {"VOCdevkit/link": "/etc/passwd"}, {"VOCdevkit/up": "../../.."}]
)
def test_an_archive_that_leads_outside_is_refused(
    trees, tar_of, tmp_path: Path, names: dict[str, str]
) -> None:
    trees.voc(["a"], ["b"])
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "bad.tar").write_bytes(tar_of(trees.root, names))
    with pytest.raises(UserError, match=r"bad\.tar cannot be unpacked"):
        unpack(tmp_path / "bad.tar", root, "VOCdevkit/VOC2012")
    assert list(root.iterdir()) == []
    assert not (tmp_path / "outside.txt").exists()


def test_an_archive_that_is_cut_off_or_another_is_refused(voc_archive: bytes, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "cut.tar").write_bytes(voc_archive[: len(voc_archive) // 2])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tmp_path / "cut.tar", root, "VOCdevkit/VOC2012")
    (tmp_path / "other.tar").write_bytes(voc_archive)
    with pytest.raises(UserError, match="has no folder VOCdevkit/VOC2007"):
        unpack(tmp_path / "other.tar", root, "VOCdevkit/VOC2007")
    assert list(root.iterdir()) == []
