"""Studies of thousands of ended trials: planned and written by the project's own functions, untrained."""

import dataclasses
import math
import random
from pathlib import Path

from segstrat.records import EpochReport, SplitScore, TrialRecord, TrialStatus, write_outcome, write_records
from segstrat.scores import Metric
from segstrat.store import Store
from study.driver.stages import study_facts
from study.planning.space import Space, load_space
from study.planning.trials import PlannedTrial, plan
from study.state.halving import HalvingRule
from study.state.manifest import write_manifest
from tests.study.fakes import FACTS

METRIC = Metric("semseg")
CLASSES = 9


def large_space(trials: int, *, sampled: bool = False) -> tuple[Space, tuple[int, ...]]:
    """A space and seeds of so many trials: ten cells on many seeds or, `sampled`, many cells on two."""
    space = load_space("wd_grid")
    decays = math.ceil(trials / 4) if sampled else 5
    axes = {**space.axes, "weight_decay": [index / 100 / decays for index in range(decays)]}
    seeds = tuple(range(math.ceil(trials / (2 * decays))))
    return dataclasses.replace(space, axes=axes, on={}), seeds


def planned_trials(trials: int, *, sampled: bool = False, epochs: int = 4) -> list[PlannedTrial]:
    """The plan of such a study, in its order."""
    space, seeds = large_space(trials, sampled=sampled)
    space = dataclasses.replace(space, base=space.base | {"epochs": epochs})
    return plan(space, "figures", seeds=seeds, weights="w")[:trials]


def write_large_study(
    folder: Path, trials: int, *, sampled: bool = False, epochs: int = 4, waiting: int = 0
) -> Store:
    """Writes a study whose trials have ended, but the last `waiting` ones, which have not begun.

    Of a hundred trials, one has diverged and one has failed.
    """
    study = Store(folder)
    planned = planned_trials(trials, sampled=sampled, epochs=epochs)
    space, seeds = large_space(trials, sampled=sampled)
    manifest = {
        "schema": 1, "study": folder.name, "seeds": list(seeds),
        "scheduler": HalvingRule.of("none").to_dict(),
        "data": {"name": "figures", "synthetic": True, "train_images": 120, "val_images": 60,
                 "classes": {"semseg": [f"class {index}" for index in range(CLASSES)]}},
        "question": space.question, "options": {"space": "wd_grid", "data": "figures"},
        "trials": [trial.to_dict() for trial in planned], "weights": {"source": "", "digest": ""},
        **study_facts(space),
    }  # fmt: skip
    write_manifest(study, manifest)
    for trial in planned[: len(planned) - waiting]:
        end_trial(study, trial)
    return study


def end_trial(study: Store, trial: PlannedTrial) -> None:
    """Writes what a trial leaves behind when it ends."""
    folder = study / "trials" / trial.trial_id
    reports = trial_reports(trial)
    write_records(folder, FACTS, reports)
    folder.write("checkpoint-000004.pt", b"state")
    last = reports[-1]
    status = TrialStatus.FAILED if trial.order % 100 == 99 else TrialStatus(last.status)
    error = "a worker died" if status is TrialStatus.FAILED else last.message
    write_outcome(folder, TrialRecord(status=status, all_reports=tuple(reports), error=error, attempts=1))


def trial_reports(trial: PlannedTrial) -> list[EpochReport]:
    """The reports of a trial; one of a hundred diverges in its second epoch."""
    config, rng = trial.config, random.Random(trial.trial_id)
    final = 0.2 + 0.1 * config.pretrained + 20 * config.weight_decay + rng.gauss(0, 0.01)
    diverges = trial.order % 100 == 50
    reports = []
    for epoch in range(1, config.epochs + 1):
        ends = "completed" if epoch == config.epochs else "running"
        bad = diverges and epoch == 2
        value = final * epoch / config.epochs
        scores = () if bad else (split_score("train", value + 0.1, rng), split_score("val", value, rng))
        found = EpochReport(
            epoch=epoch, epochs=config.epochs, status="diverged" if bad else ends, scores=scores,  # type: ignore[arg-type]
            learning_rate=0.01, seconds=2.0, images_per_second=50.0, data_wait=0.1,
            message="the loss is not finite" if bad else "",
        )  # fmt: skip
        reports.append(found)
        if bad:
            break
    return reports


def split_score(split: str, value: float, rng: random.Random) -> SplitScore:
    iou = tuple(value + rng.gauss(0, 0.05) for _ in range(CLASSES - 1))
    return SplitScore(
        split=split, task="semseg", loss=1 - value, miou=value, miou_thesis=0.9 * value,  # type: ignore[arg-type]
        pixel_accuracy=value, class_accuracy=value, iou=(*iou, None),
    )  # fmt: skip
