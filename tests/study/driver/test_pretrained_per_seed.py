"""Where the project pre-trains, each answering seed has its own weights; they survive kills and deletions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.errors import UserError
from segstrat.pretraining import cached, recipe
from segstrat.pretraining.recipe import Recipe
from segstrat.records import Stage
from segstrat.store import Store
from study.analysis.answering.design import AnsweringDesign
from study.driver.loop import Loop
from study.driver.weights import Weights, file_digest
from study.planning.settings import StudySettings
from study.planning.space import load_space
from study.planning.trials import PlannedTrial, plan
from study.run import main
from study.search.base import FixedPlan
from study.state.halving import HalvingRule
from study.state.trial_states import TrialStates
from tests.study.fakes import LocalExecutor, curve

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)
SPACE = dataclasses.replace(load_space("wd_grid"), axes={"pretrained": (False, True), "weight_decay": (0.0,)})


@pytest.fixture(autouse=True)
def _tiny_and_single_threaded(monkeypatch: pytest.MonkeyPatch, few_figures: None, tmp_path: Path) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr(cached, "cpu_cores", lambda: 1)
    monkeypatch.setattr(cached, "local_gpus", list)
    monkeypatch.setenv("SEGSTRAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def settings(**fields: object) -> StudySettings:
    return StudySettings(name="s", storage="results", space="wd_grid", seeds=(0, 1), **fields)  # type: ignore[arg-type]


def trials(*seeds: int, stage: Stage = Stage.ANSWERING) -> list[PlannedTrial]:
    planned = plan(SPACE, "figures", seeds=seeds, budget=0.1, weights="to be pre-trained")
    return [dataclasses.replace(trial, stage=stage) for trial in planned]


def files(placed: list[PlannedTrial]) -> dict[int, str]:
    """Path of the weights by the seed of the trial."""
    found = {trial.config.seed: str(trial.config.weights) for trial in placed if trial.config.pretrained}
    assert all(trial.config.weights is None for trial in placed if not trial.config.pretrained)
    return found


def first_tensor(path: str) -> torch.Tensor:
    return next(iter(torch.load(path, weights_only=True)["state_dict"].values()))


def test_each_answering_seed_starts_from_its_own_pre_training() -> None:
    weights = Weights(settings())
    paths = files(weights.place(trials(2, 3)))
    assert "seed2" in paths[2]
    assert "seed3" in paths[3]
    assert not torch.equal(first_tensor(paths[2]), first_tensor(paths[3]))
    described = weights.describe()
    assert described["per_seed"]
    assert described["files"] == {Path(path).name: file_digest(Path(path)) for path in paths.values()}


def test_all_screening_seeds_share_pre_training_0_and_the_first_look_is_made_with_it() -> None:
    design = dataclasses.replace(AnsweringDesign(), looks=(2, 4), max_seeds=4)
    weights = Weights(settings(), design)
    paths = files(weights.place(trials(0, 1, stage=Stage.SCREENING)))
    assert paths[0] == paths[1]
    assert "seed0" in paths[0]
    assert len(weights.describe()["files"]) == 3
    assert weights.missing(trials(2, 3)) == []
    assert [request.seed for request in weights.missing(trials(4))] == [4]


def test_a_resumed_study_uses_the_same_files_and_remakes_deleted_ones() -> None:
    begun = Weights(settings())
    paths = files(begun.place(trials(2, 3)))
    recorded = begun.describe()
    Path(paths[3]).unlink()
    again = Weights(settings(), None, recorded)
    assert files(again.place(trials(3))) == {3: paths[3]}
    assert again.describe()["files"] == recorded["files"]


def test_weights_that_were_remade_differently_are_refused() -> None:
    begun = Weights(settings())
    ((_, path),) = files(begun.place(trials(2))).items()
    recorded = begun.describe()
    recorded["files"] = {Path(path).name: "0ther"}
    with pytest.raises(UserError, match=r"seed2.* differ from those that this study used before"):
        Weights(settings(), None, recorded).place(trials(2))
    Weights(settings(), None, recorded, accept_changes=True).place(trials(2))


def test_a_folder_is_trained_on_with_the_recipe_and_epochs_asked_for(photos: Path) -> None:
    weights = Weights(settings(pretrain_on=str(photos), pretrain_epochs=1))
    weights.check(trials(2))
    (path,) = files(weights.place(trials(2))).values()
    about = torch.load(path, weights_only=True)["about"]
    assert about["recipe"]["epochs"] == 1
    assert about["data"] == "photos"
    described = weights.describe()
    assert described["data_digest"] == about["data_digest"]
    (photos / "train" / "cat" / "0.png").unlink()
    other = Weights(settings(pretrain_on=str(photos), pretrain_epochs=1))
    other.check(trials(2))
    assert other.describe()["data_digest"] != described["data_digest"]
    assert list(files(other.place(trials(2))).values()) != [path]


class Stopped(Exception):
    pass


def test_an_interrupted_batch_loses_nothing_and_starts_no_trial(tmp_path: Path) -> None:
    states = TrialStates(Store(tmp_path / "study"), HalvingRule.of("none"), "semseg_val_miou")
    planned = trials(2, 3)
    for trial in planned:
        states.add(trial)
    weights = Weights(settings())
    started: list[PlannedTrial] = []
    executor = LocalExecutor(lambda trial: curve([0.5] * trial.config.epochs))
    original = executor.start
    executor.start = lambda trial: (started.append(trial), original(trial))[1]  # type: ignore[method-assign]

    def interrupt() -> None:
        raise Stopped

    interrupted = Loop(
        states, FixedPlan(), executor, prepare=lambda batch: weights.place(batch, on_tick=interrupt)
    )
    with pytest.raises(Stopped):
        interrupted.run()
    assert started == []
    Loop(states, FixedPlan(), executor, prepare=weights.place).run()
    assert set(files(started)) == {2, 3}
    assert all(state.final for state in states.in_order())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pretrain-on", "nowhere"], "nowhere is not a folder"),
        (["--pretrain-on", "{empty}"], "has no folder train"),
        (["--pretrain-on", "{photos}", "--weights", "w.pth"], "--weights or --pretrain-on, not both"),
        (["--pretrain-epochs", "3"], "--pretrain-epochs needs --pretrain-on"),
        (["--data", "voc", "--data-root", "{empty}"], "--pretrain-on DIR"),
    ],
)
def test_what_cannot_be_pre_trained_is_one_sentence(
    arguments: list[str], words: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    given = [text.format(photos=photos, empty=tmp_path / "empty") for text in arguments]
    assert main(["--space", "wd_grid", "--storage", str(tmp_path / "results"), *given, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_images_too_small_for_a_backbone_are_refused(photos: Path) -> None:
    space = dataclasses.replace(SPACE, base=SPACE.base | {"backbone": "alexnet"})
    planned = plan(space, "figures", seeds=(2,), weights="to be pre-trained")
    with pytest.raises(UserError, match=r"crops of 32 pixels are too small for alexnet, which needs 63"):
        Weights(settings(pretrain_on=str(photos))).check(planned)


def test_a_dry_run_counts_the_pre_trainings(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    command = ["--space", "wd_grid", "--storage", str(tmp_path / "results"), "--dry-run"]
    command += ["--pretrain-on", str(photos), "--pretrain-epochs", "1"]
    looks = AnsweringDesign().looks[0]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert f"weights  {1 + looks} pre-trainings on photos up to the first look ({looks} seeds)" in output
    assert "0 of them in the cache" in output
    assert f" of it for {1 + looks} pre-trainings) on " in output
    Weights(settings(pretrain_on=str(photos), pretrain_epochs=1)).place(
        plan(load_space("wd_grid"), "figures", seeds=(2,), weights="w")
    )
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "1 of them in the cache" in output
    assert f" of it for {looks} pre-trainings) on " in output
    assert main([*command, "--scheduler", "none", "--seeds", "0,1"]) == 0
    assert "weights  2 pre-trainings on photos; 0 of them" in capsys.readouterr().out
