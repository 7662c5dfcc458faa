"""The training loop: plain functions, and `train()`, a generator of one report per epoch.

Tensor names carry their shape: B images, C channels or classes, H × W pixels.
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from segstrat import distributed
from segstrat.checkpoint import load_checkpoint, save_checkpoint
from segstrat.config import TrialConfig
from segstrat.data import DataProtocol, build_protocol
from segstrat.data.dataset import Dataset, Subset, nested_indices
from segstrat.data.loading.batch import Batch, normalize
from segstrat.data.loading.device_loader import DeviceTrainLoader
from segstrat.data.loading.eval_loader import EvalLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.epoch_metrics import Tally
from segstrat.errors import UserError
from segstrat.losses import pixel_losses
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.models.weights import load_pretrained
from segstrat.optim import COMMON, AsynchronousUpdate, SummedUpdate, make_parts
from segstrat.records import EpochReport, TrialFacts, write_records
from segstrat.store import Store
from segstrat.tasks import Task

EVAL_BATCH = 16

Update = SummedUpdate | AsynchronousUpdate
Rows = torch.Tensor | slice


def train(
    config: TrialConfig,
    *,
    machine: Machine | None = None,
    protocol: DataProtocol | None = None,
    store: Store | None = None,
    checkpoint_every: int = 1,
) -> Iterator[EpochReport]:
    """Trains one configuration and yields a report after every epoch.

    With a `store`, the state is saved there before each report, and a later call with the same config goes
    on after the newest good checkpoint: on the CPU it ends bit-identical to a run that was never cut off,
    because every random draw is a function of (seed, epoch, index).

    Args:
        protocol: the data, if it is built already; else it is built from `config.data`.
        store: folder of this trial. Where several processes train one trial (`segstrat.distributed`), all
            read it and the first one writes.
        checkpoint_every: epochs between checkpoints; the last epoch is always saved.

    Raises:
        UserError: for data, weights or a model that do not fit the config, before the first epoch.
    """
    machine = machine or Machine()
    torch.set_num_threads(machine.threads)
    if machine.deterministic:
        torch.use_deterministic_algorithms(True)
    protocol = protocol or build_protocol(
        config.data,
        machine.data_root,
        tasks=config.tasks,
        cache_dir=machine.cache_dir,
    )
    trial = _Trial.build(config, machine, protocol)
    reports = trial.resume(store)
    if reports and store is not None and distributed.rank() == 0:
        # The process before this one may have died between the checkpoint and the records.
        write_records(store, trial.facts, reports)
    for epoch in range(len(reports), config.epochs):
        if reports and reports[-1].status == "diverged":
            return
        report = _run_epoch(trial, epoch)
        reports.append(report)
        if store is not None and distributed.rank() == 0:
            last = report.status != "running"
            if last or (epoch + 1) % checkpoint_every == 0:
                trial.save(store, reports)
            write_records(store, trial.facts, reports)
        yield report


@dataclass
class _Trial:
    """What one training run holds between epochs."""

    config: TrialConfig
    machine: Machine
    tasks: dict[str, Task]
    model: nn.Module
    update: Update
    train_loader: TrainLoader
    val_loader: EvalLoader
    facts: TrialFacts

    @classmethod
    def build(cls, config: TrialConfig, machine: Machine, protocol: DataProtocol) -> "_Trial":
        if config.asynchronous and distributed.world_size() > 1:
            raise UserError("asynchronous updates run in one process; give the trial a single GPU")
        if config.accumulation_steps > 1 and distributed.world_size() > 1:
            # Processes might cut their shares into different numbers of pieces, and wait for each other.
            raise UserError("several processes do not accumulate; set batch_size to the whole batch instead")
        tasks = {name: protocol.tasks[name] for name in config.tasks}
        device = machine.torch_device
        if device.type == "cuda" and device.index is None:
            # Threads have a current device of their own.
            device = torch.device("cuda", torch.cuda.current_device())
        model = build_model(config, tasks)
        init_digest = state_digest(model)
        weights_digest = load_pretrained(model, config) if config.pretrained else ""
        model.to(device).to(memory_format=torch.channels_last)
        model = distributed.synchronize_batch_norm(model, device)
        train_set = training_set(protocol.train, config)
        share = {"rank": distributed.rank(), "world_size": distributed.world_size()}
        loader = DeviceTrainLoader if machine.device_cache else TrainLoader
        train_loader = loader(
            train_set,
            tasks=tasks,
            crop_size=config.crop_size,
            batch_size=config.batch_size * config.accumulation_steps,
            augmentation=config.augmentation,
            seed=config.seed,
            threads=machine.threads,
            device=device,
            **share,
        )
        val_loader = EvalLoader(
            protocol.val,
            tasks=tasks,
            # The score does not depend on it, and without gradients there is memory for more.
            batch_size=max(config.batch_size, EVAL_BATCH),
            threads=machine.threads,
            device=device,
            **share,
        )
        images = images_per_part(train_set, tasks)
        parts = make_parts(model, config, images, fused=True)
        update: Update = (
            AsynchronousUpdate(parts)
            if config.asynchronous
            else SummedUpdate(parts, total_steps=len(train_loader) * config.epochs)
        )
        if machine.compile:
            # Equal counts: every image is labelled for every task.
            compile_steps(model, device, same_shapes=len(set(images.values())) == 1)
        facts = TrialFacts(
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            realised_weight_decay=parts[0].optimizer.param_groups[0]["weight_decay"],
            dropout_modules=sum(isinstance(m, nn.Dropout | nn.Dropout2d) for m in model.modules()),
            init_digest=init_digest,
            weights_digest=weights_digest,
            data_digest=protocol.digest,
            train_images=len(train_set),
            val_images=len(protocol.val),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            precision=machine.precision,
        )
        return cls(config, machine, tasks, model, update, train_loader, val_loader, facts)

    def resume(self, store: Store | None) -> list[EpochReport]:
        state = load_checkpoint(store) if store is not None else None
        if store is None or state is None:
            return []
        for name, task in self.tasks.items():
            if state["tasks"].get(name) != list(task.classes):
                before = state["tasks"].get(name, [])
                raise UserError(
                    f"the checkpoint in {store.uri} was trained for {len(before)} classes of task {name!r} "
                    f"({', '.join(before[:3])}, …); the data has {len(task.classes)} "
                    f"({', '.join(task.classes[:3])}, …); give the data it was trained on, or another --name"
                )
        self.model.load_state_dict(state["model"])
        self.update.load_state_dict(state["update"])
        return [EpochReport.from_dict(report) for report in state["reports"]]

    def save(self, store: Store, reports: list[EpochReport]) -> None:
        task = self.config.tasks[0]
        scored = [(report.value(task, "val", "miou"), report.epoch) for report in reports]
        best = max((pair for pair in scored if pair[0] is not None), default=None)
        state = {
            "config": self.config.to_dict(),
            "tasks": {name: list(each.classes) for name, each in self.tasks.items()},
            "model": self.model.state_dict(),
            "update": self.update.state_dict(),
            "facts": dataclasses.asdict(self.facts),
            "reports": [report.to_dict() for report in reports],
        }
        save_checkpoint(store, reports[-1].epoch, state, best_epoch=best[1] if best else None)


def _run_epoch(trial: _Trial, epoch: int) -> EpochReport:
    config = trial.config
    start = time.perf_counter()
    # Dropout is the only draw from torch's generator: seeded per epoch, it needs no place in a checkpoint.
    draws = f"{config.seed}/{epoch}/{distributed.rank()}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(draws.encode()).digest()[:8]) >> 1)
    tally = train_one_epoch(
        trial.model, trial.train_loader, trial.update, trial.tasks, config, trial.machine, epoch
    )
    scores = tally.scores("train")
    images = len(trial.train_loader.dataset)
    training_seconds = time.perf_counter() - start
    last = epoch + 1 == config.epochs
    status, message = ("completed", "") if last else ("running", "")
    if (step := tally.first_bad_step()) is not None:
        status, message = "diverged", f"the loss was not finite at step {step} of epoch {epoch + 1}"
    elif last or (epoch + 1) % config.validate_every == 0:
        scores += evaluate(trial.model, trial.val_loader, trial.tasks, trial.machine).scores("val")
    head = trial.update.parts[-1]
    return EpochReport(
        epoch=epoch + 1,
        epochs=config.epochs,
        status=status,  # type: ignore[arg-type]
        scores=scores,
        learning_rate=head.optimizer.param_groups[0]["lr"],
        seconds=time.perf_counter() - start,
        images_per_second=images / training_seconds,
        data_wait=trial.train_loader.wait_seconds / training_seconds,
        message=message,
    )


def train_one_epoch(
    model: nn.Module,
    loader: TrainLoader,
    update: Update,
    tasks: Mapping[str, Task],
    config: TrialConfig,
    machine: Machine,
    epoch: int,
) -> Tally:
    """One pass over the training images.

    Returns:
        losses and confusion matrices of the augmented crops, as seen during training.
    """
    model.train()
    tally = Tally.empty(tasks, machine.torch_device)
    for step, batch in enumerate(loader.epoch(epoch)):
        scale = _loss_scale(batch.labels, tasks, asynchronous=config.asynchronous)
        loss_sum = torch.zeros((), device=machine.torch_device)
        # Accumulation: the batch is the whole effective batch, taken in pieces; dividing every piece by the
        # whole batch's valid pixels makes the gradient that of the large batch.
        size = config.batch_size // distributed.world_size()
        for piece in pieces(len(batch.ids), size):
            loss = _forward(model, batch, piece, scale, tasks, config, machine, tally)
            loss.backward()
            loss_sum += loss.detach()
        tally.note_finite(loss_sum, step)
        images = distributed.summed_counts(images_in(batch), machine.torch_device)
        for part in update.parts:
            if images[part.name]:
                distributed.sum_gradients(part.parameters)
        update.after_backward(images)
    return tally.over_all_processes()


def _forward(
    model: nn.Module,
    batch: Batch,
    piece: slice,
    scale: Mapping[str, torch.Tensor],
    tasks: Mapping[str, Task],
    config: TrialConfig,
    machine: Machine,
    tally: Tally,
) -> torch.Tensor:
    """Loss of one piece of a batch; each head sees only the images that are labelled for its task."""
    images_BCHW = batch.images[piece]
    rows = {}
    for name in tasks:
        inside = [row - piece.start for row in batch.indices[name] if piece.start <= row < piece.stop]
        if inside:
            rows[name] = _rows(inside, images_BCHW)
    with _autocast(machine):
        logits = _heads(model, normalize(images_BCHW), rows)
    total = torch.zeros((), device=images_BCHW.device)
    for name, index in rows.items():
        target_BHW = batch.labels[name][piece][index]
        ignore = tasks[name].ignore_index
        losses_BHW = pixel_losses(logits[name], target_BHW, ignore, label_smoothing=config.label_smoothing)
        total = total + (losses_BHW.flatten(1).sum(1) * scale[name][piece][index]).sum()
        with torch.no_grad():
            plain_BHW = (
                pixel_losses(logits[name], target_BHW, ignore) if config.label_smoothing else losses_BHW
            )
            tally.add(name, logits[name], target_BHW, plain_BHW)
    return total


def _rows(positions: Sequence[int], images_BCHW: torch.Tensor) -> Rows:
    """What picks these images of a batch.

    All of them are picked by a slice: a list of positions would have to be copied to the device, which makes
    the host wait for it at every step.
    """
    if len(positions) == len(images_BCHW):
        return slice(None)
    return torch.tensor(positions, device=images_BCHW.device)


def _heads(model: nn.Module, images_BCHW: torch.Tensor, rows: Mapping[str, Rows]) -> dict[str, torch.Tensor]:
    """Logits of each task for its rows of the batch."""
    some = {name: index for name, index in rows.items() if isinstance(index, torch.Tensor)}
    if not some:
        return model(images_BCHW, tasks=list(rows))
    everything = torch.arange(len(images_BCHW), device=images_BCHW.device)
    return model(images_BCHW, tasks=list(rows), indices=dict.fromkeys(rows, everything) | some)


def _loss_scale(
    labels: Mapping[str, torch.Tensor], tasks: Mapping[str, Task], *, asynchronous: bool
) -> dict[str, torch.Tensor]:
    """Weight (B,) of each image's summed pixel losses.

    Summed updates: one over the valid pixels of the whole batch. Asynchronous: one over the image's own
    valid pixels, because its updates average over images.
    """
    scale = {}
    for name, target_BHW in labels.items():
        valid_B = (target_BHW != tasks[name].ignore_index).flatten(1).sum(1)
        count = valid_B if asynchronous else distributed.summed(valid_B.sum()).expand_as(valid_B)
        scale[name] = 1.0 / count.clamp(min=1).float()
    return scale


def compile_steps(model: nn.Module, device: torch.device, *, same_shapes: bool) -> None:
    """Compiles the model for training steps; on CUDA they are replayed as graphs, launched all at once.

    Args:
        same_shapes: whether every batch but an epoch's last has the same shapes. Else, as where each image is
            labelled for some of the tasks, sizes are left open, and such steps are not replayed.
    """
    options = {"triton.cudagraphs": True, "triton.cudagraph_skip_dynamic_graphs": True}
    model.compile(dynamic=False if same_shapes else None, options=options if device.type == "cuda" else None)


# Validation images have sizes of their own: each would be compiled, and recorded as a graph, anew.
@torch.compiler.set_stance("force_eager")
@torch.inference_mode()
def evaluate(model: nn.Module, loader: EvalLoader, tasks: Mapping[str, Task], machine: Machine) -> Tally:
    """Scores every labelled pixel of every image once, at native resolution."""
    model.eval()
    tally = Tally.empty(tasks, machine.torch_device)
    for batch in loader:
        rows = {name: _rows(batch.indices[name], batch.images) for name in tasks if batch.indices[name]}
        with _autocast(machine):
            logits = _heads(model, normalize(batch.images), rows)
        for name, index in rows.items():
            target_BHW = batch.labels[name][index]
            losses_BHW = pixel_losses(logits[name], target_BHW, tasks[name].ignore_index)
            tally.add(name, logits[name], target_BHW, losses_BHW)
    return tally.over_all_processes()


def pieces(count: int, size: int) -> list[slice]:
    """Cuts `count` images into pieces of about `size`, as even as can be.

    No piece is a single image where `size` is larger than 1, because batch norm cannot train on one image
    whose map is a single pixel; then a piece may hold `size` + 1.
    """
    number = -(-count // size)
    if size > 1 and 1 < count < 2 * number:
        number = count // 2
    starts = [count * index // number for index in range(number + 1)]
    return [slice(*bounds) for bounds in pairwise(starts)]


def images_in(batch: Batch) -> dict[str, int]:
    """Images of a batch by part: of each task, and all of them under `common`."""
    return {COMMON: len(batch.ids)} | {name: len(rows) for name, rows in batch.indices.items()}


def training_set(dataset: Dataset, config: TrialConfig) -> Dataset:
    """The training images that are labelled for one of the config's tasks; of these, its label fraction."""
    wanted = set(config.tasks)
    indices = [index for index in range(len(dataset)) if wanted.intersection(dataset.tasks_of(index))]
    if len(indices) < len(dataset):
        dataset = Subset(dataset, indices)
    if config.label_fraction < 1.0:
        dataset = Subset(dataset, nested_indices(dataset.ids, config.label_fraction, config.seed))
    return dataset


def images_per_part(dataset: Dataset, tasks: Iterable[str]) -> dict[str, int]:
    """Training images by part: of each task, and all of them under `common`."""
    labelled = [dataset.tasks_of(index) for index in range(len(dataset))]
    return {COMMON: len(labelled)} | {name: sum(name in names for names in labelled) for name in tasks}


def state_digest(model: nn.Module) -> str:
    """Digest of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _autocast(machine: Machine) -> torch.autocast:
    return torch.autocast(
        machine.torch_device.type, dtype=torch.bfloat16, enabled=machine.precision == "bfloat16"
    )
