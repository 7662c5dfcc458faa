"""kill -9 of workers, drivers and nodes: the resumed study ends as if nothing had died."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study.frame import load

pytestmark = pytest.mark.cluster

TIMEOUT = 240.0
NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Polls another process's doings."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {TIMEOUT:.0f} s"
        time.sleep(0.05)


class Watched:
    """The folder of a running study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def wait_for(self, pattern: str, count: int, process: subprocess.Popen) -> None:
        """Waits until so many files are there, or the driver has ended."""

        def there() -> bool:
            return len(list(self.folder.glob(pattern))) >= count or process.poll() is not None

        wait_until(there, f"{count} files {pattern}")

    def finished(self) -> dict[Path, int]:
        """Records of the trials that have an outcome, with the time when they were written."""
        folders = [path.parent for path in self.folder.glob("trials/*/outcome.json")]
        return {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("*.json")}

    def untouched(self, before: dict[Path, int]) -> bool:
        """Whether no trial that had finished was run or judged again."""
        return all(path.stat().st_mtime_ns == written for path, written in before.items())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "study")


def end_well(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    return output


@pytest.mark.timeout(900)
def test_a_worker_a_driver_and_a_node_die(
    cluster, undisturbed, start_driver, tiny_flags, watched, same_frames, a_worker
):
    rng = random.Random(0)
    node = cluster.add_node(**NODE)
    storage = ["--storage", str(watched.folder.parent), "--name", "study"]
    driver = start_driver([*tiny_flags, *storage, "--max-concurrent", "4"])
    watched.wait_for("trials/*/records.json", 1, driver)
    a_worker(rng).kill()
    watched.wait_for("trials/*/outcome.json", 1, driver)
    driver.kill()
    driver.wait()
    before = watched.finished()
    driver = start_driver(["--resume", *storage, "--gpus-per-trial", "0"])
    wait_until(
        lambda: len(watched.finished()) > len(before) or driver.poll() is not None, "another trial's end"
    )
    cluster.remove_node(node, allow_graceful=False)
    output = end_well(driver)
    assert "resuming" in output
    assert watched.untouched(before)
    same_frames(undisturbed[2], watched.folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_whatever_dies_whenever(
    cluster, undisturbed, start_driver, tiny_flags, watched, same_frames, a_worker, seed
):
    rng = random.Random(seed)
    storage = ["--storage", str(watched.folder.parent), "--name", "study"]
    driver = start_driver([*tiny_flags, *storage])
    finished: dict[Path, int] = {}
    for _ in range(3):
        node = cluster.add_node(**NODE)
        watched.wait_for("trials/*/records.json", rng.randint(1, 5), driver)
        time.sleep(rng.uniform(0, 3))
        kind = rng.choice(["worker", "driver", "node"])
        if driver.poll() is None and kind == "worker":
            a_worker(rng).kill()
        if kind == "driver":
            driver.kill()
            driver.wait()
            assert watched.untouched(finished)
            finished = watched.finished()
            driver = start_driver(["--resume", *storage, "--gpus-per-trial", "0"])
        cluster.remove_node(node, allow_graceful=kind != "node")
    end_well(driver)
    assert watched.untouched(finished)
    same_frames(undisturbed[2], watched.folder)


@pytest.mark.timeout(900)
def test_one_driver_at_a_time_and_ctrl_c_keeps_what_is_finished(cluster, start_driver, tiny_flags, watched):
    storage = ["--storage", str(watched.folder.parent), "--name", "study"]
    driver = start_driver([*tiny_flags, *storage, "--max-concurrent", "2"])
    watched.wait_for("manifest.json", 1, driver)
    second = start_driver(["--resume", *storage])
    output, _ = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 2, output
    assert f"is being run by process {driver.pid}" in output

    watched.wait_for("trials/*/outcome.json", 1, driver)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=TIMEOUT)
    assert driver.returncode == 130, output
    assert "Traceback" not in output
    command = f"uv run python study/run.py --resume --name study --storage '{watched.folder.parent}'"
    assert f"Continue with: {command}" in " ".join(output.split())
    trials, _ = load(watched.folder)
    ended = {path.parent.name for path in watched.folder.glob("trials/*/outcome.json")}
    assert set(trials.query("status != 'unfinished'")["trial_id"]) == ended
    assert 1 <= len(ended) < 9
