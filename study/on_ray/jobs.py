"""What a study's workers run: trials, and the pre-trainings that they wait for, one after the other."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ray import tune

from segstrat.pretraining.job import PretrainReport
from segstrat.store import StorageError, Store, cache_dir
from study.on_ray.trainable import SegmentationTrial
from study.state.pretrainings import FOLDER, PlannedPretraining

# A step of a pre-training lasts no longer, so that it can be ended between the steps of an epoch.
STEP_SECONDS = 1.0


class StudyJob(SegmentationTrial):
    """A trial, or a pre-training if its config has `pretraining` (`PlannedPretraining.to_dict()`)."""

    pretraining: PlannedPretraining | None = None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The share of a trial; a pre-training runs in one process, on one GPU at most."""
        if not config.get("pretraining"):
            return super().default_resource_request(config)
        gpu = {"GPU": min(config["gpus"], 1)} if config["gpus"] else {}
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], **gpu}])

    def setup(self, config: dict[str, Any]) -> None:
        """Takes a job; nothing is loaded before its first step."""
        planned = config.get("pretraining")
        self.pretraining = PlannedPretraining.from_dict(planned) if planned else None
        self._steps: Iterator[PretrainReport | None] | None = None
        self._begun = False
        if self.pretraining is None:
            super().setup(config)
            return
        self.settings = config
        self._reports = None

    def step(self) -> dict[str, Any]:
        """Trains one epoch of a trial, see `SegmentationTrial.step`, or some steps of a pre-training.

        Returns:
            `reports`: of the epoch that a pre-training has completed, or none yet. `error`: what the user
            has to fix, or ''. `done`: whether its weights exist.
        """
        if self.pretraining is None:
            return super().step()
        if not self._begun:
            # It may have been ended while it waited for a worker: loading torch would take seconds.
            self._begun = True
            return {"reports": [], "error": "", "done": False}
        from segstrat.errors import UserError

        try:
            self._steps = self._steps or self.pretrain_steps(self.pretraining)
            deadline = time.monotonic() + STEP_SECONDS
            for report in self._steps:
                if report is not None:
                    return {"reports": [asdict(report)], "error": "", "done": False}
                if time.monotonic() > deadline:
                    return {"reports": [], "error": "", "done": False}
        except StorageError:
            raise
        except UserError as error:
            # Trying again would not help, so this is a result and no exception, which Tune would retry.
            return {"reports": [], "error": str(error), "done": True}
        return {"reports": [], "error": "", "done": True}

    def cleanup(self) -> None:
        """Ends the job's generator: its threads, its memory, its lock on the weights."""
        if getattr(self, "_steps", None) is not None:
            self._steps.close()  # type: ignore[union-attr]
            self._steps = None
        super().cleanup()

    def pretrain_steps(self, planned: PlannedPretraining) -> Iterator[PretrainReport | None]:
        """The reports of the pre-training, and None between its steps."""
        # Imported by the worker only: the driver need not wait for torch.
        from segstrat.pretraining.cached import pretrain_machine, train_weights

        gpus = self.settings["gpus"]
        machine = pretrain_machine(
            self.device(gpus), max(1, int(self.settings["cpus"])), memory_fraction=min(gpus, 1.0) or 1.0
        )
        shared = Store(self.settings["store"]) / FOLDER if self.settings["shared_weights"] else None
        out = cache_dir() / FOLDER / planned.file
        return train_weights(planned.pretraining, out, machine, shared=shared)

    def __repr__(self) -> str:
        """The name in Ray's dashboard and logs."""
        return f"pre-train {self.pretraining.pretraining}" if self.pretraining else super().__repr__()
