"""Where the project pre-trains, each answering seed has its own weights; they survive kills and deletions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.models import build_backbone
from segstrat.models.weights import save_backbone
from segstrat.pretraining import cached, recipe
from segstrat.pretraining.cached import train_weights
from segstrat.pretraining.recipe import MaskedRecipe, Recipe
from segstrat.records import Stage
from segstrat.store import Store, cache_dir
from study.analysis.answering.design import AnsweringDesign
from study.cli import StudySettings
from study.driver.messages import weights_words
from study.driver.weights import Weights, file_digest
from study.planning.space import load_space
from study.planning.trials import PlannedTrial, plan
from study.run import main
from study.state.changes import weights_identity
from study.state.pretrainings import PlannedPretraining

TINY = Recipe(
    epochs=2, batch_size=4, learning_rate=0.05, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5
)
MASKED = MaskedRecipe(
    epochs=1, batch_size=4, learning_rate=1e-3, warmup_epochs=1, crop_size=32, resize=32, smallest_crop=0.5,
    patch=8, decoder_channels=4,
)  # fmt: skip
STARTS = dataclasses.replace(
    load_space("self_figures"),
    axes={"initialization": ("raw", "self", "given"), "weight_decay": (0.0,)},
    recipe=lambda *_, **__: {"width": 0.125, "crop_size": 32, "epochs": 3},
)
SPACE = dataclasses.replace(load_space("wd_grid"), axes={"pretrained": (False, True), "weight_decay": (0.0,)})


@pytest.fixture(autouse=True)
def _tiny_and_single_threaded(monkeypatch: pytest.MonkeyPatch, few_figures: None, tmp_path: Path) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {"figures": TINY, "folder": TINY})
    monkeypatch.setattr(cached, "cpu_cores", lambda: 1)
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


def place(weights: Weights, planned: list[PlannedTrial]) -> list[PlannedTrial]:
    """The trials with their weights, which are trained in this process, as a worker does."""
    for trial in planned:
        job = weights.of(trial)
        if job and not weights.find(job):
            list(train_weights(job.pretraining, cache_dir() / "weights" / job.file, Machine(threads=1)))
            assert weights.find(job)
    return [weights.placed(trial) for trial in planned]


def first_tensor(path: str) -> torch.Tensor:
    return next(iter(torch.load(path, weights_only=True)["state_dict"].values()))


def test_each_answering_seed_starts_from_its_own_pre_training() -> None:
    weights = Weights(settings())
    paths = files(place(weights, trials(2, 3)))
    assert "seed2" in paths[2]
    assert "seed3" in paths[3]
    assert not torch.equal(first_tensor(paths[2]), first_tensor(paths[3]))
    described = weights.describe()
    assert described["per_seed"]
    assert described["files"] == {Path(path).name: file_digest(Path(path)) for path in paths.values()}


def seeds_of(jobs: list[PlannedPretraining]) -> list[int]:
    return [job.pretraining.seed for job in jobs]


def test_all_screening_seeds_share_pre_training_0_and_look_by_look_others_are_expected() -> None:
    design = dataclasses.replace(AnsweringDesign(), looks=(2, 4), max_seeds=4)
    weights = Weights(settings(), design)
    screening = trials(0, 1, stage=Stage.SCREENING)
    assert {weights.of(trial).pretraining.seed for trial in screening if trial.config.pretrained} == {0}
    assert seeds_of(weights.of_next_look(screening)) == [2, 3]
    assert seeds_of(weights.of_next_look([*screening, *trials(2, 3)])) == [4, 5]
    assert weights.of_next_look([*screening, *trials(2, 3, 4, 5)]) == [], "there is no later look"
    raw = [trial for trial in trials(2, 3) if not trial.config.pretrained]
    assert weights.of_next_look([*screening, *raw]) == [], "no pre-trained candidate is left"
    assert Weights(settings()).of_next_look(trials(0)) == [], "a study of one stage has no looks"


def test_a_resumed_study_uses_the_same_files_and_remakes_deleted_ones() -> None:
    begun = Weights(settings())
    paths = files(place(begun, trials(2, 3)))
    recorded = begun.describe()
    Path(paths[3]).unlink()
    again = Weights(settings(), None, recorded)
    assert files(place(again, trials(3))) == {3: paths[3]}
    assert again.describe()["files"] == recorded["files"]


def test_weights_that_were_remade_differently_are_refused() -> None:
    begun = Weights(settings())
    ((_, path),) = files(place(begun, trials(2))).items()
    recorded = begun.describe()
    recorded["files"] = {Path(path).name: "0ther"}
    with pytest.raises(UserError, match=r"seed2.* differ from those that this study used before"):
        place(Weights(settings(), None, recorded), trials(2))
    place(Weights(settings(), None, recorded, accept_changes=True), trials(2))


def test_a_folder_is_trained_on_with_the_recipe_and_epochs_asked_for(photos: Path) -> None:
    weights = Weights(settings(pretrain_on=str(photos), pretrain_epochs=1))
    weights.check(trials(2))
    (path,) = files(place(weights, trials(2))).values()
    about = torch.load(path, weights_only=True)["about"]
    assert about["recipe"]["epochs"] == 1
    assert about["data"] == "photos"
    described = weights.describe()
    assert described["data_digest"] == about["data_digest"]
    (photos / "train" / "cat" / "0.png").unlink()
    other = Weights(settings(pretrain_on=str(photos), pretrain_epochs=1))
    other.check(trials(2))
    assert other.describe()["data_digest"] != described["data_digest"]
    assert list(files(place(other, trials(2))).values()) != [path]


def test_on_a_cluster_weights_come_from_the_study_and_go_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Store(tmp_path / "study" / "weights")
    (path,) = files(place(Weights(settings(), shared=shared), trials(2))).values()
    assert shared.read(Path(path).name) == Path(path).read_bytes(), "those of the driver's machine are copied"
    monkeypatch.setenv("SEGSTRAT_CACHE", str(tmp_path / "another machine"))
    weights = Weights(settings(), shared=shared)
    (job,) = (job for trial in trials(2) if (job := weights.of(trial)))
    assert weights.find(job), "those that a node has made are fetched"
    (fetched,) = files([weights.placed(trial) for trial in trials(2)]).values()
    assert Path(fetched).read_bytes() == shared.read(job.file)
    assert "another machine" in fetched


def test_given_weights_are_shared_with_the_nodes(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    shared = Store(tmp_path / "study" / "weights")
    weights = Weights(settings(weights=str(tmp_path / "w.pth")), shared=shared)
    assert [weights.of(trial) for trial in trials(2)] == [None, None]
    assert files([weights.placed(trial) for trial in trials(2)]) == {2: str(tmp_path / "w.pth")}
    assert shared.read("w.pth") == b"weights"


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Self-supervision of seconds, on a few more scenes."""
    monkeypatch.setattr("segstrat.data.figures.write.SCENES", {"train": 9, "val": 2, "test": 2})

    def recipe_of(*_: object, seed: int = 0, **__: object) -> MaskedRecipe:
        return dataclasses.replace(MASKED, seed=seed)

    monkeypatch.setattr("segstrat.pretraining.job.masked_recipe_for", recipe_of)


