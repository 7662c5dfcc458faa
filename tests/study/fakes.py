"""Trials without training: reports, planned trials, and an executor that runs generators in this process."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from segstrat.config import TrialConfig
from segstrat.records import EpochReport, SplitScore, Stage, TrialFacts
from study.planning.trials import PlannedTrial
from study.state.executor import Ended, Event, Reported, Retried, Started

METRIC = "semseg_val_miou"
FACTS = TrialFacts(
    num_parameters=1, realised_weight_decay=0.0, dropout_modules=0, init_digest="", weights_digest="",
    data_digest="", train_images=1, val_images=1, device="cpu", precision="float32",
)  # fmt: skip

Train = Callable[[PlannedTrial], Iterator[EpochReport]]


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
    """Runs trials in this process: each `poll` advances one running trial by an epoch.

    Args:
        train: yields a trial's reports, all of them after a restart; what it raises is the trial's failure.
        concurrent: trials at the same time.
        seed: of the choice which trial advances; timing as chance would have it.
        max_retries: failures of a trial after which it is given up.
    """

    def __init__(self, train: Train, *, concurrent: int = 1, seed: int = 0, max_retries: int = 0) -> None:
        self._train = train
        self._concurrent = concurrent
        self._random = random.Random(seed)
        self._max_retries = max_retries
        self._queued: deque[PlannedTrial] = deque()
        self._running: dict[str, Iterator[EpochReport]] = {}
        self._trials: dict[str, PlannedTrial] = {}
        self._failures: dict[str, int] = {}
        self._stopping: set[str] = set()

    def start(self, trial: PlannedTrial) -> None:
        self._queued.append(trial)

    def stop(self, trial_id: str) -> None:
        self._stopping.add(trial_id)

    def poll(self) -> list[Event]:
        events: list[Event] = []
        for trial_id in self._stopping & set(self._running):
            del self._running[trial_id]
            events.append(Ended(trial_id))
        while self._queued and len(self._running) < self._concurrent:
            trial = self._queued.popleft()
            self._trials[trial.trial_id] = trial
            self._running[trial.trial_id] = self._train(trial)
            events.append(Started(trial.trial_id))
        if self._running:
            events.append(self._advance(self._random.choice(sorted(self._running))))
        return events

    def _advance(self, trial_id: str) -> Event:
        try:
            return Reported(trial_id, (next(self._running[trial_id]),))
        except Exception as error:
            self._failures[trial_id] = self._failures.get(trial_id, 0) + 1
            del self._running[trial_id]
            if self._failures[trial_id] > self._max_retries:
                return Ended(trial_id, str(error))
            self._queued.appendleft(self._trials[trial_id])
            return Retried(trial_id, str(error))
