"""`TrainingState`: the state of one training run between epochs; built from a config, saved and restored."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segstrat import distributed
from segstrat.checkpoint import CheckpointWriter, load_checkpoint, state_digest
from segstrat.config import TrialConfig
from segstrat.data import DataProtocol
from segstrat.data.dataset import Dataset, Subset, nested_indices
from segstrat.data.loading.batch import Standardization
from segstrat.data.loading.device_loader import DeviceTrainLoader
from segstrat.data.loading.eval_loader import EvalLoader
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.errors import UserError, listed
from segstrat.image_counts import ImageCounts
from segstrat.losses import class_weights
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.models.segmenter import Segmenter
from segstrat.models.weights import load_pretrained
from segstrat.objective import Objective
from segstrat.optim import COMMON, Update, make_parameter_groups, make_update
from segstrat.parallel import parallel_map
from segstrat.records import EpochReport, TrialFacts
from segstrat.store import Store
from segstrat.tasks import Task

EVAL_BATCH = 16
# Most of the free memory that the training images may take by default on a GPU of one trial; the rest is for
# the model, its activations and the allocator.
LOADER_SHARE = 0.5
# The same on a GPU that trials share: `--gpus-per-trial auto` leaves a tenth of each share.
SHARED_LOADER_SHARE = 0.1


@dataclass
class TrainingState:
    """The state of one training run, and the facts of what was built."""

    config: TrialConfig
    objective: Objective
    update: Update
    train_loader: TrainLoader
    train_clean_loader: EvalLoader
    val_loader: EvalLoader
    test_loader: EvalLoader | None
    facts: TrialFacts
    image_counts: dict[tuple[str, str], ImageCounts] = field(default_factory=dict)
    """By task and split; filled at the last epoch."""

    @property
    def model(self) -> Segmenter:
        """The model that is trained."""
        return self.objective.model

    def note_constant_miou(self, split: str, values: Mapping[str, float]) -> None:
        """Puts the mIoU of the best constant predictions on a split, by task, into the facts."""
        known = {task: dict(splits) for task, splits in self.facts.constant_miou.items()}
        for task, value in values.items():
            known.setdefault(task, {})[split] = value
        self.facts = dataclasses.replace(self.facts, constant_miou=known)

    def note_image_counts(self, task: str, split: str, counts: ImageCounts) -> None:
        """Keeps the pixel counts of every image, and puts the mIoU of both halves into the facts."""
        self.image_counts[task, split] = counts
        if split == "val":
            halves = {**self.facts.half_miou, task: counts.half_mious()}
            self.facts = dataclasses.replace(self.facts, half_miou=halves)

    def save(self, writer: CheckpointWriter, store: Store, reports: Sequence[EpochReport]) -> None:
        """Starts writing a checkpoint; the one of the best epoch so far is kept."""
        task = self.config.tasks[0]
        scored = [(report.value(task, "val", "miou"), report.epoch) for report in reports]
        best = max((pair for pair in scored if pair[0] is not None), default=None)
        state = {
            "config": self.config.to_dict(),
            "tasks": {name: list(task.classes) for name, task in self.objective.tasks.items()},
            "labels": {
                name: {"swap": task.swap, "values": task.values}
                for name, task in self.objective.tasks.items()
            },
            "standardization": self.model.backbone.standardization.to_dict(),
            "model": self.model.state_dict(),
            "update": self.update.state_dict(),
            "facts": dataclasses.asdict(self.facts),
            "reports": [report.to_dict() for report in reports],
        }
        writer.save(store, reports[-1].epoch, state, best_epoch=best[1] if best else None)

    def resume(self, store: Store) -> list[EpochReport]:
        """Restores the newest good checkpoint; returns its reports, none where there is no checkpoint.

        Raises:
            UserError: if it was trained for other classes than the data has.
        """
        state = load_checkpoint(store)
        if state is None:
            return []
        for name, task in self.objective.tasks.items():
            if state["tasks"].get(name) != list(task.classes):
                saved = state["tasks"].get(name, [])
                raise UserError(
                    f"the checkpoint in {store.uri} was trained for {len(saved)} classes of task {name!r} "
                    f"({', '.join(saved[:3])}, …); the data has {len(task.classes)} "
                    f"({', '.join(task.classes[:3])}, …); give the data it was trained on, or another --name"
                )
        restore_model(self.model, state)
        self.update.load_state_dict(state["update"])
        noted = {name: state["facts"][name] for name in ("constant_miou", "half_miou")}
        standardization = self.model.backbone.standardization.to_dict()
        self.facts = dataclasses.replace(self.facts, standardization=standardization, **noted)
        return [EpochReport.from_dict(report) for report in state["reports"]]


def restore_model(model: Segmenter, state: Mapping[str, Any]) -> None:
    """Puts a checkpoint's weights into a model, and the mean and deviation of the images they are for."""
    model.load_state_dict(state["model"])
    if "standardization" in state:  # absent from checkpoints of earlier versions
        model.backbone.standardization = Standardization.from_dict(state["standardization"])


