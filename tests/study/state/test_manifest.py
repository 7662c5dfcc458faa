"""What a resumed study must share with its beginning, and the sentence when it does not."""

import json

import pytest

from segstrat.errors import UserError
from segstrat.store import Store, read_object
from study.planning.trials import PlannedTrial
from study.state.changes import accepted_changes, answered_plans, changes, refuse_changes, refuse_mixture
from study.state.manifest import (
    ROOT,
    ManifestFile,
    code_digest,
    describe_code,
    read_study_manifest,
    versions,
    write_manifest,
)

CONFIG = {"tasks": ["semseg"], "epochs": 1, "seed": 0, "model": "fcn8s", "pretrained": False}
BEGUN = {
    "space": "wd_grid",
    "schema": 1,
    "study": "wd_grid-d1",
    "question": "Does weight decay close the gap?",
    "metric": "semseg_val_miou",
    "commit": "0123456789abcdef",
    "space_source": "SPACE = {}",
    "code": "c0de",
    "scheduler": {"name": "none"},
    "seeds": [0],
    "budget": 1.0,
    "weights": {"source": "w.pth", "per_seed": False, "files": {"w.pth": "ab"}},
    "data": {"name": "d1", "digest": "da7a"},
    "options": {"numerics": {"precision": "float32", "device_cache": False}},
    "trials": [
        {"trial_id": name, "order": order, "arm": "raw", "axes": {}, "config": CONFIG}
        for order, name in enumerate("ab")
    ],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space_source": "SPACE = {1}"}, "the space's file"),
        ({"code": "other"}, "the code in segstrat/"),
        ({"scheduler": {"name": "asha"}}, "the scheduler"),
        ({"seeds": [1]}, "the seeds ([0] before, [1] now)"),
        ({"seeds": [0, 1], "design": {"max_seeds": 20}}, "the seeds ([0] before, [0, 1] now)"),
        ({"budget": 0.5}, "the budget (1.0 before, 0.5 now)"),
        (
            {"weights": {"source": "w.pth", "per_seed": False, "files": {"w.pth": "cd"}}},
            "the pre-trained weights",
        ),
        (
            {"weights": {"source": "figures", "per_seed": True, "data_digest": "f", "files": {}}},
            "the pre-trained weights",
        ),
        ({"data": {"name": "d1", "digest": "0ther"}}, "the data d1"),
        (
            {"options": {"numerics": {"precision": "bfloat16", "device_cache": False}}},
            "--precision (float32 before, bfloat16 now)",
        ),
        (
            {"options": {"numerics": {"precision": "float32", "device_cache": True}}},
            "--device-cache (False before, True now)",
        ),
        ({"trials": [{"trial_id": "a"}, {"trial_id": "c"}, {"trial_id": "d"}]}, "the trials (2 new, 1 gone)"),
    ],
)
def test_every_change_is_named(change, words):
    (found,) = changes(BEGUN, BEGUN | change)
    assert found.words == words
    with pytest.raises(UserError) as caught:
        refuse_changes(Store("results/x"), [found])
    assert words in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    assert found.advice in str(caught.value)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"code": "other"}, "go back to commit 0123456789"),
        ({"budget": 0.5}, "leave out --budget"),
        (
            {"weights": {"source": "other.pth", "files": {"other.pth": "cd"}}},
            "give those of the beginning (w.pth)",
        ),
        ({"data": {"name": "d1", "digest": "0ther"}}, "restore its files"),
        ({"precision": "bfloat16"}, "pass --precision float32"),
        (
            {"options": {"numerics": {"precision": "float32", "device_cache": True}}},
            "leave out --device-cache",
        ),
    ],
)
def test_the_advice_undoes_the_kind_of_change(change, advice):
    begun = BEGUN | {"precision": "float32"}
    (found,) = changes(begun, begun | change)
    assert advice in found.advice
    assert ("commit" in found.advice) == ("code" in change)


