"""Trials without training: reports, planned trials, and an executor that runs generators in this process."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, SplitScore, Stage, TrialFacts
from segstrat.scores import Metric
from study.planning.trials import PlannedTrial
from study.state.executor import Ended, Event, Job, Report, Reported, Retried, Started, job_id

METRIC = Metric("semseg")
FACTS = TrialFacts(
    num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="", weights_digest="",
    data_digest="", train_images=1, val_images=1, device="cpu", precision="float32",
)  # fmt: skip

Train = Callable[[Any], Iterator[Any]]


def planned(order: int, arm: str = "raw", epochs: int = 8, **fields: object) -> PlannedTrial:
    """A new trial; `fields` replace those of `PlannedTrial`."""
    config = TrialConfig(epochs=epochs, weight_decay=order / 1000, seed=0)
    values = {
        "trial_id": f"{arm}{order}", "order": order, "arm": arm, "axes": {"weight_decay": order / 1000},
        "config": config, "stage": Stage.SCREENING,
    }  # fmt: skip
    return PlannedTrial(**(values | fields))  # type: ignore[arg-type]


def report(
    epoch: int, value: float, *, epochs: int = 8, status: str = "", seconds: float = 2.0
) -> EpochReport:
    """A report whose validation mIoU is `value`; a diverged one has no scores."""
    score = SplitScore(
        split="val", task="semseg", loss=1.0, miou=value, miou_thesis=value, pixel_accuracy=value,
        class_accuracy=value, iou=(value,),
    )  # fmt: skip
    diverged = status == "diverged"
    return EpochReport(
        epoch=epoch, epochs=epochs, status=status or ("completed" if epoch == epochs else "running"),  # type: ignore[arg-type]
        scores=() if diverged else (score,), learning_rate=0.1, seconds=seconds, images_per_second=1.0,
        data_wait=0.0, message="not finite at step 3" if diverged else "",
    )  # fmt: skip


def curve(values: Sequence[float]) -> Iterator[EpochReport]:
    """Reports of these values, one per epoch."""
    for epoch, value in enumerate(values, start=1):
        yield report(epoch, value, epochs=len(values))


class LocalExecutor:
    """Runs jobs in this process: each `poll` advances one running job by an epoch.

    Args:
        train: yields a job's reports, all of them after a restart; what it raises is the job's failure. A
            pre-training may also yield None, as one does between the steps of an epoch.
        concurrent: jobs at the same time.
        seed: of the choice which job advances; timing as chance would have it.
        max_retries: failures of a job after which it is given up.
    """

    def __init__(self, train: Train, *, concurrent: int = 1, seed: int = 0, max_retries: int = 0) -> None:
        self._train = train
        self._concurrent = concurrent
        self._random = random.Random(seed)
        self._max_retries = max_retries
        self._queued: deque[Job] = deque()
        self._running: dict[str, Iterator[Report | None]] = {}
        self._jobs: dict[str, Job] = {}
        self._failures: dict[str, int] = {}
        self._stopping: set[str] = set()

    def start(self, job: Job) -> None:
        self._stopping.discard(job_id(job))
        self._queued.append(job)

    def stop(self, job_id: str) -> None:
        self._stopping.add(job_id)

    def poll(self) -> list[Event]:
        events: list[Event] = []
        for name in self._stopping & set(self._running):
            del self._running[name]
            events.append(Ended(name))
        while self._queued and len(self._running) < self._concurrent:
            job = self._queued.popleft()
            name = job_id(job)
            if name in self._stopping:
                events.append(Ended(name))
                continue
            self._jobs[name] = job
            self._running[name] = iter(self._train(job))
            events.append(Started(name))
        if self._running:
            events.append(self._advance(self._random.choice(sorted(self._running))))
        return events

    def _advance(self, name: str) -> Event:
        try:
            report = next(self._running[name])
            return Reported(name, () if report is None else (report,))
        except StopIteration:
            del self._running[name]
            return Ended(name)
        except Exception as error:
            self._failures[name] = self._failures.get(name, 0) + 1
            del self._running[name]
            if self._failures[name] > self._max_retries:
                return Ended(name, str(error))
            self._queued.appendleft(self._jobs[name])
            return Retried(name, str(error))
