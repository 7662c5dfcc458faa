"""The training loop: plain functions, and `train()`, a generator of one report per epoch."""

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

import torch

from segstrat import distributed
from segstrat.checkpoint import CheckpointWriter
from segstrat.config import TrialConfig
from segstrat.data import DataProtocol, build_protocol
from segstrat.data.loading.batch import Batch
from segstrat.epoch_metrics import EpochMetrics, ImageCounter
from segstrat.image_counts import read_counts, write_counts
from segstrat.machine import Machine
from segstrat.models.segmenter import Segmenter
from segstrat.objective import Objective
from segstrat.optim import COMMON, AsynchronousUpdate, Update
from segstrat.records import EpochReport, SplitScore, write_records
from segstrat.store import Store
from segstrat.training_state import TrainingState, build_training, images_per_batch


def train(
    config: TrialConfig,
    *,
    machine: Machine | None = None,
    protocol: DataProtocol | None = None,
    model: Segmenter | None = None,
    store: Store | None = None,
    checkpoint_every: int = 1,
    writer: CheckpointWriter | None = None,
) -> Iterator[EpochReport]:
    """Trains one configuration and yields a report after every epoch.

    With a `store`, the state is saved there after each epoch, in the background, and a later call with the
    same config continues after the newest good checkpoint: on the CPU it ends bit-identical to an
    uninterrupted run, because every random draw is a function of (seed, epoch, index). A crash costs the
    epoch in progress, and the one before if its checkpoint was still being written. Closing the generator
    waits for the checkpoint.

    Args:
        protocol: the data, if it is already built; otherwise it is built from `config.data`.
        model: trained instead of the one that `config` describes; changed in place.
        store: folder of this trial. Where several processes train one trial (`segstrat.distributed`), all
            read it and the first one writes.
        checkpoint_every: epochs between checkpoints; the last epoch is always saved.
        writer: writes the checkpoints, and is closed at the end; whoever passes one can wait for the
            checkpoint of the epoch that was yielded last.

    Raises:
        UserError: for data, weights or a model that do not fit the config, before the first epoch.
    """
    machine = machine or Machine()
    machine.apply()
    protocol = protocol or build_protocol(
        config.data, machine.data_root, tasks=config.tasks, cache_dir=machine.cache_dir
    )
    trial = build_training(config, machine, protocol, model)
    reports = trial.resume(store) if store is not None else []
    if store is not None and reports:
        _repair(trial, store, reports)
    with closing(writer or CheckpointWriter()) as writer:
        for epoch in range(len(reports), config.epochs):
            if reports and reports[-1].status == "diverged":
                return
            reports.append(_run_epoch(trial, epoch))
            if store is not None and distributed.rank() == 0:
                _write_epoch(trial, store, writer, reports, checkpoint_every)
            yield reports[-1]


def _write_epoch(
    trial: TrainingState,
    store: Store,
    writer: CheckpointWriter,
    reports: list[EpochReport],
    checkpoint_every: int,
) -> None:
    """Writes what an epoch leaves behind; records last, as they say that the trial has ended."""
    last = reports[-1]
    if last.status == "completed":
        write_counts(store, trial.image_counts)
    if last.status != "running" or last.epoch % checkpoint_every == 0:
        trial.save(writer, store, reports)
    if last.status != "running":
        writer.wait()
    write_records(store, trial.facts, reports)


def _repair(trial: TrainingState, store: Store, reports: list[EpochReport]) -> None:
    """Writes what a process that died after its checkpoint left unwritten."""
    first = distributed.rank() == 0
    missing = first and reports[-1].status == "completed" and not _has_counts(store)
    # The first process decides for all, because they evaluate together.
    if distributed.any_process(missing, trial.objective.machine.torch_device):
        score_splits(trial, final=True)
        if first:
            write_counts(store, trial.image_counts)
    if first:
        write_records(store, trial.facts, reports)


def _has_counts(store: Store) -> bool:
    try:
        return bool(read_counts(store))
    except ValueError:
        return False


