"""The only adapter between Ray Tune and the training: a planned trial in, epoch reports out."""

from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from segstrat.errors import UserError
from segstrat.paths import cache_dir, data_root
from segstrat.records import EpochReport, read_records
from segstrat.store import Store
from study.on_ray import prometheus
from study.planning.space_files import import_on_worker
from study.planning.trials import PlannedTrial
from study.state.pretrainings import local_config


class SegmentationTrial(tune.Trainable):
    """One Ray actor; runs the trial it is given and, where actors are reused, the next ones.

    Its config holds `trial` (`PlannedTrial.to_dict()`) and what `study.driver.session.worker_settings` gives.
    A step is an epoch. Tune's own checkpoints are not used: `segstrat.train.train` continues from its own, in
    the study's store, in whichever process.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """CPUs and GPUs of the trial; given here, Tune needs no wrapper that would hide the class's name."""
        if config["gpus"] > 1:
            from study.on_ray.multi_gpu import SUPERVISOR_CPUS

            # The processes that Ray Train starts ask for the rest themselves.
            return tune.PlacementGroupFactory([{"CPU": SUPERVISOR_CPUS}])
        bundle = {"CPU": config["cpus"], "GPU": config["gpus"]}
        return tune.PlacementGroupFactory([{name: amount for name, amount in bundle.items() if amount}])

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a trial; nothing is loaded before its first step."""
        if config.get("space_file"):
            import_on_worker(config["space_file"])
        self.trial = PlannedTrial.from_dict(config["trial"])
        self.settings = config
        self.study = Store(config["store"])
        self.store = self.study / "trials" / self.trial.trial_id
        self._reports: Iterator[EpochReport] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial in the same process, which saves the imports."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains one epoch.

        Returns:
            `reports`: of this epoch; after a (re)start, of all epochs so far, as an earlier worker may have
            died between writing one and handing it over. `error`: what the user has to fix, or ''.
        """
        first = self._reports is None
        try:
            if self._reports is None:
                self._reports = self.epoch_reports()
            report = next(self._reports, None)
        except UserError as error:
            # Trying again would not help, so this is a result and no exception, which Tune would retry.
            return {"reports": [], "error": str(error)}
        reports = read_records(self.store)[1] if first or report is None else [report]
        if report is None and (not reports or reports[-1].status == "running"):
            raise RuntimeError(f"trial {self.trial.trial_id} ended without its last report")
        if reports:
            prometheus.show(self.settings["study"], self.trial, reports[-1])
        return {"reports": [each.to_dict() for each in reports], "error": ""}

    def cleanup(self) -> None:
        """Ends the training's generator, and with it its input threads."""
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
            self._reports = None

    def epoch_reports(self) -> Iterator[EpochReport]:
        """The trial's reports from `segstrat.train.train`."""
        # Imported by the worker only: the driver need not wait for torch.
        from segstrat.machine import Machine
        from segstrat.train import train

        numerics = self.settings["numerics"]
        gpus, cpus = self.settings["gpus"], self.settings["cpus"]
        if gpus > 1:
            from study.on_ray import multi_gpu

            return multi_gpu.epoch_reports(
                self.trial.config,
                self.study,
                self.trial.trial_id,
                numerics,
                data=self.settings["data_root"],
                cache=self.settings["cache"],
                workers=int(gpus),
                cpus=cpus,
            )
        machine = Machine(
            device=self.device(),
            threads=max(1, int(cpus)),
            data_root=data_root(self.settings["data_root"]),
            cache_dir=cache_dir() if self.settings["cache"] else None,
            memory_fraction=gpus or 1.0,
            **numerics,
        )
        return train(
            local_config(self.trial.config, self.study),
            machine=machine,
            store=self.store,
            checkpoint_every=self.settings["checkpoint_every"],
        )

    def device(self) -> str:
        """The torch device that Ray assigned.

        Raises:
            UserError: if it assigned a GPU that torch cannot see.
        """
        if not self.settings["gpus"]:
            return "cpu"
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"Ray gave this trial a GPU of node {ray.util.get_node_ip_address()}, but torch sees none "
                "there; install torch with CUDA on that node, or pass --gpus-per-trial 0"
            )
        # Ray hides the other GPUs, so the first one that is visible is ours.
        return "cuda"

    def __repr__(self) -> str:
        """The name in Ray's dashboard and logs."""
        return self.trial.label