def starts(*seeds: int, stage: Stage = Stage.ANSWERING) -> list[PlannedTrial]:
    planned = plan(STARTS, "figures", seeds=seeds, weights="to be pre-trained")
    return [dataclasses.replace(trial, stage=stage) for trial in planned]


def test_self_supervised_and_given_weights_are_made_in_one_study(masked: None) -> None:
    weights = Weights(settings())
    planned = starts(2, 3)
    weights.check(planned)
    jobs = {(trial.config.start, trial.config.seed): weights.of(trial) for trial in planned}
    assert jobs["raw", 2] is None
    names = {key: job.file for key, job in jobs.items() if job}
    assert len({*names.values()}) == 4
    assert all(("-self-figures-seed" in name) == (start == "self") for (start, _), name in names.items())
    placed = {(each.config.start, each.config.seed): each for each in place(weights, planned)}
    paths = {key: Path(str(trial.config.weights)) for key, trial in placed.items() if key[0] != "raw"}
    assert {key: path.name for key, path in paths.items()} == names
    assert not torch.equal(first_tensor(str(paths["self", 2])), first_tensor(str(paths["self", 3])))
    described = weights.describe()
    kinds = {"given": described["files"], "self": described["self"]["files"]}
    for start, found in kinds.items():
        assert found == {paths[start, seed].name: file_digest(paths[start, seed]) for seed in (2, 3)}
    again = Weights(settings(), None, described)
    again.check(planned)
    place(again, planned)
    assert again.describe() == described
    assert weights_identity(described) == weights_identity({**described, "files": {}})
    assert weights_identity(described) != weights_identity({**described, "self": {"data_digest": "other"}})


