"""Synthetic studies in the records' on-disk format: known effects, any status, no training."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from segstrat.config import RAW, TrialConfig, start_of
from study.frame.build import START_WORDS

ROLES = {"weight_decay": "treatment", "pretrained": "arm", "seed": "seed"}
CLASSES = 4


def trial(axes: dict[str, Any], val: float | list[float], train: float | None = None, **more: Any) -> dict:
    """A trial whose validation mIoU follows `val` (a curve, or a value it rises to over four epochs)."""
    curve = [val * share for share in (0.4, 0.7, 0.9, 1.0)] if isinstance(val, float) else list(val)
    return {"axes": axes, "curve": curve, "train": train, **more}


def report(epoch: int, epochs: int, scores: list[dict], status: str = "running") -> dict[str, Any]:
    return {
        "epoch": epoch, "epochs": epochs, "status": status, "scores": scores, "learning_rate": 0.01,
        "seconds": 2.0, "images_per_second": 50.0, "data_wait": 0.1, "message": "",
    }  # fmt: skip


def score(split: str, task: str, miou: float | None, classes: int = CLASSES) -> dict[str, Any]:
    return {
        "split": split, "task": task, "loss": None if miou is None else 1 - miou, "miou": miou,
        "miou_thesis": None if miou is None else 0.9 * miou, "pixel_accuracy": miou, "class_accuracy": miou,
        "iou": [miou] * (classes - 1) + [None],
    }  # fmt: skip


def arm_of(axes: dict[str, Any], tasks: list[str], several_tasks: bool) -> str:
    name = START_WORDS[start_of(axes.get("initialization"), pretrained=bool(axes.get("pretrained")))]
    if not several_tasks:
        return name
    return f"{name}, {'multi-task' if len(tasks) > 1 else tasks[0]}"


def training_value(entry: dict, value: float | None) -> float | None:
    if value is None:
        return None
    return value + 0.1 if entry["train"] is None else entry["train"] * value / entry["curve"][-1]


def write_trial(folder: Path, entry: dict, planned: dict) -> None:
    folder.mkdir(parents=True)
    epochs = planned["config"]["epochs"]
    status = entry.get("status", "completed")
    reports = []
    for index, value in enumerate(entry["curve"]):
        last = index + 1 == len(entry["curve"])
        train = training_value(entry, value)
        scores = [
            score(split, task, train if split == "train" else value, entry.get("classes", CLASSES))
            for task in planned["config"]["tasks"]
            for split in ("train", "val")
        ]
        if last and "clean" in entry:
            scores += [score("train_clean", task, entry["clean"]) for task in planned["config"]["tasks"]]
        done = status if last and status in ("completed", "diverged") else "running"
        reports.append(report(index + 1, epochs, scores, done))
    facts = {
        "num_parameters": 1000, "realised_weight_decay": planned["config"]["weight_decay"],
        "dropout_modules": 0, "init_digest": "abc", "weights_digest": "", "data_digest": "d1g357",
        "train_images": round(120 * planned["config"]["label_fraction"]), "val_images": 60,
        "device": "cpu", "precision": "float32",
    }  # fmt: skip
    (folder / "records.json").write_text(json.dumps({"facts": facts, "reports": reports}))
    if status != "unfinished":
        outcome = {
            "status": status, "stop_rung": entry.get("stop_rung"), "stop_epoch": entry.get("stop_epoch"),
            "error": entry.get("error"), "seconds": 10.0, "attempts": 1,
        }  # fmt: skip
        (folder / "outcome.json").write_text(json.dumps(outcome))


def write_study(
    folder: Path,
    trials: Iterable[dict],
    *,
    roles: dict[str, str] | None = None,
    planned: list[dict] | None = None,
    **manifest: Any,
) -> Path:
    """Writes manifest, records and outcomes of `trials` (see `trial`) and returns the study's folder.

    Args:
        planned: the manifest's trials, in the order of `trials`; else they are made from the axes.
    """
    entries = list(trials)
    planned = planned or plan_of(entries)
    content = {
        "schema": 1, "study": folder.name, "space": "wd_grid", "space_source": "SPACE = {}",
        "question": "Can weight decay stand in for pre-training?",
        "command": f"python study/run.py --space wd_grid --name {folder.name}",
        "created": "2026-01-02T03:04:05", "commit": "0123abc", "dirty": False,
        "versions": {"torch": "2.11"}, "hardware": {"cpus": 2, "gpus": []},
        "data": {"name": "figures", "digest": "d1g357", "synthetic": True, "train_images": 120,
                 "val_images": 60, "root": ""},
        "seeds": sorted({entry["axes"].get("seed", 0) for entry in entries}),
        "roles": ROLES if roles is None else roles, "metric": "semseg_val_miou",
        "scheduler": {"name": "none"}, "budget": 1.0, "weights": {"source": "", "digest": ""},
        "parent": None, "trials": planned,
        "options": {"space": "wd_grid", "data": "figures"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(content | manifest))
    for entry, plan in zip(entries, planned, strict=True):
        if entry.get("status") != "not started":
            write_trial(folder / "trials" / plan["trial_id"], entry, plan)
    return folder


def plan_of(entries: list[dict]) -> list[dict]:
    """Planned trials with the axes of the entries and a default recipe."""
    several = len({tuple(entry.get("tasks", ["semseg"])) for entry in entries}) > 1
    planned = []
    for order, entry in enumerate(entries):
        tasks = list(entry.get("tasks", ["semseg"]))
        fields = {key: value for key, value in entry["axes"].items() if key in TrialConfig.__annotations__}
        starts = fields.get("pretrained") or fields.get("initialization", RAW) != RAW
        weights = "w.pt" if starts else None
        epochs = entry.get("epochs", max(len(entry["curve"]), 1))
        config = TrialConfig.from_dict(
            {"data": entry.get("data", "figures"), "epochs": epochs, "weights": weights}
            | fields
            | {"tasks": tasks}
        )
        planned.append(
            {
                "trial_id": config.digest(),
                "order": order,
                "axes": entry["axes"],
                "arm": arm_of(entry["axes"], tasks, several),
                "config": config.to_dict(),
            }
        )
    return planned


@pytest.fixture
def study_writer(tmp_path: Path) -> Callable[..., Path]:
    """`study_writer(trials, name="study", **manifest)` writes a study below the test's own folder."""

    def write(trials: Iterable[dict], name: str = "study", **manifest: Any) -> Path:
        return write_study(tmp_path / name, trials, **manifest)

    return write


@pytest.fixture(scope="session")
def study_into() -> Callable[..., Path]:
    """`write_study`, for fixtures that outlive a test."""
    return write_study


@pytest.fixture(scope="session")
def trial_of() -> Callable[..., dict]:
    """`trial`, for fixtures that outlive a test."""
    return trial


@pytest.fixture
def make_trial() -> Callable[..., dict]:
    """The `trial` helper."""
    return trial


@pytest.fixture(scope="session")
def without_drawing() -> Callable[[], AbstractContextManager]:
    """A context in which figures are made and not drawn, which takes most of a report's time."""

    @contextmanager
    def patched() -> Iterator[None]:
        svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("study.reporting.figure_files._svg", lambda *_, **__: svg)
            patch.setattr("study.reporting.figure_files.png", lambda _: b"png")
            yield

    return patched


@pytest.fixture
def undrawn(without_drawing) -> Iterator[None]:
    """No figure of this test is drawn."""
    with without_drawing():
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium that is installed on this machine, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here to open pages with (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()
