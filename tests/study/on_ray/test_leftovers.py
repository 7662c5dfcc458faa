"""A study that runs on this machine alone leaves no process and no temporary folder, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LAUNCH = Path(__file__).parent / "launch.py"
TIMEOUT = 240.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {TIMEOUT:.0f} s"
        time.sleep(0.1)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder with a short path: Ray keeps its sockets there."""
    folder = Path("/tmp") / f"s{os.getpid()}"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def processes_in(temporary: Path) -> list[str]:
    """Command lines of all processes that were started with this temporary folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(temporary) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
        except psutil.Error:
            continue
    return found


def start(tiny_flags: list[str], temporary: Path, storage: Path, name: str) -> subprocess.Popen:
    flags = [*tiny_flags, "--storage", str(storage), "--name", name, "--budget", "4"]
    flags += ["--max-concurrent", "1"]
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), *flags],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(900)
def test_nothing_is_left_after_ctrl_c_and_kill(tiny_flags, tmp_path, temporary):
    driver = start(tiny_flags, temporary, tmp_path, "killed")
    wait_until(lambda: list(tmp_path.glob("killed/trials/*/records.json")) or driver.poll(), "an epoch")
    driver.kill()
    driver.wait()
    wait_until(lambda: not processes_in(temporary), "the end of every process of a killed driver")

    driver = start(tiny_flags, temporary, tmp_path, "interrupted")
    wait_until(lambda: list(tmp_path.glob("interrupted/trials/*/records.json")) or driver.poll(), "an epoch")
    before = time.monotonic()
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=TIMEOUT)
    assert driver.returncode == 130, output
    assert "Ctrl-C: stopping the workers" in " ".join(output.split())
    assert time.monotonic() - before < 120
    wait_until(lambda: not processes_in(temporary), "the end of every process of an interrupted driver")
    left = [path.name for path in temporary.iterdir()]
    assert [name for name in left if name.startswith(("segstrat-", "ray"))] == [], left