def test_changes_that_make_other_trials_of_a_point_are_refused_even_where_they_are_accepted():
    def trial(name: str, decay: float, seed: int) -> dict:
        return {"trial_id": name, "axes": {"weight_decay": decay}, "config": {"seed": seed}}

    begun = BEGUN | {"code": "ab", "trials": [trial("a", 0.0, 0), trial("b", 0.0, 1)]}
    more = begun | {"code": "cd", "trials": [*begun["trials"], trial("c", 1e-3, 0)]}
    refuse_mixture(Store("results/x"), begun, more)
    other = begun | {"code": "cd", "trials": [*begun["trials"], trial("c", 0.0, 0)]}
    words = r"with the code in segstrat/ changed, 1 of its trials would be trained again.*give --name"
    with pytest.raises(UserError, match=words):
        refuse_mixture(Store("results/x"), begun, other)


def test_the_precision_that_auto_means_may_be_given_by_name():
    begun = BEGUN | {"precision": "bfloat16", "options": {"numerics": {"precision": "auto"}}}
    named = {"options": {"numerics": {"precision": "bfloat16"}}}
    assert changes(begun, begun | named) == []
    other = {"precision": "float32", "options": {"numerics": {"precision": "float32"}}}
    (found,) = changes(begun, begun | other)
    assert found.words == "the precision (bfloat16 before, float32 now)"


def test_a_moved_file_of_weights_is_no_change():
    moved = {"source": "elsewhere/w2.pth", "per_seed": False, "files": {"w2.pth": "ab"}}
    assert changes(BEGUN, BEGUN | {"weights": moved}) == []


def test_weights_made_for_later_seeds_are_no_change():
    begun = BEGUN | {"weights": {"per_seed": True, "data_digest": "f", "epochs": None, "files": {}}}
    later = begun | {"weights": begun["weights"] | {"files": {"seed2": "ab"}}}
    assert changes(begun, later) == []
    other = begun | {"weights": begun["weights"] | {"epochs": 3}}
    assert [change.words for change in changes(begun, other)] == ["the pre-trained weights"]


def test_every_accepted_change_is_kept():
    first = accepted_changes({}, {"commit": "one"}, ["the code in segstrat/"])
    assert accepted_changes({"accepted": first}, {"commit": "one"}, []) == first
    second = accepted_changes({"accepted": first}, {"commit": "two"}, ["the data d1"])
    assert second[0] == first[0]
    assert second[1]["changes"] == ["the data d1"]
    assert second[1]["commit"] == "two"
    assert second[1]["when"].startswith("20")


def test_what_does_not_matter_is_no_change():
    assert changes(BEGUN, BEGUN | {"commit": "new", "hardware": {"cpus": 9}, "command": "other"}) == []
    refuse_changes(Store("results/x"), [])


def test_a_missing_truncated_or_foreign_manifest_is_one_sentence(tmp_path):
    study = Store(tmp_path)
    with pytest.raises(UserError, match="contains no study"):
        read_study_manifest(study)
    study.write("manifest.json", b'{"schema": 1, ')
    with pytest.raises(UserError, match="cannot be read"):
        read_study_manifest(study)
    write_manifest(study, BEGUN | {"schema": 99})
    with pytest.raises(UserError, match="schema 99"):
        read_study_manifest(study)
    for name in ("options", "trials", "scheduler"):
        write_manifest(study, {key: value for key, value in BEGUN.items() if key != name})
        with pytest.raises(UserError, match=f"lacks {name}|{name}: field required"):
            read_study_manifest(study)
    write_manifest(study, BEGUN)
    assert read_study_manifest(study) == BEGUN


