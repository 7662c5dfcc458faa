"""The decoded cache: the same pixels, built once, atomically, one copy in memory."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from segstrat.atomic import is_temporary
from segstrat.data import build_protocol
from segstrat.data.cache import decoded
from segstrat.data.cache.decoded import CachedDataset, RaggedArrays, cached
from segstrat.data.files import FileDataset, Item, LabelFile
from segstrat.data.labels import IndexPng
from segstrat.errors import UserError
from segstrat.store import say_once

TASKS = ("semseg", "parts")
DECODE = IndexPng((0, 1, 2))


@pytest.fixture
def items(trees) -> list[Item]:
    """Images of different sizes; each is labelled for `semseg`, every other one for `parts` too."""
    found = []
    for index in range(6):
        size = (5 + index, 9 - index)
        rng = np.random.default_rng(index)
        image = trees.write(f"images/{index}.jpg", trees.jpeg(index, size))
        labels = {}
        for task in TASKS[: 2 - index % 2]:
            content = trees.index_png(rng.integers(0, 3, size))
            labels[task] = LabelFile(trees.write(f"{task}/{index}.png", content), DECODE)
        found.append(Item(f"image {index}", image, labels))
    return found


def build(items: list[Item], folder: Path, tasks: tuple[str, ...] = TASKS) -> CachedDataset:
    return cached([FileDataset(items, tasks)], folder)[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "decoded").iterdir() if path.name != "build.lock")


def assert_same(left: CachedDataset, right: FileDataset) -> None:
    assert tuple(left.ids) == tuple(right.ids)
    assert left.digest == right.digest
    for index in range(len(right)):
        cached_sample, sample = left.read(index), right.read(index)
        assert left.tasks_of(index) == right.tasks_of(index)
        np.testing.assert_array_equal(cached_sample.image, sample.image)
        assert cached_sample.labels.keys() == sample.labels.keys()
        for task, labels in sample.labels.items():
            np.testing.assert_array_equal(cached_sample.labels[task], labels)


def test_the_cache_holds_what_the_files_decode_to(items: list[Item], tmp_path: Path) -> None:
    assert_same(build(items, tmp_path), FileDataset(items, TASKS))


def test_reading_the_cache_decodes_nothing_and_gives_views(items: list[Item], tmp_path: Path) -> None:
    dataset = build(items, tmp_path)
    shutil.rmtree(items[0].image.parent)
    first, second = dataset.read(2).image, dataset.read(2).image
    assert np.shares_memory(first, second)
    assert not first.flags.writeable


def test_a_whole_cache_is_not_built_again(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(items, tmp_path)

    def decode(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(FileDataset, "image", decode)
    monkeypatch.setattr(FileDataset, "label", decode)
    assert build(items, tmp_path).read(0).id == "image 0"


def test_trials_with_other_tasks_share_the_images(items: list[Item], tmp_path: Path) -> None:
    build(items, tmp_path, ("semseg",))
    before = names(tmp_path)
    build(items, tmp_path, TASKS)
    added = set(names(tmp_path)) - set(before)
    assert [name.split("-")[0] for name in added] == ["parts"]


def test_a_changed_file_makes_another_cache(items: list[Item], tmp_path: Path) -> None:
    build(items, tmp_path)
    before = set(names(tmp_path))
    items[3].image.write_bytes(items[3].image.read_bytes() + b"\0")
    build(items, tmp_path)
    assert [name.split("-")[0] for name in set(names(tmp_path)) - before] == ["image"]


def test_a_cached_dataset_pickles_as_a_path(items: list[Item], tmp_path: Path) -> None:
    dataset = build(items, tmp_path)
    dataset.read(0)
    content = pickle.dumps(dataset)
    assert len(content) < 2_000
    np.testing.assert_array_equal(pickle.loads(content).read(1).image, dataset.read(1).image)


def test_fractions_and_protocols_share_one_cache(trees, tmp_path: Path) -> None:
    trees.voc([f"t{index}" for index in range(8)], ["v"])
    trees.sbd(["s1"], ["s2"])
    trees.cihp(["c1"], ["c2"])
    build_protocol("d1", trees.root, cache_dir=tmp_path)
    before = names(tmp_path)
    half = build_protocol("d1-half", trees.root, cache_dir=tmp_path)
    assert names(tmp_path) == before
    assert len(half.train) == 5
    build_protocol("d1+d2", trees.root, cache_dir=tmp_path)
    assert set(before) < set(names(tmp_path))
    assert len([name for name in names(tmp_path) if name.startswith("semseg")]) == 2


def test_a_damaged_file_leaves_no_cache(items: list[Item], tmp_path: Path) -> None:
    items[4].image.write_bytes(items[4].image.read_bytes()[:200])
    with pytest.raises(UserError, match=r"4\.jpg"):
        build(items, tmp_path)
    assert names(tmp_path) == []


def test_labels_out_of_range_leave_no_cache_and_name_the_file(items: list[Item], tmp_path: Path) -> None:
    values = tuple(range(7))
    items = [
        Item(item.id, item.image, {"semseg": LabelFile(item.labels["semseg"].path, IndexPng(values))})
        for item in items
    ]
    dataset = FileDataset(items, ("semseg",), {"semseg": 3})
    cached([dataset], tmp_path)
    shutil.rmtree(tmp_path / "decoded")
    wrong = items[3].labels["semseg"].path
    label = np.array(Image.open(wrong))
    label[0, 0] = 5
    Image.fromarray(label).save(wrong)
    message = r"3\.png gives label 5 for task semseg, whose 3 classes are 0–2 \(void is 255\); fix the file"
    with pytest.raises(UserError, match=message):
        cached([dataset], tmp_path)
    assert not [name for name in names(tmp_path) if name.startswith("semseg")]


def test_too_little_space_is_said_before_anything_is_decoded(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    needed = sum(item_size for item_size in ((5 + i) * (9 - i) * (4 + (i + 1) % 2) for i in range(6)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=needed - 1))
    monkeypatch.setattr(FileDataset, "image", None)
    with pytest.raises(UserError, match=r"needs 0\.0 MB in .*, but 0\.0 MB are free.*--no-cache"):
        build(items, tmp_path)
    assert names(tmp_path) == []
    assert decoded.decoded_bytes(FileDataset(items, TASKS), ("image", *TASKS)) == needed


def test_a_disk_that_fills_during_the_build_leaves_nothing(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    plain_open = Path.open

    def full_disk(path: Path, *arguments: object, **options: object) -> object:
        return plain_open(Path("/dev/full") if path.name == "pixels.u8" else path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(UserError, match=r"cannot be written: the disk is full; free some space"):
        build(items, tmp_path)
    assert names(tmp_path) == []
    monkeypatch.undo()
    assert_same(build(items, tmp_path), FileDataset(items, TASKS))


def test_a_folder_that_cannot_be_written_is_named(items: list[Item], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache folder .*/file/decoded cannot be written"):
        build(items, tmp_path / "file")


def test_another_versions_cache_is_left_alone(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "FORMAT", 0)
    build(items, tmp_path)
    older = set(names(tmp_path))
    monkeypatch.undo()
    assert_same(build(items, tmp_path), FileDataset(items, TASKS))
    assert older < set(names(tmp_path))
    assert len(names(tmp_path)) == 2 * len(older)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message", "verify"),
    [
        (lambda entry: (entry / "entry.json").write_text('{"format": 0, "bytes": 1}'), "has", False),
        (lambda entry: (entry / "entry.json").write_text("{"), "cannot be read", False),
        (lambda entry: (entry / "entry.json").write_text("[]"), "cannot be read", False),
        (lambda entry: (entry / "pixels.u8").write_bytes(b"123"), "has 3 bytes", False),
        (lambda entry: (entry / "pixels.u8").unlink(), "cannot be read", False),
        (lambda entry: os.truncate(entry / "shapes.npy", 140), "cannot be read", False),
        (lambda entry: (entry / "shapes.npy").write_bytes(b""), "cannot be read", False),
        (lambda entry: flip_a_byte(entry / "pixels.u8"), "differs from its checksum", True),
    ],
)
def test_a_damaged_cache_is_built_again(
    items: list[Item], tmp_path: Path, damage, message: str, verify: bool, caplog: pytest.LogCaptureFixture
) -> None:
    say_once.cache_clear()
    build(items, tmp_path)
    entry = next((tmp_path / "decoded").glob("semseg-*"))
    damage(entry)
    dataset = FileDataset(items, TASKS)
    assert_same(cached([dataset], tmp_path, verify=verify)[0], dataset)
    assert f"cache {entry} {message}" in caplog.text
    assert len(names(tmp_path)) == 3
    assert RaggedArrays(entry).problem(verify=True) == ""


def test_an_entry_of_a_version_without_checksums_is_used(items: list[Item], tmp_path: Path) -> None:
    build(items, tmp_path)
    entry = next((tmp_path / "decoded").glob("image-*"))
    facts = json.loads((entry / "entry.json").read_text())
    del facts["checksum"]
    (entry / "entry.json").write_text(json.dumps(facts))
    assert RaggedArrays(entry).problem(verify=True) == ""


def test_remains_of_a_killed_build_are_removed_once_they_are_old(items: list[Item], tmp_path: Path) -> None:
    top = tmp_path / "decoded"
    for name in ("image-v1-a.part00000001", "image-v1-b.part00000002"):
        (top / name).mkdir(parents=True)
        (top / name / "pixels.u8").write_bytes(b"12")
    long_ago = time.time() - 86_400
    for path in (top / "image-v1-a.part00000001" / "pixels.u8", top / "image-v1-a.part00000001"):
        os.utime(path, (long_ago, long_ago))
    build(items, tmp_path)
    assert not (top / "image-v1-a.part00000001").exists()
    assert (top / "image-v1-b.part00000002").exists()


def test_without_locks_the_first_builder_wins(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    overtakers = [lambda: build(items, tmp_path)]
    plain = decoded._write_entry

    def overtaken(arrays: Iterator[np.ndarray], partial: Path) -> None:
        plain(arrays, partial)
        if overtakers:
            overtakers.pop()()

    monkeypatch.setattr(decoded, "_write_entry", overtaken)
    assert_same(build(items, tmp_path), FileDataset(items, TASKS))
    assert not [name for name in names(tmp_path) if is_temporary(name)]
    assert len(names(tmp_path)) == 3


WORKER = r"""
import pickle, sys, threading
from pathlib import Path
from segstrat.data.cache.decoded import cached
from segstrat.data.files import FileDataset

