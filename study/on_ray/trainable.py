"""`SegmentationTrial`: one training run as a Ray Tune trainable, for any `tune.Tuner` and for the study."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray import tune

from segstrat.config import Numerics, TrialConfig
from segstrat.errors import UserError
from segstrat.records import (
    SCORES,
    EpochReport,
    checkpoint_epochs,
    checkpoint_name,
    digest_name,
    read_records,
)
from segstrat.store import StorageError, Store, cache_dir, data_root
from study.on_ray import prometheus
from study.planning.space_files import import_on_worker
from study.planning.trials import PlannedTrial, arm_label
from study.state.pretrainings import local_config

SETTINGS: dict[str, Any] = {
    "cpus": 1,
    "gpus": 0,
    "data_root": None,
    "cache": True,
    **Numerics().numerics(),
    # What a study adds: where the state is kept, and what the trial is there.
    "store": None,
    "checkpoint_every": 1,
    "study": "tune",
    "trial": {},
    "space_file": None,
    "job_id": "",
    "shared_weights": False,
}
"""Keys of a config that are not fields of `TrialConfig`, with their defaults; docs/ray.md explains them."""

FACTS = ("epoch", "epochs", "status", "learning_rate", "seconds", "images_per_second", "data_wait")


class SegmentationTrial(tune.Trainable):
    """Trains a `TrialConfig`, one epoch per step, in a Ray actor that may be reused for the next trial.

    Its config is a plain dict: fields of `TrialConfig`, and any of `SETTINGS`. A study passes its `store`, in
    which `segstrat.train.train` keeps the trial's state, so that any process continues it; without one the
    state is in a temporary folder, and Tune's checkpoints are copies of it.
    """

    _scratch: tempfile.TemporaryDirectory | None = None
    _reports: Iterator[EpochReport] | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """CPUs and GPUs of the trial; given here, Tune needs no wrapper that would hide the class's name.

        Raises:
            UserError: for a config that cannot be trained; Tune asks in the driver, before anything starts.
        """
        _, settings = split_config(config)
        if settings["gpus"] > 1:
            from study.on_ray.multi_gpu import SUPERVISOR_CPUS

            # The processes that Ray Train starts ask for the rest themselves.
            return tune.PlacementGroupFactory([{"CPU": SUPERVISOR_CPUS}])
        bundle = {"CPU": settings["cpus"], "GPU": settings["gpus"]}
        return tune.PlacementGroupFactory([{name: amount for name, amount in bundle.items() if amount}])

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a trial; nothing is loaded before its first step."""
        trial_config, self.settings = split_config(config)
        if self.settings["space_file"]:
            import_on_worker(self.settings["space_file"])
        given = {name: value for name, value in config.items() if name not in SETTINGS}
        plan = {
            "trial_id": self.trial_id,
            "order": 0,
            "arm": arm_label(given, {}, trial_config),
            "axes": given,
        }
        self.trial = PlannedTrial.from_dict(
            plan | self.settings["trial"] | {"config": trial_config.to_dict()}
        )
        self._scratch = tempfile.TemporaryDirectory(
            prefix="state-", dir=self.logdir, ignore_cleanup_errors=True
        )
        self.study = Store(self.settings["store"] or self._scratch.name)
        self.store = self.study / "trials" / self.trial.trial_id
        self._reports = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial in the same process, which saves the imports."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains one epoch.

        Returns:
            Flat metrics, see `flat_metrics`, and `done`. A study ends its trials itself: instead of `done` it
            gets `reports` of this epoch, after a (re)start of all epochs so far, as an earlier worker may
            have died between writing one and handing it over; and `error`, what the user has to fix, or ''.

        Raises:
            UserError: what the user has to fix, without a study.
        """
        first = self._reports is None
        try:
            if self._reports is None:
                self._reports = self.epoch_reports()
            report = next(self._reports, None)
        except UserError as error:
            if self.settings["store"] is None or isinstance(error, StorageError):
                raise
            # Trying again would not help, so this is a result and no exception, which Tune would retry.
            return {"reports": [], "error": str(error)}
        if first or report is None:
            self._metrics = unknown_scores(self.trial.config)
            reports = read_records(self.store)[1]
        else:
            reports = [report]
        if report is None and (not reports or reports[-1].status == "running"):
            raise RuntimeError(f"trial {self.trial.trial_id} ended without its last report")
        prometheus.show(self.settings["study"], self.trial, reports[-1])
        for each in reports:
            self._metrics |= flat_metrics(each, self.trial.config)
        if self.settings["store"] is None:
            return self._metrics | {"done": reports[-1].status != "running"}
        return self._metrics | {"reports": [each.to_dict() for each in reports], "error": ""}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copies the state after the last step; `segstrat.predict.load_trial` reads the folder."""
        self._writer.wait()
        _copy_newest(self.store, Store(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Replaces the state; the next step continues exactly as the trial that was saved would have."""
        self._close()
        for name in self.store.names():
            self.store.delete(name)
        _copy_newest(Store(checkpoint), self.store)

    def cleanup(self) -> None:
        """Ends the training, and with it its input threads."""
        self._close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _close(self) -> None:
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
            self._reports = None

    def epoch_reports(self) -> Iterator[EpochReport]:
        """The trial's reports from `segstrat.train.train`."""
        # Imported by the worker only: the driver need not wait for torch.
        from segstrat.checkpoint import CheckpointWriter
        from segstrat.machine import Machine
        from segstrat.train import train

        numerics = {name: self.settings[name] for name in Numerics().numerics()}
        if self.settings["gpus"] > 1:
            from study.on_ray import multi_gpu

            return multi_gpu.epoch_reports(
                self.trial.config,
                self.study,
                self.trial.trial_id,
                numerics,
                data=self.settings["data_root"],
                cache=self.settings["cache"],
                workers=int(self.settings["gpus"]),
                cpus=self.settings["cpus"],
            )
        cpus, gpus = self.resources()
        machine = Machine(
            device=self.device(gpus),
            threads=max(1, int(cpus)),
            data_root=data_root(self.settings["data_root"]),
            cache_dir=cache_dir() if self.settings["cache"] else None,
            memory_fraction=gpus or 1.0,
            **numerics,
        )
        self._writer = CheckpointWriter()
        return train(
            local_config(self.trial.config, self.study),
            machine=machine,
            store=self.store,
            checkpoint_every=self.settings["checkpoint_every"],
            writer=self._writer,
        )

    def resources(self) -> tuple[float, float]:
        """CPUs and GPUs that Ray gave the trial, as its config or `tune.with_resources` asked.

        Raises:
            UserError: for several GPUs.
        """
        given = self.trial_resources or self.default_resource_request(self.config)
        bundle = given.bundles[0]
        _refuse_several_gpus(bundle.get("GPU", 0))
        return bundle.get("CPU", 1), bundle.get("GPU", 0)

    def device(self, gpus: float) -> str:
        """The torch device that Ray assigned.

        Raises:
            UserError: if it assigned a GPU that torch cannot see.
        """
        if not gpus:
            return "cpu"
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"Ray gave this trial a GPU of node {ray.util.get_node_ip_address()}, but torch sees none "
                "there; install torch with CUDA on that node, or ask for no GPU (a study: --gpus-per-trial 0)"
            )
        # Ray hides the other GPUs, so the first one that is visible is ours.
        return "cuda"

    def __repr__(self) -> str:
        """The name in Ray's dashboard and logs."""
        return self.trial.label


def split_config(config: Mapping[str, Any]) -> tuple[TrialConfig, dict[str, Any]]:
    """What is trained, and the settings of `SETTINGS`, from a trial's config.

    Raises:
        UserError: for an unknown key, or a value that is not valid.
    """
    settings = SETTINGS | {name: value for name, value in config.items() if name in SETTINGS}
    Numerics(**{name: settings[name] for name in Numerics().numerics()})
    if settings["store"] is None:
        _refuse_several_gpus(settings["gpus"])
    trial_config = TrialConfig.from_dict(
        {name: value for name, value in config.items() if name not in SETTINGS}
    )
    return trial_config, settings


def unknown_scores(config: TrialConfig) -> dict[str, Any]:
    """The validation scores of a trial that has not been validated yet: not-a-number."""
    return {f"{task}_val_{score}": math.nan for task in config.tasks for score in SCORES}


def flat_metrics(report: EpochReport, config: TrialConfig) -> dict[str, Any]:
    """What an epoch reports, under flat names: `FACTS`, and scores such as `semseg_val_miou`.

    An epoch without validation leaves the validation scores out, so that the last known ones stand; a
    diverged one sets them to not-a-number, which Ray ranks nowhere.
    """
    missing = unknown_scores(config) if report.status == "diverged" else {}
    return {name: getattr(report, name) for name in FACTS} | missing | report.metrics()


def _refuse_several_gpus(gpus: float) -> None:
    if gpus > 1:
        raise UserError(
            f"gpus={gpus:g}: expected at most 1 for a trial of a Tuner of your own; a study can train one "
            "trial on several GPUs (uv run python study/run.py --gpus-per-trial 2)"
        )


def _copy_newest(source: Store, target: Store) -> None:
    for epoch in checkpoint_epochs(source.names())[-1:]:
        for name in (checkpoint_name(epoch), digest_name(checkpoint_name(epoch))):
            target.write(name, source.read(name))
