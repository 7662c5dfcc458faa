"""The default name of a study; `--resume` without `--name` finds the study by it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segstrat.errors import UserError
from segstrat.scores import Metric
from study.cli import parse
from study.driver.messages import resume_command
from study.driver.prepare import (
    OpenedStudy,
    check_resumable,
    describe_study,
    folder_name,
    make_search,
    open_study,
    plan_study,
    stopping_rule,
    stopping_words,
    with_classes,
)
from study.frame import SCHEMA
from study.planning.trials import PlannedTrial
from study.state.halving import HalvingRule

ON_OWN = ["--space", "wd_grid", "--data", "folder"]


def own_data(root: Path, name: str) -> Path:
    """Two images with labels; `name` is the line of `dataset.toml` with the data set's name."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        for split in ("train", "val"):
            Image.fromarray(np.zeros((40, 40), np.uint8)).save(root / folder / f"{split}.png")
            (root / f"{split}.txt").write_text(f"{split}\n")
    (root / "dataset.toml").write_text(
        f'{name}\nimages = "images"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        '[tasks.semseg]\nlabels = "labels"\nclasses = ["background", "thing"]\n'
    )
    return root


def begin(storage: Path, *flags: str) -> str:
    """Leaves the manifest of a study that has started; returns its name."""
    opened = open_study(parse([*flags, "--storage", str(storage)]))
    settings = opened.settings
    manifest = {
        "schema": SCHEMA,
        "study": settings.name,
        "space": opened.space.name,
        "question": opened.space.question,
        "options": settings.to_dict(),
        "data": {"name": settings.data},
        "scheduler": {},
        "metric": opened.space.metric.name,
        "design": opened.design.to_dict() if opened.design else None,
        "trials": [],
    }
    (storage / settings.name).mkdir(parents=True)
    (storage / settings.name / "manifest.json").write_text(json.dumps(manifest))
    return settings.name


def test_axes_that_are_set_are_recorded_and_kept_on_resume(storage: Path):
    given = ("--set", "weight_decay=0,1e-3", "--set", "dropout=0.1")
    name = begin(storage, "--space", "wd_grid", *given)
    recorded = json.loads((storage / name / "manifest.json").read_text())["options"]
    assert recorded["overrides"] == ["weight_decay=0,1e-3", "dropout=0.1"]
    again = ("--space", "wd_grid", "--resume", "--storage", str(storage))
    for flags in (again, (*again, *given)):
        opened = open_study(parse(flags))
        assert opened.space.axes["weight_decay"] == [0.0, 1e-3]
        assert opened.space.base["dropout"] == 0.1
    with pytest.raises(
        UserError, match=r"was started with --set weight_decay=0,1e-3 --set dropout=0\.1; leave out --set"
    ):
        open_study(parse((*again, "--set", "weight_decay=0,1")))


def test_a_score_is_that_of_a_class_of_the_data(storage: Path):
    opened = open_study(parse(["--space", "loss_imbalance", "--storage", str(storage)]))
    assert opened.space.metric.index is None
    found = with_classes(opened, {"classes": {"semseg": ["background", "head"]}})
    assert found.space.metric == Metric("semseg", "iou_head", 1)
    with pytest.raises(UserError, match="unknown class of task semseg 'head'"):
        with_classes(opened, {"classes": {"semseg": ["background", "hand"]}})


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SEGSTRAT_DATA", raising=False)
    return tmp_path / "results"


def resumed(storage: Path, *flags: str) -> str:
    return open_study(parse([*flags, "--resume", "--storage", str(storage)])).settings.name


@pytest.mark.parametrize(("line", "name"), [('name = "My Cats (2024)"', "my-cats-2024"), ("", "photos")])
def test_a_study_on_own_images_is_named_after_them(storage, tmp_path, line, name):
    root = own_data(tmp_path / "photos", line)
    opened = open_study(parse([*ON_OWN, "--data-root", str(root), "--storage", str(storage)]))
    assert opened.settings.name == f"wd_grid-{name}"
    assert opened.study.uri == str(storage / f"wd_grid-{name}")
    assert f"--resume --name wd_grid-{name} " in resume_command(opened.settings)


def test_other_protocols_and_given_names_stand(storage, tmp_path):
    root = own_data(tmp_path / "photos", 'name = "cats"')
    assert begin(storage, "--space", "wd_grid") == "wd_grid-figures"
    assert begin(storage, "--space", "wd_grid", "--data", "d1-half") == "wd_grid-d1-half"
    assert begin(storage, *ON_OWN, "--data-root", str(root), "--name", "Mine") == "Mine"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("cats", "cats"),
        ("Cats & Dogs", "cats-dogs"),
        ("Käfer_v1.2", "kafer_v1.2"),
        ("../../etc/passwd", "etc-passwd"),
        ("--help", "help"),
        ("a\nb\tc", "a-b-c"),
        ("猫", "folder"),
        ("", "folder"),
        ("x" * 300, "x" * 60),
        ("x" * 59 + "--y", "x" * 59),
    ],
)
def test_odd_titles_become_safe_names(title, name):
    assert folder_name(title) == name


def test_resume_finds_the_study_by_its_data(storage, tmp_path):
    cats, dogs = own_data(tmp_path / "a", 'name = "cats"'), own_data(tmp_path / "b", 'name = "dogs"')
    for root in (cats, dogs):
        begin(storage, *ON_OWN, "--data-root", str(root))
    assert resumed(storage, *ON_OWN, "--data-root", str(cats)) == "wd_grid-cats"
    assert resumed(storage, *ON_OWN, "--data-root", str(dogs)) == "wd_grid-dogs"
    with pytest.raises(UserError, match="of space wd_grid there are: wd_grid-cats, wd_grid-dogs"):
        resumed(storage, *ON_OWN)
    with pytest.raises(UserError, match="of space wd_grid there are: wd_grid-cats, wd_grid-dogs"):
        resumed(storage, "--space", "wd_grid")


