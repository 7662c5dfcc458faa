"""What a resumed study must share with its beginning, and the sentence when it does not."""

import pytest

from segstrat.errors import UserError
from segstrat.store import Store
from study.state.manifest import changes, describe_code, read_study_manifest, refuse_changes, write_manifest

BEGUN = {
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
    "trials": [{"trial_id": "a"}, {"trial_id": "b"}],
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
    assert changes(BEGUN, BEGUN | change) == [words]
    with pytest.raises(UserError) as caught:
        refuse_changes(Store("results/x"), BEGUN, BEGUN | change)
    assert words in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    assert "0123456789" in str(caught.value)


def test_what_does_not_matter_is_no_change():
    assert changes(BEGUN, BEGUN | {"commit": "new", "hardware": {"cpus": 9}, "command": "other"}) == []
    refuse_changes(Store("results/x"), BEGUN, dict(BEGUN))


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
        with pytest.raises(UserError, match=f"lacks {name}"):
            read_study_manifest(study)
    write_manifest(study, BEGUN)
    assert read_study_manifest(study) == BEGUN


def test_the_code_is_described_by_its_content():
    assert len(describe_code()["code"]) == 16
    assert describe_code() == describe_code()


def test_a_study_of_one_stage_may_get_more_seeds_but_lose_no_trial():
    trials = [{"trial_id": name} for name in "abcd"]
    assert changes(BEGUN, BEGUN | {"seeds": [0, 1], "trials": trials}) == []
    lost = BEGUN | {"seeds": [0, 1], "trials": trials[1:]}
    assert changes(BEGUN, lost) == ["the trials (2 new, 1 gone)"]
