"""Names of the columns of both frames."""

import itertools
from collections.abc import Iterable

from segstrat.image_counts import HALVES
from segstrat.records import Stage, TrialStatus

STATUSES = tuple(str(status) for status in TrialStatus)
STAGES = tuple(str(stage) for stage in Stage)

# On which images a completed trial can report: all of its validation images chose something.
VALIDATION, HALVED, TEST = "the images that chose", "halves of the validation images", "test images"
IMAGES = (VALIDATION, HALVED, TEST)

EPOCH_KEYS = ("trial_id", "epoch", "split", "task")
SCORES = ("loss", "miou", "miou_thesis", "pixel_accuracy", "class_accuracy")
EPOCH_FACTS = ("learning_rate", "seconds", "images_per_second", "data_wait")
TRIAL_KEYS = (
    *("trial_id", "study", "space", "data", "order", "stage", "arm", "cell", "setting", "context"),
    *("reference", "tasks", "model", "backbone"),
    *("pretrained", "multi_task", "weight_decay", "dropout", "seed"),
    *("status", "stop_rung", "stop_epoch", "epochs_run", "epochs_budget", "best_epoch", "val_miou_thesis"),
)
# Frames of earlier versions lack these.
ADDED_KEYS = ("stage", "cell", "setting", "context", "reference")
TRIAL_FACTS = (
    *("num_parameters", "realised_weight_decay", "dropout_modules", "init_digest", "weights_digest"),
    *("data_digest", "train_images", "val_images", "device", "precision"),
)


def score_columns(tasks: Iterable[str]) -> list[str]:
    """Scores at the best epoch, and under `last_…` at the last scored one."""
    parts = itertools.product(tasks, ("", "last_"), ("train", "val"), SCORES)
    return [f"{prefix}{task}_{split}_{score}" for task, prefix, split, score in parts]


def image_columns(tasks: Iterable[str]) -> list[str]:
    """What derives from pixel counts of every image after the last epoch: numbers."""
    columns = []
    for task in tasks:
        columns += [f"last_{task}_val_miou_{half}" for half in HALVES]
        columns += [f"last_{task}_test_miou"]
        columns += [f"{task}_{split}_constant_miou" for split in ("val", "test")]
    return columns


def image_names(tasks: Iterable[str]) -> list[str]:
    """The images that may report a trial's score, one of `IMAGES`: text, empty before its end."""
    return [f"{task}_images" for task in tasks]


def jackknife_columns(tasks: Iterable[str]) -> list[str]:
    """mIoU without each group of images: arrays (G,)."""
    return [f"last_{task}_{split}_miou_jackknife" for task in tasks for split in ("val", "test")]
