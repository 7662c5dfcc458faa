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
from segstrat.errors import UserError
from segstrat.image_counts import read_counts
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.records import read_records
from segstrat.store import Store
from segstrat.tasks import Task
from segstrat.train import train

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

dist.init_process_group("gloo", rank=rank, world_size=2)
for trial in ("one task", "two tasks"):
    config = TrialConfig.from_dict(json.loads((root / trial / "config.json").read_text()))
    protocol = build_protocol("folder", root, tasks=config.tasks)
    model = synchronized(build_model(config, protocol.tasks))
    machine = Machine(precision="float32")
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


TASKS = {"one task": ("semseg",), "two tasks": ("semseg", "parts")}


def settings(trial: str) -> TrialConfig:
    return TrialConfig(
        data="folder",
        tasks=TASKS[trial],
        model="fcn8s",
        width=0.125,
        crop_size=32,
        batch_size=4,
        epochs=2,
    )


@pytest.fixture(scope="module")
def trained(tiny_protocol, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both trials, trained by the same two processes: starting them takes longer than training."""
    root = tmp_path_factory.mktemp("distributed")
    write_folder(root, tiny_protocol(train=8, val=3))
    for trial in TASKS:
        (root / trial).mkdir()
        (root / trial / "config.json").write_text(json.dumps(settings(trial).to_dict()))
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), str(rank), str(Path(__file__).parent)], env=environment
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return root


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
        ({"model": "fcn8s", "accumulation_steps": 2}, "several processes do not accumulate"),
        ({"model": "fcn8s", "asynchronous": True}, "asynchronous updates run in one process"),
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