def build_training(
    config: TrialConfig, machine: Machine, protocol: DataProtocol, model: Segmenter | None = None
) -> TrainingState:
    """Builds everything that a training run needs.

    Args:
        model: trained instead of the one that `config` describes.

    Raises:
        UserError: for weights, data or processes that do not fit the config.
    """
    tasks = {name: protocol.tasks[name] for name in config.tasks}
    device = machine.current_device()
    train_set = training_set(protocol.train, config)
    images = images_per_group(train_set, tasks)
    # Equal counts: every image is labelled for every task.
    fully_labelled = len(set(images.values())) == 1
    model = model or build_model(config, tasks)
    _check_processes(config, model, fully_labelled=fully_labelled)
    init_digest = state_digest(model)
    weights_digest = load_pretrained(model, config) if config.pretrained else ""
    model.to(device).to(memory_format=torch.channels_last)
    model = distributed.synchronize_batch_norm(model, device)
    train_loader = _train_loader(config, machine, tasks, train_set, flip=protocol.flip)
    groups = make_parameter_groups(model, config, images, fused=True)
    if distributed.world_size() > 1:
        # Heads are not always used by every process, the backbone is.
        groups[0].overlapped = distributed.OverlappedSum(groups[0].parameters)
    weights = class_weights_of(config, tasks, train_set, machine.threads)
    objective = Objective(
        model,
        tasks,
        machine,
        config.label_smoothing,
        losses=config.losses,
        class_weights=weights,
        boundary_tolerance=config.boundary_tolerance,
    )
    if machine.compiles(config.epochs * len(train_loader), distributed.world_size()):
        compile_objective(objective, config, fully_labelled=fully_labelled)
    facts = TrialFacts(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        realised_weight_decay=groups[0].optimizer.param_groups[0]["weight_decay"],
        dropout_modules=sum(isinstance(m, nn.Dropout | nn.Dropout2d) and m.p > 0 for m in model.modules()),
        init_digest=init_digest,
        weights_digest=weights_digest,
        data_digest=protocol.digest,
        standardization=model.backbone.standardization.to_dict(),
        train_images=len(train_set),
        val_images=len(protocol.val),
        test_images=len(protocol.test) if protocol.test else 0,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision=machine.precision,
        class_weights=weights,
    )
    update = make_update(groups, config, len(train_loader))
    return TrainingState(
        config=config,
        objective=objective,
        update=update,
        train_loader=train_loader,
        train_clean_loader=_eval_loader(config, machine, tasks, some_images(train_set, len(protocol.val))),
        val_loader=_eval_loader(config, machine, tasks, protocol.val),
        test_loader=_eval_loader(config, machine, tasks, protocol.test) if protocol.test else None,
        facts=facts,
    )


def _check_processes(config: TrialConfig, model: Segmenter, *, fully_labelled: bool) -> None:
    """Refuses what several processes cannot train."""
    if distributed.world_size() == 1:
        return
    if reason := config.needs_one_process():
        raise UserError(f"several processes cannot train this trial: {reason}")
    if not fully_labelled and {"dice", "ohem"} & set(config.losses):
        raise UserError(
            f"several processes cannot train with loss {config.loss!r} on images of which some lack a task, "
            "because it is computed over the images of all of them; give the trial a single GPU"
        )
    if not fully_labelled and any(isinstance(module, _BatchNorm) for module in model.heads.modules()):
        # A process whose images lack a task skips its head, while the batch norm of the others waits for it.
        raise UserError(
            f"several processes cannot train {config.model} on images of which some lack a task, because its "
            "heads have batch normalization; give the trial a single GPU, or choose an FCN"
        )


def _train_loader(
    config: TrialConfig, machine: Machine, tasks: Mapping[str, Task], dataset: Dataset, *, flip: bool
) -> TrainLoader:
    arguments: dict[str, Any] = {
        "flip": flip,
        "tasks": tasks,
        "crop_size": config.crop_size,
        "batch_size": config.batch_size * config.accumulation_steps,
        "augmentation": config.augmentation,
        "seed": config.seed,
        "threads": machine.threads,
        "device": machine.current_device(),
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
    }
    if machine.device_cache != "auto":
        return (DeviceTrainLoader if machine.device_cache else TrainLoader)(dataset, **arguments)
    if machine.torch_device.type == "cuda" and not machine.deterministic:
        share = LOADER_SHARE if machine.memory_fraction == 1 else SHARED_LOADER_SHARE
        try:
            return DeviceTrainLoader(dataset, **arguments, free_share=share)
        except (UserError, torch.OutOfMemoryError):
            # It does not fit; any other problem is one of the other loader as well.
            torch.cuda.empty_cache()
    return TrainLoader(dataset, **arguments)


