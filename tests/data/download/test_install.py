"""The command, from a mirror on this machine, and the data sets that are fetched by hand."""

import hashlib
from pathlib import Path

import pytest

from segstrat.data import build_protocol
from segstrat.data.download.__main__ import main
from segstrat.data.download.published import DATA_SETS, Archive, Published


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def mirror(server, voc_archive: bytes, monkeypatch: pytest.MonkeyPatch):
    """The server in the place of VOC's mirror."""
    server.content = voc_archive
    archive = Archive(server.url, "voc.tar", md5(voc_archive), "VOCdevkit/VOC2012")
    published = DATA_SETS["voc"]
    monkeypatch.setitem(DATA_SETS, "voc", Published(published.name, published.fits, archive))
    return server


def test_the_command_leaves_a_data_set_that_reads(
    mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert main(["voc", "--root", str(root)]) == 0
    assert build_protocol("voc", root).train.ids == ("a",)
    assert f"VOC 2012 is in {root}" in capsys.readouterr().out
    assert sorted(path.name for path in root.rglob("*") if path.suffix in (".part", ".tar")) == []
    assert main(["voc", "--root", str(root)]) == 0
    assert len(mirror.requests) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cihp", ["lip.sysuhcp.com", "Training/Category_ids", "28,280"]),
        ("person-part", ["liangchiehchen.com", "pascal_person_part_gt", "1,716"]),
    ],
)
def test_the_command_says_what_to_fetch_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    assert main([name, "--root", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert all(word in output for word in [*words, str(tmp_path)])
    assert "{" not in output


def test_what_was_fetched_by_hand_is_recognised(trees, capsys: pytest.CaptureFixture[str]) -> None:
    trees.cihp(["c1"], ["c2"])
    trees.person_part(["p1"], ["p2"])
    assert main(["cihp", "person-part", "--root", str(trees.root)]) == 0
    assert "by hand" not in capsys.readouterr().out


def test_a_data_set_without_a_name_here_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vocs", "--root", str(tmp_path)]) == 2
    assert "unknown data set 'vocs': did you mean 'voc'?" in capsys.readouterr().err


def test_a_root_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["voc", "--root", str(tmp_path / "file" / "root")]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_the_mirrors_are_those_of_torchvision() -> None:
    archives = {name: each.archive for name, each in DATA_SETS.items() if each.archive}
    assert sorted(archives) == ["sbd", "voc"]
    assert all(len(archive.md5) == 32 and archive.url.startswith("https://") for archive in archives.values())
