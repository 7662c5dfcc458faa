"""What only a GPU can show of a trial: that it never waits, repeats itself, and leaves no memory behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segstrat.config import TrialConfig
from segstrat.data.loading.device_loader import DeviceTrainLoader
from segstrat.errors import UserError
from segstrat.image_counts import read_counts
from segstrat.machine import Machine
from segstrat.store import Store
from segstrat.train import train, train_one_epoch
from segstrat.training_state import build_training

pytestmark = pytest.mark.gpu


def config(**fields) -> TrialConfig:
    defaults = {"data": "figures", "width": 0.125, "crop_size": 64, "batch_size": 3, "epochs": 2}
    return TrialConfig(**(defaults | fields))


def machine(**fields) -> Machine:
    return Machine(device="cuda", compile=False, **fields)


def wait_in(work: Callable[[], object]) -> str:
    """What CUDA says of the first operation of `work` that waits for the GPU; '' if none does."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


@pytest.mark.parametrize(
    ("fields", "mixed"),
    [
        ({"model": "fcn8s", "label_smoothing": 0.1}, False),
        ({"model": "sunet64", "tasks": ("semseg", "parts")}, False),
        ({"model": "fcn32s", "tasks": ("semseg", "parts"), "asynchronous": True}, True),
    ],
)
def test_a_training_step_never_waits_for_the_gpu(tiny_protocol, fields: dict, mixed: bool):
    """Also with the copies of real loaders, which `meta` cannot show."""
    trial = build_training(config(**fields), machine(device_cache=True), tiny_protocol(train=6, mixed=mixed))
    # The first pass loads kernels and allocates, which waits.
    train_one_epoch(trial.objective, list(trial.train_loader.epoch(0)), trial.update, 3)
    batches = list(trial.train_loader.epoch(1))
    assert wait_in(lambda: train_one_epoch(trial.objective, batches, trial.update, 3)) == ""
    assert wait_in(lambda: torch.ones(1, device="cuda").item()) != "", "waiting is seen"


@pytest.mark.parametrize("model", ["fcn32s", "fcn8s", "sunet64"])
def test_deterministic_training_repeats_itself_also_after_a_resume(tiny_protocol, tmp_path: Path, model: str):
    """Every operation has a deterministic algorithm, and a resumed trial ends bit-identical."""
    settings, protocol = config(model=model, tasks=("semseg", "parts")), tiny_protocol(train=6)

    def weights(name: str, *, cut: bool) -> dict[str, torch.Tensor]:
        store = Store(tmp_path / name)
        if cut:
            next(train(settings, machine=machine(deterministic=True), protocol=protocol, store=store))
        list(train(settings, machine=machine(deterministic=True), protocol=protocol, store=store))
        return torch.load(tmp_path / name / "checkpoint-000002.pt", weights_only=True)["model"]

    first, again, resumed = weights("a", cut=False), weights("b", cut=False), weights("c", cut=True)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        assert torch.equal(value, resumed[name]), name


def test_a_label_that_is_not_a_class_does_not_end_the_process(tiny_protocol):
    """CUDA's cross-entropy would assert on the device, after which nothing runs in the process."""
    protocol = tiny_protocol()
    protocol.train.samples[2].labels["semseg"][20:24, 20:24] = 7
    with pytest.raises(UserError, match="have a label outside"):
        next(train(config(model="fcn8s", augmentation=0.0), machine=machine(), protocol=protocol))
    assert float(torch.ones(2, device="cuda").sum()) == 2


def test_counts_of_single_images_are_those_of_the_scores(tiny_protocol, tmp_path: Path):
    """The GPU counts with atomic additions over several copies of the histogram."""
    store = Store(tmp_path)
    *_, last = train(config(model="fcn8s"), machine=machine(), protocol=tiny_protocol(test=3), store=store)
    for (task, split), images in read_counts(store).items():
        assert images.miou() == last.value(task, split, "miou")


def test_images_that_fit_stay_on_the_gpu_unless_the_trial_is_deterministic(tiny_protocol):
    loaders = []
    for deterministic in (False, True):
        trial = build_training(config(), machine(deterministic=deterministic), tiny_protocol())
        loaders.append(type(trial.train_loader) is DeviceTrainLoader)
    assert loaders == [True, False]


def test_a_trial_leaves_no_memory_to_the_next_one(tiny_protocol):
    """Caches of earlier trials would look like used memory to other processes on the GPU."""
    reserved = []
    for seed in range(3):
        list(train(config(seed=seed, width=1.0), machine=machine(), protocol=tiny_protocol()))
        machine().apply()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2] <= reserved[0]
