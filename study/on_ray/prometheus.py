"""Metrics of a trial's process at Ray's Prometheus endpoint; names there begin with `ray_segstrat_`.

Labels are the study, the arm, the trial's id and the task: never more series than the study has trials and
tasks.
"""

from ray.util.metrics import Gauge

from segstrat.records import EpochReport
from study.planning.trials import PlannedTrial

TRIAL_KEYS = ("study", "arm", "trial_id")

EPOCH = Gauge("segstrat_epoch", description="Epochs that the trial has finished.", tag_keys=TRIAL_KEYS)
SPEED = Gauge(
    "segstrat_images_per_second", description="Training images per second of training.", tag_keys=TRIAL_KEYS
)
DATA_WAIT = Gauge(
    "segstrat_data_wait",
    description="Share of the training time spent waiting for input.",
    tag_keys=TRIAL_KEYS,
)
MIOU = Gauge(
    "segstrat_val_miou", description="mIoU on the validation images.", tag_keys=(*TRIAL_KEYS, "task")
)
LOSS = Gauge(
    "segstrat_train_loss",
    description="Mean loss per pixel on the training crops.",
    tag_keys=(*TRIAL_KEYS, "task"),
)


def show(study: str, trial: PlannedTrial, report: EpochReport) -> None:
    """Sets the gauges of a trial to its newest report."""
    tags = {"study": study, "arm": trial.arm, "trial_id": trial.trial_id}
    EPOCH.set(report.epoch, tags)
    SPEED.set(report.images_per_second, tags)
    DATA_WAIT.set(report.data_wait, tags)
    for score in report.scores:
        by_task = {**tags, "task": score.task}
        if score.split == "val":
            MIOU.set(score.miou, by_task)
        else:
            LOSS.set(score.loss, by_task)
