"""A whole training step on torch's `meta` device, which has shapes but no values.

A host read of a tensor raises there, and so does an operation on tensors of two devices: what runs on `meta`
neither waits for a GPU nor mixes devices on one. Copies to the device are counted on top.
"""

import dataclasses
from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from segstrat.config import TrialConfig
from segstrat.data.loading.batch import Batch, normalize
from segstrat.epoch_metrics import ImageCounter
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.optim import COMMON, make_parameter_groups, make_update
from segstrat.tasks import Task
from segstrat.train import evaluate, train_one_epoch

META = torch.device("meta")
TASKS = {"semseg": Task("semseg", 21), "parts": Task("parts", 7)}
SIDE = 64

READS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique2", "bincount"}


class Strict(TorchDispatchMode):
    """Refuses operators that read the device, or that mix it with another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        assert name not in READS, f"{func} makes the host wait for the device"
        tensors = [value for value in _flat((args, kwargs or {})) if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim or tensor.device == META}
        assert len(devices) <= 1, f"{func} mixes {devices}"
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts what is copied from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        from_host = name in ("tensor", "as_tensor") or any(
            isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in _flat(args)
        )
        if from_host and isinstance(result, torch.Tensor) and result.device == META:
            self.found[name] += 1
        return result


def _flat(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [item for part in value for item in _flat(part)]
    return [value]


def batch_on_meta(tasks: tuple[str, ...], *, mixed: bool, count: int = 4) -> Batch:
    """A batch as the loaders give it, its positions on the device included."""
    indices = {task: list(range(number, count, 2)) if mixed else list(range(count)) for number, task in
               enumerate(tasks)}  # fmt: skip
    rows = {task: torch.empty(len(found), dtype=torch.int64, device=META) for task, found in indices.items()}
    images = torch.empty(count, SIDE, SIDE, 3, dtype=torch.uint8, device=META).permute(0, 3, 1, 2)
    return Batch(
        images,
        {task: torch.empty(count, SIDE, SIDE, dtype=torch.uint8, device=META) for task in tasks},
        indices,
        [str(row) for row in range(count)],
        rows if mixed else {},
    )


SINGLE, JOINT = ("semseg",), ("semseg", "parts")
CASES = {
    "single-task": ({"tasks": SINGLE}, False),
    "label smoothing and dropout": ({"tasks": SINGLE, "label_smoothing": 0.1, "dropout": 0.5}, False),
    "multi-task": ({"tasks": JOINT}, False),
    "partly labelled": ({"tasks": JOINT}, True),
    "partly labelled, asynchronous": (
        {"tasks": JOINT, "asynchronous": True, "common_batch": 4, "head_batch": 2}, True,
    ),
    "partly labelled, accumulated": ({"tasks": JOINT, "batch_size": 2, "accumulation_steps": 2}, True),
}  # fmt: skip


def build(model: str, fields: dict) -> tuple[Objective, TrialConfig]:
    backbone = "vgg16" if model.startswith("fcn") and "dropout" in fields else None
    config = TrialConfig(
        model=model, backbone=backbone, width=0.125, crop_size=SIDE, **{"batch_size": 4} | fields
    )
    tasks = {name: TASKS[name] for name in config.tasks}
    network = build_model(config, tasks).to(META).to(memory_format=torch.channels_last)
    return Objective(network, tasks, Machine(device="meta"), config.label_smoothing), config


# A SUNet differs in its network alone, and takes longest.
STEPS = [(model, case) for model in ("fcn32s", "fcn8s") for case in CASES]
STEPS += [("sunet64", case) for case in ("single-task", "partly labelled")]


@pytest.mark.parametrize(("model", "case"), STEPS)
def test_a_training_step_reads_nothing_and_copies_nothing(model: str, case: str):
    fields, mixed = CASES[case]
    objective, config = build(model, fields)
    counts = dict.fromkeys((COMMON, *config.tasks), 100)
    update = make_update(make_parameter_groups(objective.model, config, counts), config, 10)
    batch = batch_on_meta(config.tasks, mixed=mixed)
    normalize(batch.images)
    with Copies() as copies, Strict():
        train_one_epoch(objective, [batch, batch], update, config.batch_size)
    assert all(group.steps for group in update.groups), "the step did not reach the optimizer"
    assert not copies.found


def test_validation_reads_nothing_and_copies_nothing():
    objective, config = build("fcn8s", {"tasks": JOINT})
    batch = batch_on_meta(config.tasks, mixed=True)
    with Copies() as copies, Strict():
        evaluate(objective, [batch, batch])
    assert not copies.found


def test_the_counts_of_single_images_need_their_rows_and_nothing_else(tiny_protocol):
    objective, _ = build("fcn8s", {"tasks": JOINT})
    batch = batch_on_meta(JOINT, mixed=True, count=3)
    dataset = tiny_protocol(val=3).val
    batch = dataclasses.replace(batch, ids=list(dataset.ids))
    counter = ImageCounter(dataset, objective.tasks, META)
    with Copies() as copies, Strict():
        evaluate(objective, [batch, batch], counter)
    assert copies.found == {"to": 4}, "one copy per task and batch"


def test_a_host_read_and_a_mix_of_devices_would_be_found():
    on_meta = torch.empty(3, device=META)
    with pytest.raises(AssertionError, match="makes the host wait"), Strict():
        float(on_meta.sum())
    with pytest.raises((RuntimeError, AssertionError)), Strict():
        on_meta + torch.ones(3)
    with Copies() as copies:
        torch.tensor([1, 2], device=META)
        torch.ones(2).to(META)
    assert copies.found == {"tensor": 1, "to": 1}
