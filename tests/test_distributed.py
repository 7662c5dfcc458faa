"""Two processes over gloo against one with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from segstrat import distributed
from segstrat.config import TrialConfig
from segstrat.data.loading.train_loader import TrainLoader
from segstrat.errors import UserError
from segstrat.image_counts import read_counts
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.records import read_records
from segstrat.store import Store
from segstrat.tasks import Task
from segstrat.train import images_in, train
from segstrat.training_state import images_per_batch

WORKER = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from segstrat.config import TrialConfig
from segstrat.data import build_protocol
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.store import Store
from segstrat.train import train

root, rank = Path(sys.argv[1]), int(sys.argv[2])
sys.path.insert(0, sys.argv[3])
from summed_batch_norm import synchronized

backend = sys.argv[4]
dist.init_process_group(backend, rank=rank, world_size=2)
for trial in ("one task", "two tasks", "other losses"):
    config = TrialConfig.from_dict(json.loads((root / trial / "config.json").read_text()))
    protocol = build_protocol("folder", root, tasks=config.tasks)
    model = build_model(config, protocol.tasks)
    if backend == "gloo":
        model = synchronized(model)
    machine = Machine(device="cpu" if backend == "gloo" else f"cuda:{rank}", precision="float32")
    reports = list(train(config, machine=machine, protocol=protocol, model=model, store=Store(root / trial)))
    scores = [report.to_dict()["scores"] for report in reports]
    (root / trial / f"scores-{rank}.json").write_text(json.dumps(scores))
dist.destroy_process_group()
"""

TOML = """
name = "tiny"
images = "images"
[splits]
train = "train.txt"
val = "val.txt"
[tasks.semseg]
labels = "semseg"
classes = ["a", "b", "c"]
ignore = [255]
[tasks.parts]
labels = "parts"
classes = ["a", "b", "c"]
ignore = [255]
"""


def write_folder(root: Path, protocol) -> None:
    """The protocol's samples as files of the `folder` protocol."""
    (root / "dataset.toml").write_text(TOML)
    for split in ("train", "val"):
        dataset = getattr(protocol, split)
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in dataset.ids))
        for index, name in enumerate(dataset.ids):
            sample = dataset.read(index)
            for folder, pixels in {"images": sample.image, **sample.labels}.items():
                (root / folder).mkdir(exist_ok=True)
                Image.fromarray(pixels).save(root / folder / f"{name}.png")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


TASKS = {
    "one task": ("semseg",),
    "two tasks": ("semseg", "parts"),
    "other losses": ("semseg", "parts"),
}
# Sums over the pixels of both processes, which are no sums of what each would find alone.
OTHER = {
    "loss": "dice+ohem",
    "class_weights": "inverse_frequency",
    "clip_gradient": 0.5,
    "warmup_epochs": 1.0,
}


def settings(trial: str) -> TrialConfig:
    return TrialConfig(
        data="folder",
        tasks=TASKS[trial],
        model="fcn8s",
        width=0.125,
        crop_size=32,
        batch_size=4,
        epochs=2,
        **(OTHER if trial == "other losses" else {}),
    )


def train_in_two_processes(root: Path, protocol, backend: str) -> Path:
    """Both trials, trained by the same two processes: starting them takes longer than training."""
    write_folder(root, protocol)
    for trial in TASKS:
        (root / trial).mkdir()
        (root / trial / "config.json").write_text(json.dumps(settings(trial).to_dict()))
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    tests = str(Path(__file__).parent)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), str(rank), tests, backend], env=environment
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return root


@pytest.fixture(scope="module")
def trained(tiny_protocol, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both trials on CPUs."""
    root = tmp_path_factory.mktemp("distributed")
    return train_in_two_processes(root, tiny_protocol(train=8, val=3), "gloo")


@pytest.mark.gpu
@pytest.mark.parametrize("trial", TASKS)
def test_two_gpus_train_as_one(tiny_protocol, tmp_path: Path, trial: str):
    """NCCL, torch's own synchronized batch norm, and sums that overlap the backward pass."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    root = train_in_two_processes(tmp_path, tiny_protocol(train=8, val=3), "nccl")
    machine = Machine(device="cuda", data_root=root, precision="float32", device_cache=False)
    alone = list(train(settings(trial), machine=machine))
    _, together = read_records(Store(root / trial))
    for report, expected in zip(together, alone, strict=True):
        for name, value in expected.metrics().items():
            assert report.metrics()[name] == pytest.approx(value, rel=1e-2), name


@pytest.mark.parametrize("trial", TASKS)
def test_two_processes_count_every_image_once(trained: Path, trial: str):
    counts = read_counts(Store(trained / trial))
    _, reports = read_records(Store(trained / trial))
    assert counts.keys() == {(task, "val") for task in TASKS[trial]}
    for (task, split), images in counts.items():
        assert images.ids == ("val0", "val1", "val2")
        assert images.miou() == reports[-1].value(task, split, "miou")


@pytest.mark.parametrize("trial", TASKS)
def test_two_processes_train_as_one_with_the_whole_batch(trained: Path, trial: str):
    alone = list(train(settings(trial), machine=Machine(data_root=trained, precision="float32")))
    scores = [json.loads((trained / trial / f"scores-{rank}.json").read_text()) for rank in range(2)]
    assert scores[0] == scores[1], "the processes disagree on the scores of the whole set"
    _, together = read_records(Store(trained / trial))
    for report, expected in zip(together, alone, strict=True):
        for name, value in expected.metrics().items():
            assert report.metrics()[name] == pytest.approx(value, rel=1e-3), name


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before the processes talk to each other."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "sunet64", "tasks": ("semseg", "parts")}, "cannot train sunet64 on images of which some"),
        ({"model": "fcn8s", "loss": "dice", "tasks": ("semseg", "parts")}, "cannot train with loss 'dice'"),
        ({"model": "fcn8s", "accumulation_steps": 2}, "cannot train this trial: it accumulates gradients"),
        ({"model": "fcn8s", "asynchronous": True}, "cannot train this trial: its parameter groups"),
        ({"model": "fcn8s"}, "batch normalization over several processes runs on CUDA only"),
    ],
)
def test_what_several_processes_cannot_train_is_refused_before_it_starts(
    tiny_protocol, two_processes, fields: dict, message: str
):
    config = TrialConfig(data="figures", width=0.125, crop_size=32, batch_size=4, epochs=1, **fields)
    with pytest.raises(UserError, match=message):
        next(train(config, protocol=tiny_protocol(train=8, mixed=True)))


