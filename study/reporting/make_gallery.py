"""Makes the report's gallery from a study's checkpoints. Running the models needs torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from segstrat.data.palette import label_palette
from segstrat.errors import UserError
from segstrat.store import Store
from study.analysis.study import Study
from study.analysis.verdict import Verdict, decide_all
from study.reporting.gallery import write_gallery
from study.reporting.shown import shown_settings

if TYPE_CHECKING:
    from segstrat.predict import TrainedTrial

TILE = 240
GALLERY_IMAGES = 6


def make_gallery(study_folder: str, root: Path | None, device: str) -> list[str]:
    """Writes the gallery of each task, for the report to show; returns the tasks that got one.

    Args:
        root: folder of the data sets.
        device: torch device that predicts.

    Raises:
        UserError: if no trial that the report shows has a checkpoint.
    """
    # Imported here: everything else of the report is made without torch.
    from segstrat.predict import load_trial

    store = Store(study_folder)
    study = Study.open(store)
    done = []
    for task in study.tasks:
        verdicts = decide_all(study, task)
        chosen = _gallery_trials(verdicts[0]) if verdicts else []
        models = [
            (name, load_trial(store / "trials" / trial_id, device))
            for name, trial_id in chosen
            if any(file.endswith(".pt") for file in (store / "trials" / trial_id).names())
        ]
        if models:
            _write_task_gallery(store, task, models, root)
            done.append(task)
    if not done:
        raise UserError(f"{study_folder}: no completed trial that the report shows has a checkpoint")
    return done


def _gallery_trials(verdict: Verdict) -> list[tuple[str, str]]:
    """Name and trial of each setting that the report shows: the completed one with the lowest seed."""
    trials = verdict.context.trials
    labels = verdict.context.settings
    found = []
    for name, pretrained, setting in shown_settings(verdict):
        same = trials[(verdict.context.pretrained == pretrained) & (labels == setting)]
        same = same[same["status"] == "completed"].sort_values("seed")
        if len(same):
            found.append((f"{name} ({setting}){_doubt(verdict, name)}", str(same["trial_id"].iloc[0])))
    return found


def _doubt(verdict: Verdict, name: str) -> str:
    """That the seeds disagree on a best setting."""
    best = {
        "raw, best regularized": verdict.contrasts.best_raw,
        "pre-trained, best": verdict.contrasts.best_pretrained,
    }
    return ", the seeds disagree" if name in best and not best[name].unanimous else ""


def _write_task_gallery(
    store: Store, task: str, models: "Sequence[tuple[str, TrainedTrial]]", root: Path | None
) -> None:
    from segstrat.predict import predict
    from segstrat.prediction_files import split_images

    first = models[0][1]
    dataset, ids = split_images(first, "val", root, cached=False)
    labelled = [index for index in range(len(ids)) if task in dataset.tasks_of(index)]
    # Evenly spread over the split, not hand-picked.
    picked = [labelled[i] for i in np.linspace(0, len(labelled) - 1, GALLERY_IMAGES).round().astype(int)]
    tiles, labels, sizes = [], [], []
    predictions: list[list[np.ndarray]] = [[] for _ in models]
    for index in picked:
        sample = dataset.read(index)
        tiles.append(_tile(sample.image, cv2.INTER_AREA))
        labels.append(_tile(sample.labels[task], cv2.INTER_NEAREST))
        sizes.append(tiles[-1].shape[:2])
        for (_, trial), column in zip(models, predictions, strict=True):
            column.append(_tile(predict(trial, sample.image)[task], cv2.INTER_NEAREST))
    write_gallery(
        store,
        task,
        images=_stack(tiles),
        valid=np.array(sizes),
        labels=_stack(labels),
        predictions=np.stack([_stack(column) for column in predictions]),
        names=np.array([name for name, _ in models]),
        classes=np.array(first.tasks[task].classes),
        palette=label_palette(first.tasks[task].classes),
        ids=np.array([ids[index] for index in picked]),
        caption=np.array(
            f"{len(picked)} validation images of {task}, evenly spread over the split; the model of the "
            "last epoch and the lowest completed seed of each setting."
        ),
    )


def _tile(array: np.ndarray, interpolation: int) -> np.ndarray:
    """The array with its longer side at most `TILE` pixels."""
    scale = min(1.0, TILE / max(array.shape[:2]))
    if scale == 1.0:
        return np.array(array)
    size = (max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale)))
    return cv2.resize(array, size, interpolation=interpolation)


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different height and width in one, zeros beyond each."""
    height, width = (max(array.shape[side] for array in arrays) for side in (0, 1))
    stacked = np.zeros((len(arrays), height, width, *arrays[0].shape[2:]), np.uint8)
    for padded, array in zip(stacked, arrays, strict=True):
        padded[: array.shape[0], : array.shape[1]] = array
    return stacked
