"""TensorBoard files of a running study, written by the driver from the trials' reports."""

import contextlib
import math
import tempfile
from pathlib import Path

from segstrat.records import EpochReport
from segstrat.store import StorageError, Store
from study.state.trial_states import TrialState

FOLDER = "tensorboard"


def epoch_values(report: EpochReport) -> dict[str, float]:
    """The numbers of an epoch by name, such as `semseg/val_miou`; those that are finite."""
    values = {
        "machine/images_per_second": report.images_per_second,
        "machine/data_wait": report.data_wait,
    }
    for score in report.scores:
        for name in ("miou", "loss", "pixel_accuracy"):
            values[f"{score.task}/{score.split}_{name}"] = getattr(score, name)
    # A trial that diverged has others; the libraries would warn of them on the console.
    return {name: value for name, value in values.items() if math.isfinite(value)}


class EventFiles:
    """One event file per trial, under `tensorboard/<arm>/<other axes>-<id>/`.

    Where the study is not on a file system, files are written locally and copied when their trial ends.

    Args:
        scratch: folder for local files; default: the system's temporary folder.
    """

    def __init__(self, study: Store, scratch: Path | None = None) -> None:
        self._study = study
        self._scratch = (
            None if study.is_local else tempfile.TemporaryDirectory(prefix="segstrat-events-", dir=scratch)
        )
        self._root = Path(self._scratch.name) if self._scratch else study.local_path / FOLDER
        self._writers: dict = {}

    def add(self, state: TrialState, report: EpochReport) -> None:
        """Writes the scores of an epoch."""
        # tensorboardX takes a second to load; nobody waits for it before the first epoch.
        from tensorboardX import SummaryWriter

        trial = state.trial
        if trial.trial_id not in self._writers:
            folder = (
                self._root / trial.arm / f"{trial.label.removeprefix(trial.arm).strip()} {trial.trial_id}"
            )
            self._writers[trial.trial_id] = SummaryWriter(
                str(folder), purge_step=report.epoch, flush_secs=10, write_to_disk=True
            )
        writer = self._writers[trial.trial_id]
        for name, value in epoch_values(report).items():
            writer.add_scalar(name, value, report.epoch)
        if report.status != "running" or state.final:
            self._close(trial.trial_id)

    def close(self) -> None:
        """Closes all files; those that storage does not take are lost: the records have the curves too."""
        for trial_id in list(self._writers):
            with contextlib.suppress(StorageError):
                self._close(trial_id)
        if self._scratch is not None:
            self._scratch.cleanup()

    def _close(self, trial_id: str) -> None:
        writer = self._writers.pop(trial_id)
        writer.close()
        if self._scratch is not None:
            for path in Path(writer.logdir).iterdir():
                name = path.relative_to(self._root).as_posix()
                (self._study / FOLDER).write(name, path.read_bytes())
