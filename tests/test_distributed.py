"""Two processes over gloo against one with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from segstrat.config import TrialConfig
from segstrat.machine import Machine
from segstrat.records import read_records
from segstrat.store import Store
from segstrat.train import train

WORKER = """
import json, sys
from pathlib import Path
import torch.distributed as dist
from segstrat.config import TrialConfig
from segstrat.machine import Machine
from segstrat.store import Store
from segstrat.train import train

root, rank = Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", rank=rank, world_size=2)
for trial in ("one task", "two tasks"):
    config = TrialConfig.from_dict(json.loads((root / trial / "config.json").read_text()))
    reports = list(train(config, machine=Machine(data_root=root), store=Store(root / trial)))
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
        subprocess.Popen([sys.executable, "-c", WORKER, str(root), str(rank)], env=environment)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    return root


@pytest.mark.parametrize("trial", TASKS)
def test_two_processes_train_as_one_with_the_whole_batch(trained: Path, trial: str):
    alone = list(train(settings(trial), machine=Machine(data_root=trained)))
    scores = [json.loads((trained / trial / f"scores-{rank}.json").read_text()) for rank in range(2)]
    assert scores[0] == scores[1], "the processes disagree on the scores of the whole set"
    _, together = read_records(Store(trained / trial))
    for report, expected in zip(together, alone, strict=True):
        for name, value in expected.metrics().items():
            assert report.metrics()[name] == pytest.approx(value, rel=1e-3), name