def _run_epoch(trial: TrainingState, epoch: int) -> EpochReport:
    config, loader = trial.config, trial.train_loader
    start = time.perf_counter()
    # Dropout is the only draw from torch's generator: seeded per epoch, it needs no place in a checkpoint.
    draws = f"{config.seed}/{epoch}/{distributed.rank()}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(draws.encode()).digest()[:8]) >> 1)
    micro_batch = config.batch_size // distributed.world_size()
    images = images_per_batch(loader, epoch) if distributed.world_size() > 1 else None
    metrics = train_one_epoch(trial.objective, loader.epoch(epoch), trial.update, micro_batch, images)
    scores = metrics.scores("train")
    training_seconds = time.perf_counter() - start
    last = epoch + 1 == config.epochs
    status, message = ("completed", "") if last else ("running", "")
    if (step := metrics.first_bad_step()) is not None:
        status, message = "diverged", f"the loss was not finite at step {step} of epoch {epoch + 1}"
    elif last or (epoch + 1) % config.validate_every == 0:
        scores += score_splits(trial, final=last)
        bad = [score for score in scores if not math.isfinite(score.loss)]
        if bad:
            status, message = "diverged", f"the loss on {bad[0].split} was not finite after epoch {epoch + 1}"
    if status != "diverged" and not _all_finite(trial.model):
        status, message = "diverged", f"weights were not finite after epoch {epoch + 1}"
    head = trial.update.groups[-1]
    return EpochReport(
        epoch=epoch + 1,
        epochs=config.epochs,
        status=status,  # type: ignore[arg-type]
        scores=scores,
        learning_rate=head.optimizer.param_groups[0]["lr"],
        seconds=time.perf_counter() - start,
        images_per_second=len(loader.dataset) / training_seconds,
        data_wait=loader.wait_seconds / training_seconds,
        message=message,
    )


def _all_finite(model: torch.nn.Module) -> bool:
    """Whether every weight and every statistic of batch norm is a finite number; the device is asked once."""
    statistics = [value for name, value in model.named_buffers() if "running_" in name]
    values = [*model.parameters(), *statistics]
    return bool(torch.stack([value.detach().isfinite().all() for value in values]).all())


def score_splits(trial: TrainingState, *, final: bool) -> tuple[SplitScore, ...]:
    """Scores on the validation split; at the final epoch on all splits, with counts by image."""
    objective = trial.objective
    loaders = {"val": trial.val_loader}
    if final and trial.test_loader is not None:
        loaders["test"] = trial.test_loader
    scores: tuple[SplitScore, ...] = ()
    for split, loader in loaders.items():
        device = objective.machine.torch_device
        counter = None
        if final:
            boundaries = objective.boundary_tolerance > 0
            counter = ImageCounter(loader.dataset, objective.tasks, device, boundaries=boundaries)
        metrics = evaluate(objective, loader, counter)
        constant = metrics.constant_miou()
        trial.note_constant_miou(split, constant)
        scores += _of_labelled(metrics, split)
        for task, counts in counter.compute().items() if counter else ():
            trial.note_image_counts(task, split, counts)
    if final:
        scores += _of_labelled(evaluate(objective, trial.train_clean_loader), "train_clean")
    return scores


def _of_labelled(metrics: EpochMetrics, split: str) -> tuple[SplitScore, ...]:
    """The scores of the tasks that a split is labelled for; of validation, all."""
    labelled = metrics.constant_miou()
    return tuple(score for score in metrics.scores(split) if split == "val" or score.task in labelled)


def train_one_epoch(
    objective: Objective,
    batches: Iterable[Batch],
    update: Update,
    micro_batch: int,
    images: Sequence[Mapping[str, int]] | None = None,
) -> EpochMetrics:
    """One pass over the training images.

    Args:
        batches: each is one (accumulated) update.
        micro_batch: images of a forward pass.
        images: of each batch by parameter group, over all processes; by default those of the batch itself.

    Returns:
        losses and confusion matrices of the augmented crops, as seen during training.
    """
    objective.model.train()
    device = objective.machine.torch_device
    asynchronous = isinstance(update, AsynchronousUpdate)
    metrics = EpochMetrics.empty(objective.tasks, device)
    for step, batch in enumerate(batches):
        pixels = None if asynchronous else objective.valid_pixels(batch)
        loss_sum = torch.zeros((), device=device)
        for part in batch.split(micro_batch):
            loss, outputs = objective(part, pixels)
            loss.backward()
            loss_sum += loss.detach()
            metrics.add(outputs)
        metrics.note_finite(loss_sum, step)
        counts = images_in(batch) if images is None else images[step]
        for group in update.groups:
            if counts[group.name]:
                group.sum_gradients()
        update.after_backward(counts)
    return metrics.over_all_processes()


# Validation images have many sizes: each would be compiled, and recorded as a graph, separately.
@torch.compiler.set_stance("force_eager")
@torch.inference_mode()
def evaluate(
    objective: Objective, loader: Iterable[Batch], counter: ImageCounter | None = None
) -> EpochMetrics:
    """Scores every labelled pixel of every image once, at native resolution.

    Args:
        counter: also gets the pixel counts of each image.
    """
    objective.model.eval()
    metrics = EpochMetrics.empty(
        objective.tasks, objective.machine.torch_device, boundaries=objective.boundary_tolerance > 0
    )
    for batch in loader:
        _, outputs = objective(batch, by_image=counter is not None)
        metrics.add(outputs, counter)
    return metrics.over_all_processes()


def images_in(batch: Batch) -> dict[str, int]:
    """Images of a batch by parameter group: of each task, and all of them under `common`."""
    return {COMMON: len(batch)} | {name: len(rows) for name, rows in batch.indices.items()}
