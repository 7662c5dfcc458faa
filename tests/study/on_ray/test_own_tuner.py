"""The examples of docs/ray.md as they stand there: Ray's own Tuner, ASHA, restore and OptunaSearch."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ray import tune

from segstrat.config import TrialConfig
from segstrat.data.figures.write import ensure_figures, generator_digest
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.train import train
from study.on_ray.trainable import SETTINGS, SegmentationTrial, flat_metrics

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[3] / "docs" / "ray.md"
TUNER, RESTORE, OPTUNA = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
SCORES = ["semseg_val_miou", "semseg_val_loss", "semseg_train_miou", "semseg_train_loss"]


@pytest.fixture(scope="module")
def few_drawn(node_cache: Path) -> Iterator[None]:
    """Workers find twelve scenes where they look for the embedded data, of which they would draw all."""
    folder = node_cache / f"figures-{generator_digest()}"
    mine = not folder.exists()
    if mine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segstrat.data.figures.write.SCENES", {"train": 12, "val": 4, "test": 2})
            patch.setattr("segstrat.data.figures.write.SINGLES", {"train": 8, "val": 8})
            drawn = ensure_figures(node_cache, progress=False)
        drawn.rename(folder)
    yield
    if mine:
        shutil.rmtree(folder)


def add_defaults(monkeypatch: pytest.MonkeyPatch, config: type, **defaults: object) -> None:
    init = config.__init__
    monkeypatch.setattr(config, "__init__", lambda self, **given: init(self, **(defaults | given)))


@pytest.fixture
def run(cluster, few_drawn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict]:
    """`run(code)` executes an example; Ray's results go to a temporary folder."""
    # A study switches off Ray's log files, from which its frame is read.
    monkeypatch.delenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", raising=False)
    add_defaults(monkeypatch, tune.RunConfig, storage_path=str(tmp_path), verbose=0)
    # Two processes on two cores, which take one trial after the other: each one imports torch once.
    add_defaults(monkeypatch, tune.TuneConfig, max_concurrent_trials=2, reuse_actors=True)

    def execute(code: str, **names: object) -> dict:
        np.random.seed(0)  # what Tune samples from
        try:
            exec(code, names)
        finally:
            # Otherwise only the lines after `fit` would fail, and not say why.
            print("errors of the trials:", *getattr(names.get("results"), "errors", ()), sep="\n")
        return names

    return execute


def expected(result: tune.Result) -> list[dict]:
    """The metrics of a trial's config, trained here without Ray."""
    config = TrialConfig.from_dict({k: v for k, v in result.config.items() if k not in SETTINGS})
    cache = Path(os.environ["SEGSTRAT_CACHE"])
    return [flat_metrics(report, config) for report in train(config, machine=Machine(cache_dir=cache))]


def test_a_plain_tuner_trains_and_rays_asha_stops(run, monkeypatch):
    # One trial after the other: which ones ASHA stops depends on their order.
    add_defaults(monkeypatch, tune.TuneConfig, max_concurrent_trials=1)
    names = run(TUNER)
    frame, results = names["frame"], names["results"]
    assert results.num_errors == 0
    assert len(frame) == 4
    columns = {"epochs", "status", "learning_rate", "seconds", "images_per_second", "training_iteration"}
    assert columns | set(SCORES) <= set(frame.columns)
    assert frame["epoch"].iloc[0] == 8, "the first trial competes with none"
    assert (frame["epoch"] < 8).any(), "Ray's own scheduler has stopped a trial"
    assert (frame["epoch"] == frame["training_iteration"]).all()
    assert all((each.metrics["status"] == "completed") == (each.metrics["epoch"] == 8) for each in results)
    best = results.get_best_result()
    curve = expected(best)
    last = best.metrics["epoch"] - 1
    assert {name: best.metrics[name] for name in SCORES} == {name: curve[last][name] for name in SCORES}


def test_an_interrupted_search_is_restored_and_its_numbers_are_the_same(run, monkeypatch, tmp_path):
    monkeypatch.delenv("TUNE_DISABLE_SIGINT_HANDLER", raising=False)
    ended = threading.Event()

    def interrupt() -> None:
        """Ctrl-C, once a trial has a second checkpoint."""
        while not ended.wait(0.05):
            if any((tmp_path / "my_search").glob("*/checkpoint_000001")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    code = TUNER.replace("ASHAScheduler(max_t=8, grace_period=2, reduction_factor=2)", "None")
    assert code != TUNER
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        names = run(code)
    finally:
        ended.set()
        thread.join()
    before = [each.metrics.get("epoch", 0) for each in names["results"] if each.metrics]
    assert max(before) >= 2
    assert sum(before) < 4 * 8, "it was interrupted"
    results = run(RESTORE, **names)["results"]
    assert [each.metrics["epoch"] for each in results] == [8] * 4
    begun = max(results, key=lambda each: each.metrics["iterations_since_restore"] < 8)
    assert begun.metrics["iterations_since_restore"] < 8, "a trial has continued from its checkpoint"
    curve = expected(begun)
    assert {name: begun.metrics[name] for name in SCORES} == {name: curve[-1][name] for name in SCORES}


def test_optuna_searches_over_several_tasks(run):
    results = run(OPTUNA, tune=tune, SegmentationTrial=SegmentationTrial)["results"]
    frame = results.get_dataframe()
    assert results.num_errors == 0
    assert len(frame) == 3
    assert frame["config/learning_rate"].between(1e-3, 1e-1).all()
    assert frame["config/dropout"].nunique() == 3
    assert not frame[["semseg_val_miou", "parts_val_miou", "parts_train_loss"]].isna().any(axis=None)


def test_a_wrong_field_ends_the_search_with_one_sentence(run):
    tuner = tune.Tuner(SegmentationTrial, param_space={"wieght_decay": tune.grid_search([0.1, 0.2])})
    with pytest.raises(UserError, match="did you mean 'weight_decay'"):
        tuner.fit()
    hidden = tune.Tuner(
        tune.with_resources(SegmentationTrial, {"cpu": 1}), param_space={"wieght_decay": 0.1}
    ).fit()
    assert "did you mean 'weight_decay'" in str(hidden.errors[0])