def test_a_change_is_written_once_and_no_change_not_at_all(tmp_path, monkeypatch):
    written = []
    write = Store.write
    monkeypatch.setattr(
        Store, "write", lambda self, name, data: written.append(name) or write(self, name, data)
    )
    study = Store(tmp_path)
    manifest = ManifestFile(study, BEGUN)
    once = ["manifest.json", "manifest.copy.json"]
    assert written == once
    first = PlannedTrial.from_dict(BEGUN["trials"][0] | {"order": 7})
    manifest.add_trials([first], pretrainings=[])
    assert written == once, "proposed, not started"
    manifest.write()
    assert written == 2 * once
    manifest.put_trials([first], pretrainings=[])
    manifest.update(pretrainings=[])
    manifest.write()
    assert written == 2 * once
    assert [trial["order"] for trial in read_study_manifest(study)["trials"]] == [1, 7]


@pytest.mark.parametrize("count", [0, 1, 41, 3000])
def test_long_lists_have_a_line_for_each_item(tmp_path, count):
    study = Store(tmp_path)
    content = BEGUN | {"trials": count * BEGUN["trials"][:1], "question": 'Two\nlines, "quoted" ×?'}
    write_manifest(study, content)
    assert read_object(study, "manifest.json") == content
    assert study.read("manifest.json") == study.read("manifest.copy.json")
    assert len(study.read("manifest.json").splitlines()) < 150 + count


def test_the_code_is_described_by_its_content():
    assert describe_code()["code"] == code_digest(ROOT / "segstrat")


def test_a_study_of_one_stage_may_get_more_seeds_but_lose_no_trial():
    trials = [{"trial_id": name} for name in "abcd"]
    assert changes(BEGUN, BEGUN | {"seeds": [0, 1], "trials": trials}) == []
    lost = BEGUN | {"seeds": [0, 1], "trials": trials[1:]}
    assert [change.words for change in changes(BEGUN, lost)] == ["the trials (2 new, 1 gone)"]


@pytest.mark.parametrize(
    ("package", "before", "after", "search", "words"),
    [
        ("opencv-python-headless", "4.14", "5.0", "grid", ["the version of OpenCV (4.14 before, 5.0 now)"]),
        ("opencv-python-headless", "4.13", "4.14", "grid", []),
        ("optuna", "4.9.0", "5.0.0", "tpe", ["the version of Optuna (4.9.0 before, 5.0.0 now)"]),
        ("optuna", "4.9.0", "5.0.0", "grid", []),
        ("optuna", "4.9.0", "not installed", "tpe", []),
    ],
)
def test_another_major_version_that_gives_other_trials_is_named(package, before, after, search, words):
    begun = BEGUN | {"versions": {package: before}}
    found = changes(begun, begun | {"versions": {package: after}, "search": search})
    assert [change.words for change in found] == words
    assert [change.advice for change in found] == [f"install {package}=={before}"] * len(words)


def test_versions_of_all_that_decodes_and_computes_are_recorded():
    found = versions()
    assert {"pillow", "scipy", "opencv-python-headless", "optuna", "torch", "numpy"} <= found.keys()
    assert "not installed" not in found.values()


@pytest.mark.parametrize(
    ("seeds", "unfinished", "before", "expected"),
    [
        ([0, 1, 2], 0, [], [3]),
        ([0, 1, 2, 3], 0, [3], [3, 4]),
        ([0, 1, 2], 2, [], []),
        # Without an interval there was no answer to add seeds because of.
        ([0, 1], 0, [], []),
    ],
)
def test_seeds_that_follow_an_answer_are_recorded(tmp_path, seeds, unfinished, before, expected):
    study = Store(tmp_path)
    recorded = BEGUN | {"seeds": seeds, "extended_from": before}
    now = BEGUN | {"seeds": [*seeds, 8, 9]}
    assert answered_plans(study, recorded, now) == before, "no report yet"
    verdict = {"verdict": "undetermined", "trials": {"completed": 6, "unfinished": unfinished}}
    study.write("verdict.json", json.dumps(verdict).encode())
    assert answered_plans(study, recorded, now) == expected
    assert answered_plans(study, recorded, recorded) == before, "resumed without more seeds"
    assert answered_plans(study, recorded | {"design": {"max_seeds": 3}}, now) == before, "two stages"
