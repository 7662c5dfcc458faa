"""Pre-trainings as jobs of a study: what is planned, how far it is, and where their weights are.

On one machine weights stay in its cache. On a cluster the study's folder has them, and the state of those
that are being trained, so that every node finds the first and can continue the second.
"""

import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.pretraining.job import Pretraining, PretrainReport
from segstrat.records import checkpoint_epochs
from segstrat.store import Store, cache_dir
from study.state.trial_states import Phase

FOLDER = "weights"


@dataclass(frozen=True, kw_only=True)
class PlannedPretraining:
    """A pre-training before it runs.

    Args:
        file: name of the file of its weights, which tells apart all that can differ.
        epochs: of its recipe.
    """

    pretraining: Pretraining
    file: str
    epochs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in the manifest and sent to a worker."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlannedPretraining":
        """The inverse of `to_dict`."""
        return cls(**{**values, "pretraining": Pretraining.from_dict(values["pretraining"])})


@dataclass(frozen=True, kw_only=True)
class PretrainState:
    """One pre-training at one moment.

    Args:
        epoch: how many epochs are complete.
        last: the newest report of this run of the study.
        seconds: of the epochs that were timed.
        ahead: no trial that is known needs it; it gives way to those.
        made: whether its weights exist.
    """

    job: PlannedPretraining
    phase: Phase = Phase.WAITING
    epoch: int = 0
    last: PretrainReport | None = None
    seconds: tuple[float, ...] = ()
    error: str = ""
    ahead: bool = False
    made: bool = False

    @property
    def active(self) -> bool:
        """Whether a worker has it, or will have it again after a failure."""
        return not self.made and self.phase in (Phase.RUNNING, Phase.RETRYING)

    @property
    def total_seconds(self) -> float | None:
        """Of all its epochs, by those that were timed in this run of the study; None without any."""
        if not self.seconds:
            return None
        return self.job.epochs * sum(self.seconds) / len(self.seconds)

    @property
    def epochs_left(self) -> int:
        """Epochs until its weights exist."""
        return 0 if self.made else self.job.epochs - self.epoch

    def with_reports(self, reports: tuple[PretrainReport, ...]) -> "PretrainState":
        """The state after further epochs."""
        if not reports:
            return self
        seconds = (*self.seconds, *(report.seconds for report in reports))
        return dataclasses.replace(self, epoch=reports[-1].epoch, last=reports[-1], seconds=seconds)


def read_pretrainings(planned: list[Mapping[str, Any]], study: Store) -> list[PretrainState]:
    """The pre-trainings that a study has begun and not completed, from its folder and this machine's cache.

    Args:
        planned: `pretrainings` in the manifest.
    """
    folders = (study / FOLDER, Store(cache_dir() / FOLDER))
    jobs = map(PlannedPretraining.from_dict, planned)
    return [PretrainState(job=job, epoch=max(epochs_done(job, folder) for folder in folders)) for job in jobs]


def epochs_done(job: PlannedPretraining, folder: Store) -> int:
    """How many epochs are complete of a pre-training whose state is in a folder of weights."""
    return max(checkpoint_epochs((folder / f"{job.file}.state").names()), default=0)


def share_file(shared: Store, path: Path) -> None:
    """Copies a file of weights to where all nodes see it."""
    content = path.read_bytes()
    # A copy that is damaged would fail every pre-trained trial of another node.
    if not shared.exists(path.name) or shared.read(path.name) != content:
        shared.write(path.name, content)


def local_config(config: TrialConfig, study: Store) -> TrialConfig:
    """A trial's config with the path of its weights on this node, copied from the study if necessary.

    Raises:
        UserError: if the file is neither on this node nor in the study.
    """
    if config.weights in (None, "imagenet") or Path(config.weights).exists():
        return config
    name = Path(config.weights).name
    if not (study / FOLDER).exists(name):
        raise UserError(
            f"weights {config.weights} are neither on node {socket.gethostname()} nor in {study.uri}; put "
            "the file at the same place on every node, and give its absolute path"
        )
    here = Store(cache_dir() / FOLDER)
    here.write(name, (study / FOLDER).read(name))
    return dataclasses.replace(config, weights=str(here.local_path / name))