items, folder, mode = pickle.loads(sys.stdin.buffer.read())
decode = FileDataset.image
def counted(self, index):
    sys.stdout.write(f"decode {index}\n")
    sys.stdout.flush()
    if mode == "hang" and index == 3:
        threading.Event().wait(60)
    return decode(self, index)
FileDataset.image = counted
dataset = cached([FileDataset(items, ("semseg", "parts"))], folder)[0]
print("sum", sum(int(dataset.read(i).image.sum()) for i in range(len(dataset))), flush=True)
"""


def start(items: list[Item], folder: Path, mode: str = "") -> subprocess.Popen:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    worker.stdin.write(pickle.dumps((items, folder, mode)))
    worker.stdin.close()
    return worker


def test_a_killed_build_does_not_look_whole(items: list[Item], tmp_path: Path) -> None:
    worker = start(items, tmp_path, "hang")
    with worker.stdout:
        assert worker.stdout.readline().startswith(b"decode")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert all(is_temporary(name) for name in names(tmp_path))
    assert_same(build(items, tmp_path), FileDataset(items, TASKS))


def test_one_of_several_processes_builds(items: list[Item], tmp_path: Path) -> None:
    workers = [start(items, tmp_path) for _ in range(3)]
    outputs = []
    for worker in workers:
        with worker.stdout:
            outputs.append(worker.stdout.read().decode().splitlines())
        assert worker.wait() == 0
    assert len({output[-1] for output in outputs}) == 1
    decoded = [line for output in outputs for line in output if line.startswith("decode")]
    assert sorted(decoded) == [f"decode {index}" for index in range(6)]


READER = """
import pickle, sys
from pathlib import Path