def test_without_given_weights_the_manifest_names_those_of_self_supervision_alone(masked: None) -> None:
    weights = Weights(settings())
    planned = [trial for trial in starts(2) if trial.config.start != "given"]
    weights.check(planned)
    place(weights, planned)
    described = weights.describe()
    assert described["source"] == described["self"]["source"] == "figures without labels"
    assert described["files"] == described["self"]["files"]
    assert weights_words(described).startswith("self-supervised on figures without labels for each")
    again = Weights(settings(), None, described)
    again.check(planned)
    assert weights_identity(again.describe()) == weights_identity(described)
    learned = weights.take_learned()
    (run,) = learned.values()
    assert {"losses", "errors", "nearest_patch_error", "probe", "examples", "seed"} <= run.keys()
    assert weights.take_learned() == {}


def test_given_files_and_self_supervision_go_together(masked: None, tmp_path: Path) -> None:
    network = build_backbone("resnet18", 0.125)
    save_backbone(tmp_path / "w.pth", network)
    weights = Weights(settings(weights=str(tmp_path / "w.pth")))
    planned = starts(2)
    weights.check(planned)
    jobs = {trial.config.start: weights.of(trial) for trial in planned}
    assert jobs["given"] is None
    assert jobs["self"] is not None
    (given,) = (weights.placed(trial) for trial in planned if trial.config.start == "given")
    assert given.config.weights == str(tmp_path / "w.pth")
    assert weights.describe()["files"].keys() == {"w.pth"}
    assert weights.describe()["self"]["files"] == {}
    assert "w.pth, one checkpoint" in weights.outlook(planned)
    assert "1 pre-training without labels on figures" in weights.outlook(planned)


def test_looks_expect_both_kinds_of_weights(masked: None) -> None:
    design = dataclasses.replace(AnsweringDesign(), looks=(2, 4), max_seeds=4)
    weights = Weights(settings(), design)
    screening = starts(0, 1, stage=Stage.SCREENING)
    used = {job.file for trial in screening if (job := weights.of(trial))}
    assert len(used) == 2, "all screening seeds share the one of seed 0, of each kind"
    expected = weights.of_next_look(screening)
    assert sorted(seeds_of(expected)) == [2, 2, 3, 3]
    assert len({job.file for job in expected}) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pretrain-on", "nowhere"], "nowhere is not a folder"),
        (["--pretrain-on", "{empty}"], "has no folder train"),
        (["--pretrain-on", "{photos}", "--weights", "w.pth"], "--weights or --pretrain-on, not both"),
        (["--pretrain-epochs", "3"], "--pretrain-epochs needs --pretrain-on"),
        (["--pretrain-self", "{photos}"], "no trial of space wd_grid starts from self-supervision"),
        (["--set", "initialization=raw,self", "--pretrain-self", "nowhere"], "nowhere is not a folder"),
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
    place(
        Weights(settings(pretrain_on=str(photos), pretrain_epochs=1)),
        plan(load_space("wd_grid"), "figures", seeds=(2,), weights="w"),
    )
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "1 of them in the cache" in output
    assert f" of it for {looks} pre-trainings) on " in output
    assert main([*command, "--scheduler", "none", "--seeds", "0,1"]) == 0
    assert "weights  2 pre-trainings on photos; 0 of them" in capsys.readouterr().out