def test_frozen_batch_norms_stay_frozen_on_several_gpus(two_processes):
    config = TrialConfig(width=0.125, freeze_batch_norm=True)
    model = build_model(config, {"semseg": Task("semseg", 2)})
    model = distributed.synchronize_batch_norm(model, torch.device("cuda"))
    model.train()
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 20
    assert not any(norm.training for norm in norms)
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())


def test_a_batch_norm_that_torch_would_strip_of_its_activation_is_refused(two_processes):
    class FusedBatchNorm(nn.BatchNorm2d):
        def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
            return super().forward(x_BCHW).relu()

    with pytest.raises(UserError, match="FusedBatchNorm computes more than batch normalization"):
        distributed.synchronize_batch_norm(nn.Sequential(FusedBatchNorm(3)), torch.device("cuda"))


def test_timms_batch_norms_keep_their_activation_when_they_are_synchronized(two_processes):
    pytest.importorskip("timm", reason="timm is not installed (uv sync --extra timm)")
    config = TrialConfig(model="fcn16s", backbone="timm/regnetx_002", freeze_batch_norm=True)
    model = build_model(config, {"semseg": Task("semseg", 2)}).eval()
    for norm in model.backbone.batch_norms():
        norm.running_mean.normal_()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = model.backbone(images)
        model = distributed.synchronize_batch_norm(model, torch.device("cuda"))
        norms = list(model.backbone.batch_norms())
        assert len(norms) > 20
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        for ours, alone in zip(model.backbone(images), before, strict=True):
            assert torch.equal(ours, alone)


def test_the_order_tells_how_many_images_of_each_task_all_processes_have(tiny_protocol):
    protocol = tiny_protocol(train=11, mixed=True)
    arguments = {"tasks": protocol.tasks, "crop_size": 32, "batch_size": 4, "augmentation": 0.0, "seed": 1}
    loaders = [TrainLoader(protocol.train, rank=rank, world_size=2, **arguments) for rank in range(2)]
    found: list[dict[str, int]] = []
    for batches in zip(*(loader.epoch(3) for loader in loaders), strict=True):
        counts = [images_in(batch) for batch in batches]
        found.append({name: sum(count[name] for count in counts) for name in counts[0]})
    assert [images_per_batch(loader, 3) for loader in loaders] == [found, found]
    assert len({batch["parts"] for batch in found}) > 1, "the test would not notice a constant"


def test_gradients_are_sent_in_order_and_before_the_backward_pass_ends(monkeypatch: pytest.MonkeyPatch):
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    last, first = model[3].weight, model[0].weight
    sent: list[tuple[int, bool]] = []

    def double(flat: torch.Tensor, *, async_op: bool) -> None:
        assert async_op
        sent.append((flat.numel(), first.grad is None))
        flat.mul_(2)

    monkeypatch.setattr("torch.distributed.all_reduce", double)
    sums = distributed.OverlappedSum(list(model.parameters()), bucket_bytes=100)
    for _ in range(2):
        model.zero_grad()
        sent.clear()
        x = torch.randn(3, 4)
        (expected,) = torch.autograd.grad(model(x).square().sum(), last)
        model(x).square().sum().backward()
        assert sent == [(32, True), (32, False)], "the first bucket did not wait for the whole backward pass"
        sums.finish()
        torch.testing.assert_close(last.grad, 2 * expected)


def test_a_bucket_without_gradients_is_sent_all_the_same(monkeypatch: pytest.MonkeyPatch):
    # Otherwise the processes would send different buckets to each other.
    sent = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flat, **_: sent.append(flat.numel()))
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5))
    sums = distributed.OverlappedSum([used, unused], bucket_bytes=1)
    used.sum().backward()
    assert sent == []
    sums.finish()
    assert sent == [5, 3]
    assert used.grad.tolist() == [1] * 3
    assert unused.grad.tolist() == [0] * 5