dataset = pickle.loads(Path(sys.argv[1]).read_bytes())
print(sum(int(dataset.read(i).image.sum()) for i in range(len(dataset))), flush=True)
sys.stdin.read()
"""


def pixel_memory(process: subprocess.Popen) -> tuple[int, int]:
    """Kilobytes of mapped pixels that a process sees, and its proportional share of them."""
    seen = share = 0
    mapped = False
    for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            mapped = line.endswith("pixels.u8")
        elif mapped and name == "Rss:":
            seen += int(rest[0])
        elif mapped and name == "Pss:":
            share += int(rest[0])
    return seen, share


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory shares are read from /proc")
def test_two_processes_hold_one_copy_in_memory(trees, tmp_path: Path) -> None:
    items = []
    for index in range(4):
        image = trees.write(f"{index}.jpg", trees.jpeg(index, (800, 800)))
        label = LabelFile(trees.write(f"{index}.png", trees.index_png(np.zeros((800, 800)))), DECODE)
        items.append(Item(str(index), image, {"semseg": label}))
    (tmp_path / "dataset").write_bytes(pickle.dumps(build(items, tmp_path, ("semseg",))))
    kilobytes = 4 * 800 * 800 * 3 / 1024
    command = [sys.executable, "-c", READER, str(tmp_path / "dataset")]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    # Both have touched every page when either's memory is looked at.
    sums = [reader.stdout.readline() for reader in readers]
    memory = [pixel_memory(reader) for reader in readers]
    for reader in readers:
        reader.communicate()
    assert sums[0] == sums[1] != b""
    assert all(seen > 0.95 * kilobytes for seen, _ in memory)
    assert sum(share for _, share in memory) < 1.1 * kilobytes