def test_the_only_study_on_own_images_is_resumed_without_a_data_root(storage, tmp_path, monkeypatch):
    root = own_data(tmp_path / "photos", 'name = "cats"')
    begin(storage, "--space", "wd_grid")
    begin(storage, *ON_OWN, "--data-root", str(root))
    assert resumed(storage, *ON_OWN) == "wd_grid-cats"
    # This is the name that earlier versions gave to every such study.
    shutil.move(storage / "wd_grid-cats", storage / "wd_grid-folder")
    assert resumed(storage, *ON_OWN) == "wd_grid-folder"
    monkeypatch.setenv("SEGSTRAT_DATA", str(tmp_path / "elsewhere"))
    assert resumed(storage, *ON_OWN, "--data-root", str(root), "--name", "wd_grid-folder") == "wd_grid-folder"


def test_a_new_study_needs_a_readable_description(storage, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.toml is missing"):
        open_study(parse([*ON_OWN, "--data-root", str(tmp_path), "--storage", str(storage)]))
    with pytest.raises(UserError, match="needs a data root"):
        open_study(parse([*ON_OWN, "--storage", str(storage)]))


def planned_words(storage: Path, *flags: str) -> str:
    """What the header and `--dry-run` say of early stopping."""
    opened = open_study(parse([*flags, "--storage", str(storage)]))
    return stopping_words(stopping_rule(opened), plan_study(opened))


def test_the_console_says_which_trials_may_be_stopped(storage):
    words = planned_words(storage, "--space", "wd_grid")
    assert words.startswith("a screening trial with less than 20% after 25% of its epochs")
    assert "best 1/2" not in words, "no rank stops a trial where seeds are halved"
    assert "best 1/2" in planned_words(storage, "--space", "wd_grid", "--seeds", "0")
    assert "best 1/2" in planned_words(storage, "--space", "optuna_wd_dropout")
    to_the_end = "none; every trial is trained to its end"
    assert planned_words(storage, "--space", "wd_grid", "--scheduler", "none") == to_the_end


def test_trials_of_all_screening_seeds_are_exempt_from_ranks(storage):
    opened = open_study(parse(["--space", "wd_grid", "--storage", str(storage)]))
    trials = plan_study(opened)
    assert len(trials) == 12
    assert all(trial.exempt for trial in trials)
    later = later_seeds(opened, trials)
    assert later
    assert all(trial.exempt and trial.config.seed == 1 for trial in later)


def later_seeds(opened: OpenedStudy, trials: list[PlannedTrial]) -> list[PlannedTrial]:
    """The further trials that the search knows of."""
    return make_search(opened, trials)._screening._later  # type: ignore[attr-defined]


def test_a_resumed_study_keeps_the_rule_of_the_version_that_started_it(storage):
    name = begin(storage, "--space", "wd_grid")
    path = storage / name / "manifest.json"
    manifest = json.loads(path.read_text())
    earlier = {"name": "asha", "reduction_factor": 2, "rung_fractions": [0.25, 0.5], "min_competitors": 2}
    resume = ["--space", "wd_grid", "--resume", "--storage", str(storage)]
    for scheduler, shares in ((earlier, ()), (HalvingRule().to_dict(), (0.2, 0.5))):
        path.write_text(json.dumps(manifest | {"scheduler": scheduler}))
        assert stopping_rule(open_study(parse(resume))).least_shares == shares


SPACE = """from ray import tune
QUESTION = "?"
BASE = {"model": "fcn8s", "momentum": 0.9}
SPACE = {"weight_decay": tune.grid_search([0.0, 1e-3])}
"""


def test_a_changed_space_is_refused_before_data_and_ray_and_never_mixed(storage, tmp_path):
    space = tmp_path / "mine.py"
    space.write_text(SPACE)
    flags = ["--space", str(space), "--storage", str(storage)]
    opened = open_study(parse(flags))
    facts = {"nodes": [], "precision": "float32", "precision_seconds": [], "accept_changes": False}
    data = {"name": "figures", "digest": "d"}
    manifest = describe_study(opened, plan_study(opened), data=data, weights={}, **facts)
    opened.study.write("manifest.json", json.dumps(manifest).encode())

    def resume(text: str, *, accept_changes: bool = False) -> None:
        space.write_text(text)
        again = open_study(parse([*flags, "--resume"]))
        check_resumable(again, plan_study(again), accept_changes=accept_changes)

    resume(SPACE)
    resume('"""A new docstring."""\n' + SPACE + "# a comment\n")
    with pytest.raises(UserError, match=r"the space's file changed since; restore that file"):
        resume(SPACE + "OTHER = 1\n")
    resume(SPACE + "OTHER = 1\n", accept_changes=True)
    with pytest.raises(UserError, match=r"the space's file changed, 2 of its trials would be trained again"):
        resume(SPACE.replace("0.9", "0.8"), accept_changes=True)


@pytest.mark.parametrize(
    ("space", "flags", "comparisons"),
    [
        ("wd_grid", [], 1),
        ("self_figures", [], 3),
        ("label_fraction", [], 4),
        ("label_fraction", ["--set", "label_fraction=0.1,0.5"], 2),
        # Batch sizes are contexts, and nothing is said of all of them together.
        ("batch_size", [], 1),
    ],
)
def test_what_is_said_together_shares_the_error(tmp_path, space, flags, comparisons):
    opened = open_study(parse(["--space", space, "--storage", str(tmp_path), "--max-seeds", "8", *flags]))
    assert opened.design.error == pytest.approx(0.05 / comparisons)
