"""A trial on several GPUs of a node: Ray Train starts one process per GPU inside the trial.

The processes share every batch (`segstrat.distributed`), so the training is that of one process with the
whole batch. They write the trial's records as any worker does, and the trial reads its reports from there.
"""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, read_records
from segstrat.store import Store, cache_dir, data_root
from study.state.pretrainings import local_config

# Share of a core that the trial itself keeps; its processes divide the rest.
SUPERVISOR_CPUS = 0.1
POLL_SECONDS = 0.5


def epoch_reports(
    config: TrialConfig,
    study: Store,
    trial_id: str,
    numerics: dict[str, Any],
    *,
    data: str | None,
    cache: bool,
    workers: int,
    cpus: int,
    use_gpu: bool = True,
) -> Iterator[EpochReport]:
    """Trains in `workers` processes and yields each report as soon as it is on record.

    Closing the generator does not end the processes: they end with the actor that runs it.

    Args:
        study: folder of the study.
        numerics: see `segstrat.config.Numerics`.
        data: data root as the user gave it.
        cache: whether decoded data is kept on the node.
        cpus: cores of all processes together.

    Raises:
        Exception: what ended a process, after the reports that came before it.
    """
    settings = {
        "config": config.to_dict(),
        "study": study.uri,
        "trial_id": trial_id,
        "data": data,
        "cache": cache,
        "machine": {**numerics, "device": "cuda" if use_gpu else "cpu", "threads": max(1, cpus // workers)},
    }
    store = study / "trials" / trial_id
    last = max((report.epoch for report in read_records(store)[1]), default=0)
    fit: Future[None] = Future()

    def run() -> None:
        try:
            _fit(settings, workers, cpus, use_gpu=use_gpu)
            fit.set_result(None)
        except BaseException as error:
            fit.set_exception(error)

    # A daemon, because the actor may be ended meanwhile.
    threading.Thread(target=run, name="ray-train", daemon=True).start()
    while True:
        ended = wait([fit], POLL_SECONDS).done
        for report in read_records(store)[1]:
            if report.epoch > last:
                last = report.epoch
                yield report
        if ended:
            fit.result()
            return


def train_loop(settings: dict[str, Any]) -> None:
    """What each process runs, on whatever node it is; the first one writes checkpoints and records."""
    from segstrat.machine import Machine
    from segstrat.train import train

    study = Store(settings["study"])
    config = local_config(TrialConfig.from_dict(settings["config"]), study)
    machine = Machine(
        data_root=data_root(settings["data"]),
        cache_dir=cache_dir() if settings["cache"] else None,
        **settings["machine"],
    )
    for _ in train(config, machine=machine, store=study / "trials" / settings["trial_id"]):
        # `train` has put the report on record already.
        continue


def _fit(settings: dict[str, Any], workers: int, cpus: int, *, use_gpu: bool) -> None:
    each = {"CPU": (cpus - SUPERVISOR_CPUS) / workers} | ({"GPU": 1} if use_gpu else {})
    with tempfile.TemporaryDirectory(prefix="segstrat-train-") as scratch:
        trainer = TorchTrainer(
            train_loop,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=use_gpu,
                resources_per_worker=each,
                placement_strategy="STRICT_PACK",
            ),
            # Tune tries a failed trial again, from its last checkpoint; once is enough.
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except Exception as error:
            # Ray's message names no reason; the processes' own errors do.
            failures = getattr(error, "worker_failures", None) or {}
            raise next(iter(failures.values()), error) from error
