"""The cache's command: what it lists, what it deletes, and what a running process keeps."""

import os
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from segstrat.data.cache import entries
from segstrat.data.cache.__main__ import main

DAY = 86400.0


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with a decoded folder, a weights file, its lock, an unfinished pre-training, and figures."""
    files = {
        "decoded/image-v1-aa/pixels.u8": 2_000_000,
        "decoded/build.lock": 0,
        "weights/resnet18-1-figures-seed0-ab.pth": 1_000_000,
        "weights/resnet18-1-figures-seed0-ab.lock": 0,
        "weights/resnet18-1-figures-seed1-cd.pth.state/epoch.pt": 500_000,
        "figures-12345678/figures.json": 100,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    return tmp_path


def run(cache: Path, *arguments: str) -> int:
    return main([*arguments, "--cache-dir", str(cache)])


def make_old(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def test_entries_are_listed_with_size_and_age(cache, capsys):
    make_old(cache / "decoded" / "image-v1-aa", 40)
    assert run(cache) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        "decoded/image-v1-aa",
        "figures-12345678",
        "weights/resnet18-1-figures-seed0-ab.pth",
        "weights/resnet18-1-figures-seed1-cd.pth.state",
    ]
    assert "2.0 MB  last used 40.0 days ago" in lines[0]
    assert lines[-1].startswith("4 entries, 3.5 MB in ")


def test_only_what_was_named_is_deleted(cache, capsys):
    assert run(cache, "figures-12345678") == 0
    assert "deleted figures-12345678" in capsys.readouterr().out
    assert not (cache / "figures-12345678").exists()
    assert (cache / "decoded" / "image-v1-aa" / "pixels.u8").exists()


def test_old_entries_are_those_not_used_for_so_long(cache):
    used, unused = cache / "weights" / "resnet18-1-figures-seed0-ab.pth", cache / "decoded" / "image-v1-aa"
    make_old(used, 50)
    make_old(unused, 50)
    written = used.stat().st_mtime
    entries.hold(used)
    entries.release_all()
    assert used.stat().st_mtime == written
    assert run(cache, "--older-than", "30d") == 0
    assert used.exists()
    assert not unused.exists()


def test_all_deletes_everything_but_locks(cache, capsys):
    assert run(cache, "--all") == 0
    assert "3.5 MB freed" in capsys.readouterr().out
    left = {path.name for path in cache.rglob("*") if path.is_file()}
    assert left == {"build.lock", "resnet18-1-figures-seed0-ab.lock"}


HOLD = "import sys; from pathlib import Path; from segstrat.data.cache.entries import hold; "
HOLD += "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_what_another_process_uses_is_kept_until_it_ends(cache, capsys):
    entry = cache / "decoded" / "image-v1-aa"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(entry)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "held\n"
    assert run(cache, "--all") == 0
    assert "kept decoded/image-v1-aa: a running process uses it" in capsys.readouterr().out
    assert (entry / "pixels.u8").exists()
    assert not (cache / "figures-12345678").exists()
    process.kill()
    process.communicate()
    assert run(cache, "--all") == 0
    assert not entry.exists()


def test_an_unfinished_pre_training_that_runs_is_kept(cache):
    state = cache / "weights" / "resnet18-1-figures-seed1-cd.pth.state"
    with filelock.FileLock(cache / "weights" / "resnet18-1-figures-seed1-cd.lock"):
        assert run(cache, "--all") == 0
        assert state.exists()
    assert run(cache, "--all") == 0
    assert not state.exists()


def test_a_folder_that_is_still_written_is_kept(cache):
    fresh, abandoned = (cache / "decoded" / f"image-v1-bb.part{digits}" for digits in ("00aa", "00bb"))
    for folder in (fresh, abandoned):
        folder.mkdir()
    make_old(abandoned, 1)
    assert run(cache, "--all") == 0
    assert fresh.exists()
    assert not abandoned.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figures-12345"], "did you mean figures-12345678?"),
        (["../outside"], "no entry '../outside'"),
        (["--older-than", "30"], "is not a duration; write 12h, 30d or 8w"),
        (["--all", "figures-12345678"], "only one of them"),
        (["--al"], "did you mean --all?"),
    ],
)
def test_a_mistake_is_one_sentence_and_deletes_nothing(cache, capsys, arguments, words):
    assert run(cache, *arguments) == 2
    assert words in capsys.readouterr().err
    assert (cache / "figures-12345678").exists()


def test_an_empty_or_missing_cache_has_no_entries(tmp_path, capsys):
    assert run(tmp_path / "none") == 0
    assert "0 entries" in capsys.readouterr().out
