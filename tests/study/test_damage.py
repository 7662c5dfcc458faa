"""Every file of a study × every damage: recovered, or one sentence; the other files are untouched.

What a resumed study does with the files of single trials is in `state/test_recovery.py`.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segstrat.errors import UserError
from segstrat.store import Store, say_once
from study import report
from study.frame import load, write_frames
from study.frame.__main__ import main as rebuild
from study.reporting import render
from study.reporting.gallery import write_gallery
from study.run import main
from study.state.manifest import read_study_manifest, write_manifest


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "list": lambda path: path.write_text("[1, 2]\n"),
    "not text": lambda path: path.write_bytes(bytes(range(128, 256)) * 3),
    "missing": lambda path: path.unlink(),
    "folder": replace_by_folder,
}
FILES = (
    *("manifest.json", "manifest.copy.json", "lock.json", "trials.parquet", "trials.csv", "epochs.parquet"),
    *("epochs.csv", "verdict.json", "report.html", "gallery-semseg.npz"),
    *("trials/*/records.json", "trials/*/outcome.json"),
)
CASES = [(name, damage) for name in FILES for damage in DAMAGE]
# A report takes a second; the readers of its files see every damage in the other tests.
READ_BY_REPORTS = [
    (name, damage)
    for name in ("manifest.json", "trials.parquet", "epochs.parquet", "gallery-semseg.npz", "report.html")
    for damage in ("truncated", "list", "missing", "folder")
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, study_into, trial_of, without_drawing) -> Path:
    """A finished study with every file that one can have."""
    axes = [(decay, arm, seed) for decay in (0.0, 1e-3) for arm in (False, True) for seed in (0, 1)]
    folder = study_into(
        tmp_path_factory.mktemp("whole") / "study",
        [
            trial_of({"weight_decay": decay, "pretrained": arm, "seed": seed}, 0.3 + 0.2 * arm + 0.01 * seed)
            for decay, arm, seed in axes
        ],
        options={"space": "wd_grid", "data": "figures"},
    )
    store = Store(folder)
    write_manifest(store, read_study_manifest(store))
    write_frames(folder)
    shape = (1, 8, 8)
    write_gallery(
        store, "semseg", images=np.zeros((*shape, 3), np.uint8), valid=np.array([[8, 8]]),
        labels=np.zeros(shape, np.uint8), predictions=np.zeros((1, *shape), np.uint8),
        names=np.array(["raw"]), classes=np.array(["background"]), palette=np.zeros((256, 3), np.uint8),
        ids=np.array(["a"]), caption=np.array("One image."),
    )  # fmt: skip
    (folder / "lock.json").write_text('{"host": "here", "pid": 1}')
    with without_drawing():
        assert report.main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(whole):
    """The study's figures, drawn once."""
    return render.draw_pictures(render.answer_study(render.Study.open(Store(whole))))


@pytest.fixture
def study(whole, tmp_path, pictures, monkeypatch, undrawn) -> Path:
    """A copy of the study; its figures are not made again."""
    say_once.cache_clear()
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(render, "draw_pictures", lambda *_: pictures)
    return Path(shutil.copytree(whole, tmp_path / "study"))


def damaged(study: Path, name: str, damage: str) -> Path:
    path = sorted(study.glob(name))[0]
    DAMAGE[damage](path)
    return path


def contents(study: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}


def difference(expected: tuple[pd.DataFrame, pd.DataFrame], found: tuple[pd.DataFrame, pd.DataFrame]) -> str:
    """How frames differ, apart from the types of columns without a value; '' if they do not."""
    for one, other in zip(expected, found, strict=True):
        try:
            pd.testing.assert_frame_equal(one.fillna(np.nan), other.fillna(np.nan), check_dtype=False)
        except AssertionError as error:
            return str(error)
    return ""


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_status_only_looks(study, name, damage, capsys):
    path = damaged(study, name, damage)
    before = contents(study)
    code = main(["--status", str(study)])
    output = capsys.readouterr()
    assert contents(study) == before
    assert code == (2 if (name, damage) == ("lock.json", "folder") else 0), output.err
    assert output.err.count("\n") <= 1
    if name.startswith("trials/"):
        assert "7/8 trials" in output.out
        assert path.name in output.out or (path.name, damage) == ("outcome.json", "missing")


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_frames_are_loaded_or_one_sentence_says_how(study, name, damage):
    whole_frames = load(study)
    damaged(study, name, damage)
    assert difference(whole_frames, load(study)) == ""


@pytest.mark.parametrize(("name", "damage"), READ_BY_REPORTS)
def test_a_report_is_written_or_one_sentence_says_why(study, name, damage, capsys):
    path = damaged(study, name, damage)
    before = contents(study)
    code = report.main([str(study)])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert output.err.count("\n") <= 1
    written = {"verdict.json", "report.html"}
    assert code == (2 if damage == "folder" and name in written else 0), output.err
    after = contents(study)
    changed = {file.name for file in before if before[file] != after.get(file)}
    # The picture with predictions is one of the figures that are written again, or not any more.
    pictured = {"files.txt", "overview.png"} if name.startswith("gallery") else set()
    assert changed <= written | pictured
    assert {file.name for file in set(after) - set(before)} <= written & {path.name}


def mutations(content: dict | list, place: tuple = (), depth: int = 0) -> Iterator[tuple[tuple, object]]:
    """Every part of a manifest with every value that it might have by mistake; `DELETED` removes it."""
    keys = content if isinstance(content, dict) else range(min(len(content), 1))
    for key in keys:
        yield from (((*place, key), value) for value in MISTAKES)
        if isinstance(content[key], dict | list) and depth < 2:
            yield from mutations(content[key], (*place, key), depth + 1)


