"""One small Ray cluster for all tests of this folder, and a data set and a search space of seconds."""

import contextlib
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from study.on_ray.runtime import prepare_environment

prepare_environment(joining=True)
# Workers inherit the environment of the cluster's nodes, so the tests' S3 server is set here.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

LAUNCH = Path(__file__).parent / "launch.py"
NODE = {"object_store_memory": 80 << 20}
START_ATTEMPTS = 3


def started(start: Callable) -> object:
    """A loaded machine may miss one of Ray's start-up deadlines."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return start()
        except Exception as error:
            print(f"Ray did not start: {error}")
    return start()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head node of two cores that believes it has four GPUs; this process is connected to it."""
    head = {"num_cpus": 4, "num_gpus": 4, "include_dashboard": False, **NODE}
    cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root for `--data folder`: 48-pixel images of coloured squares, 8 for training."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    rng = np.random.default_rng(0)
    for name in [f"train{i}" for i in range(8)] + [f"val{i}" for i in range(4)]:
        image = rng.integers(60, 190, (48, 48, 3), dtype=np.uint8)
        label = np.zeros((48, 48), np.uint8)
        for value, colour in ((1, (220, 30, 30)), (2, (30, 30, 220))):
            top, left = rng.integers(0, 28, 2)
            image[top : top + 20, left : left + 20] = colour
            label[top : top + 20, left : left + 20] = value
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        Image.fromarray(label).save(root / "labels" / f"{name}.png")
    (root / "train.txt").write_text("".join(f"train{i}\n" for i in range(8)))
    (root / "val.txt").write_text("".join(f"val{i}\n" for i in range(4)))
    (root / "dataset.toml").write_text(
        'name = "tiny"\nimages = "images"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
        '[tasks.semseg]\nlabels = "labels"\nclasses = ["background", "red", "blue"]\n'
    )
    return root


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the pre-trained arm of the tiny space: another random initialization."""
    from segstrat.config import TrialConfig
    from segstrat.models import build_model
    from segstrat.models.weights import save_backbone
    from segstrat.tasks import Task

    model = build_model(TrialConfig(model="fcn32s", width=0.25, seed=99), {"semseg": Task("semseg", 3)})
    path = tmp_path_factory.mktemp("weights") / "backbone.pth"
    save_backbone(path, model.backbone)
    return path


@pytest.fixture(scope="session")
def tiny_flags(tiny_data: Path, tiny_weights: Path) -> list[str]:
    """Flags of a study of the tiny space; name and storage are left to the test."""
    return [
        *("--space", "tiny", "--data", "folder", "--data-root", str(tiny_data)),
        *("--weights", str(tiny_weights), "--gpus-per-trial", "0"),
        # `auto` measures, and studies that are compared bit by bit must not differ in what they find.
        *("--precision", "float32"),
        # Six trials of screening, then the reference and a candidate of each arm on one more seed.
        *("--seeds", "0", "--top", "1", "--max-seeds", "1"),
    ]


@pytest.fixture
def start_driver(cluster: Cluster, node_cache: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`start_driver(flags)` starts the command line in a separate process, which joins the cluster."""
    processes: list[subprocess.Popen] = []

    def start(flags: list[str]) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(LAUNCH), *flags, "--address", cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _command_line(process: psutil.Process) -> str:
    """The process's command line, '' if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture
def trial_workers(cluster: Cluster) -> Callable[[], list[psutil.Process]]:
    """The processes that run trials on the cluster's nodes."""

    def found() -> list[psutil.Process]:
        raylets = [
            psutil.Process(info.process.pid)
            for node in cluster.list_all_nodes()
            for info in node.all_processes["raylet"]
        ]
        children = [child for raylet in raylets for child in raylet.children(recursive=True)]
        return [process for process in children if "StudyJob" in _command_line(process)]

    return found


@pytest.fixture
def a_worker(trial_workers) -> Callable[[random.Random], psutil.Process]:
    """Waits for a process that runs a trial, and chooses one."""

    def choose(rng: random.Random) -> psutil.Process:
        deadline = time.monotonic() + 240
        while not (found := trial_workers()):
            assert time.monotonic() < deadline, "no trial's process was started"
            time.sleep(0.05)
        return rng.choice(found)

    return choose


@contextlib.contextmanager
def finding_the_tiny_space() -> Iterator[None]:
    """Lets the command line, in this process, find the space `tiny`."""
    import search_spaces

    spaces = LAUNCH.parent / "spaces"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.planning.space.SPACES_DIR", spaces)
        patch.setattr(search_spaces, "__path__", [*search_spaces.__path__, str(spaces)])
        yield


@pytest.fixture(autouse=True)
def tiny_space() -> Iterator[None]:
    """The space `tiny`, for one test: the tests of other folders must find the real spaces."""
    with finding_the_tiny_space():
        yield


@pytest.fixture(scope="session")
def undisturbed(
    cluster: Cluster,
    tiny_flags: list[str],
    node_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[int, list[str], Path, str]:
    """A study of the tiny space that nothing has disturbed: exit code, flags, folder, console output."""
    from study.run import main

    storage = tmp_path_factory.mktemp("run")
    flags = [*tiny_flags, "--storage", str(storage), "--max-concurrent", "2"]
    output = io.StringIO()
    with finding_the_tiny_space(), contextlib.redirect_stdout(output):
        code = main([*flags, "--name", "first"])
    return code, flags, storage / "first", output.getvalue()


@pytest.fixture(scope="session")
def same_frames() -> Callable[[str | Path, str | Path], None]:
    """Asserts that two studies have the same frames, bit for bit, but for clocks and names.

    `checkpoint` is the newest one: a trial that was judged late has trained on beyond its stop.
    """
    from study.frame import load

    clocks = {"seconds", "images_per_second", "data_wait", "checkpoint", "study"}

    def check(first: str | Path, second: str | Path) -> None:
        for one, other in zip(load(first), load(second), strict=True):
            shared = [name for name in one if name not in clocks]
            pd.testing.assert_frame_equal(one[shared], other[shared], check_exact=True)

    return check