def _eval_loader(
    config: TrialConfig, machine: Machine, tasks: Mapping[str, Task], dataset: Dataset
) -> EvalLoader:
    images = max(config.batch_size, EVAL_BATCH)
    return EvalLoader(
        dataset,
        tasks=tasks,
        # The score does not depend on it, and without gradients there is memory for more.
        batch_size=images,
        # Whole images may be many times as large as a crop.
        max_pixels=images * config.crop_size**2 if machine.torch_device.type == "cuda" else None,
        threads=machine.threads,
        device=machine.current_device(),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def compile_objective(objective: Objective, config: TrialConfig, *, fully_labelled: bool) -> None:
    """Compiles training steps, as CUDA graphs where that is right.

    Args:
        fully_labelled: whether every training image is labelled for every task.
    """
    # Imported here: only what is compiled needs it. By default it starts a process per core, for each trial.
    from torch._inductor import config as inductor

    inductor.compile_threads = objective.machine.threads
    # Gradients live in the memory of the graphs until the next step, so they must not accumulate there
    # (pytorch#169545); nor are collectives of several processes recorded.
    accumulates = config.asynchronous or config.accumulation_steps > 1
    on_cuda = objective.machine.torch_device.type == "cuda"
    cuda_graphs = on_cuda and not accumulates and distributed.world_size() == 1
    objective.compile(same_shapes=fully_labelled, cuda_graphs=cuda_graphs)


def training_set(dataset: Dataset, config: TrialConfig) -> Dataset:
    """The training images that are labelled for one of the config's tasks; of these, its label fraction."""
    wanted = set(config.tasks)
    indices = [index for index in range(len(dataset)) if wanted.intersection(dataset.tasks_of(index))]
    if len(indices) < len(dataset):
        dataset = Subset(dataset, indices)
    if config.label_fraction < 1.0:
        dataset = Subset(dataset, nested_indices(dataset.ids, config.label_fraction, config.seed))
    return dataset


def some_images(dataset: Dataset, count: int) -> Dataset:
    """At most `count` images of a dataset, the same at each call, chosen by their ids."""
    if count >= len(dataset):
        return dataset
    return Subset(dataset, nested_indices(dataset.ids, count / len(dataset), seed=0))


def class_weights_of(
    config: TrialConfig, tasks: Mapping[str, Task], dataset: Dataset, threads: int = 1
) -> dict[str, list[float]]:
    """The weights of the classes of each task; empty where they are equal.

    Args:
        dataset: the training images; their labels are read, as they are before augmentation.
    """
    rule = config.class_weights
    if rule == "none" or not isinstance(rule, str):
        return listed_weights(config, tasks)
    pixels = {name: np.zeros(task.num_classes, np.int64) for name, task in tasks.items()}
    images = {name: counts.copy() for name, counts in pixels.items()}
    for labels in parallel_map(dataset.labels, range(len(dataset)), threads):
        for name in labels.keys() & pixels.keys():
            counts = np.bincount(labels[name].ravel(), minlength=256)[: len(pixels[name])]
            pixels[name] += counts
            images[name] += counts > 0
    return {name: class_weights(rule, pixels[name], images[name]) for name in tasks}


def listed_weights(config: TrialConfig, tasks: Mapping[str, Task]) -> dict[str, list[float]]:
    """The weights that a config lists: those of its first task, and 1 for all classes of the others.

    Raises:
        UserError: if they are not one for each class.
    """
    if isinstance(config.class_weights, str):
        return {}
    first = tasks[config.tasks[0]]
    if len(config.class_weights) != first.num_classes:
        raise UserError(
            f"TrialConfig.class_weights has {len(config.class_weights)} weights for the {first.num_classes} "
            f"classes of task {first.name!r}; give one for each, in their order: {listed(first.classes)}"
        )
    equal = {name: [1.0] * task.num_classes for name, task in tasks.items()}
    return equal | {first.name: list(config.class_weights)}


def images_per_group(dataset: Dataset, tasks: Iterable[str]) -> dict[str, int]:
    """Training images by parameter group: of each task, and all of them under `common`."""
    labelled = [dataset.tasks_of(index) for index in range(len(dataset))]
    return {COMMON: len(labelled)} | {name: sum(name in names for names in labelled) for name in tasks}


def images_per_batch(loader: TrainLoader, epoch: int) -> list[dict[str, int]]:
    """Images of each batch of an epoch by parameter group, over all processes; known from the order alone."""
    labelled = [loader.dataset.tasks_of(index) for index in range(len(loader.dataset))]
    return [
        {COMMON: len(indices)} | {task: sum(task in labelled[i] for i in indices) for task in loader.tasks}
        for indices in loader.order(epoch)
    ]