DELETED = "<deleted>"
MISTAKES = (DELETED, None, "x", 5, -1.5, [], {}, [1], True)


def mutated(manifest: dict, place: tuple, value: object) -> dict:
    changed = part = json.loads(json.dumps(manifest))
    for key in place[:-1]:
        part = part[key]
    if value == DELETED:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return changed


@pytest.mark.parametrize("count", [60, pytest.param(10**6, marks=pytest.mark.slow)])
def test_a_manifest_that_was_edited_is_read_or_one_sentence_says_what_is_wrong(study, capsys, count):
    (study / "manifest.copy.json").unlink()
    manifest = json.loads((study / "manifest.json").read_text())
    every = list(mutations(manifest))
    told = 0
    for index in np.random.default_rng(0).permutation(len(every))[:count]:
        (study / "manifest.json").write_text(json.dumps(mutated(manifest, *every[index])))
        for command in (main, report.main, rebuild):
            flags = ["--status", str(study)] if command is main else [str(study)]
            code = command(flags)
            error = capsys.readouterr().err
            assert (code == 2) == bool(error), (every[index], error)
            assert error.count("\n") <= 1, (every[index], error)
            told += code == 2
    assert told > min(count, len(every))


def test_what_is_wrong_in_a_manifest_is_named_and_its_copy_used(study, caplog):
    manifest = json.loads((study / "manifest.json").read_text())
    before = load(study)
    (study / "manifest.json").write_text(json.dumps(mutated(manifest, ("trials", 0, "order"), "first")))
    assert difference(before, load(study)) == ""
    assert read_study_manifest(Store(study)) == manifest
    assert "manifest.copy.json is used" in caplog.text
    (study / "manifest.copy.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json: trials\.0\.order: input should be a valid integer"):
        read_study_manifest(Store(study))
    (study / "manifest.json").write_text(json.dumps(mutated(manifest, ("roles", "weight_decay"), DELETED)))
    rebuild([str(study)])
    with pytest.raises(
        UserError, match=r"two trials have seed 0 and the setting .*roles in manifest\.json lack"
    ):
        render.answer_study(render.Study.open(Store(study)))


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_its_copy_a_manifest_is_asked_for(study, damage, capsys, monkeypatch):
    for name in ("manifest.json", "manifest.copy.json"):
        damaged(study, name, damage)
    before = contents(study)
    for flags in (["--status", str(study)], ["--resume", "--name", "study", "--storage", str(study.parent)]):
        assert main(flags) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "restore" in error
    assert contents(study) == before


def test_a_new_study_is_not_begun_among_the_trials_of_one_without_manifest(study, capsys):
    for name in ("manifest.json", "manifest.copy.json"):
        (study / name).unlink()
    assert main(["--space", "wd_grid", "--name", "study", "--storage", str(study.parent)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "missing"])
def test_frames_that_cannot_be_read_are_rebuilt_from_the_records(study, damage, capsys):
    expected = load(study)
    for suffix in ("parquet", "csv"):
        damaged(study, f"epochs.{suffix}", damage)
    with pytest.raises(UserError, match=r"study\.frame .* writes them again"):
        load(study)
    if damage != "folder":
        assert rebuild([str(study)]) == 0
        assert difference(expected, load(study)) == ""


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["trials/*/records.json", "trials/*/outcome.json"])
def test_rebuilt_frames_never_call_a_trial_without_records_completed(study, name, damage):
    path = damaged(study, name, damage)
    trials, _ = write_frames(study)
    row = trials.set_index("trial_id").loc[path.parent.name]
    # Without a scheduler the records alone decide.
    assert row["status"] == ("completed" if path.name == "outcome.json" else "unfinished")
    assert path.name in row["error"] or (path.name, damage) == ("outcome.json", "missing")
    assert (trials["status"] == "completed").sum() >= 7


OTHERS = (None, True, -1, 2**70, 1e308, "", "nan", "x" * 300, [], {}, [[1]], {"a": None})


def changed_somewhere(content: object, rng: random.Random) -> object:
    """A copy of a JSON document with one value replaced, removed or repeated, anywhere in it."""
    content = json.loads(json.dumps(content))
    holder = {"whole": content}
    place, key = holder, "whole"
    while True:
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.15:
            break
        place, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    way = rng.choice(("replace", "replace", "remove", "repeat"))
    if way == "remove" and place is not holder:
        del place[key]
    elif way == "repeat" and isinstance(place, list):
        place.insert(key, place[key])
    else:
        place[key] = rng.choice(OTHERS)
    return holder["whole"]


@pytest.mark.parametrize(
    "count", [40, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_seeded_mutations_of_every_file_are_recovered_or_told_in_a_sentence(whole, tmp_path, count, capsys):
    rng = random.Random(count)
    study = Path(shutil.copytree(whole, tmp_path / "study"))
    files = [path for path in sorted(study.rglob("*")) if path.is_file() and path.suffix != ".html"]
    for number in range(count):
        path = rng.choice(files)
        kept = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(changed_somewhere(json.loads(kept), rng)))
        else:
            place = rng.randrange(len(kept)) if kept else 0
            path.write_bytes(kept[:place] + rng.choice((b"", b"\0", b"}{", kept[place : place + 1] * 2)))
        say_once.cache_clear()
        what = f"mutation {number} of {path.relative_to(study)}: {path.read_bytes()[:300]!r}"
        code = main(["--status", str(study)])
        assert code in (0, 2), what
        for read in (load, write_frames):
            told = ""
            try:
                read(study)
            except UserError as error:
                told = str(error)
            except Exception as error:
                raise AssertionError(what) from error
            assert "\n" not in told, what
        output = capsys.readouterr()
        assert "Traceback" not in output.err, what
        shutil.rmtree(study)
        shutil.copytree(whole, study)
