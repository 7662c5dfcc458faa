"""deploy/slurm.sbatch with stand-ins for Slurm: it starts, ends on SIGTERM, and continues later."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from study.frame import load
from study.planning.space_files import write_template

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
TIMEOUT = 400.0
# Slurm's commands on an allocation of one node, which is this machine.
COMMANDS = {
    "scontrol": "echo localhost",
    # Drops srun's own options; what is left is the command.
    "srun": 'while [ "$1" != --nodelist ]; do shift; done; shift 2; exec "$@"',
    "sbatch": 'exec bash "$@"',
}


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`submit(job, flags)` runs the script as Slurm would, in a session that ends with the test."""
    scripts: list[subprocess.Popen] = []
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in COMMANDS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)

    def start(job: int, flags: list[str]) -> subprocess.Popen:
        environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_CPUS_PER_TASK": "2",
            "SEGSTRAT_PYTHON": sys.executable,
            "SEGSTRAT_STORAGE": str(tmp_path / "results"),
        }
        with (tmp_path / f"{job}.log").open("w") as log:
            script = subprocess.Popen(
                ["sbatch", str(ROOT / "deploy" / "slurm.sbatch"), *flags],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        scripts.append(script)
        return script

    yield start
    for script in scripts:
        # What a script has left, if it was not awaited.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.wait()


@pytest.mark.timeout(900)
def test_the_script_ends_on_sigterm_and_continues(submit, tiny_data, tiny_weights, tmp_path):
    space = write_template(str(tmp_path / "mine"))
    fields = '"width": 0.25, "crop_size": 32, "batch_size": 4, "epochs": 3, "learning_rate": 0.02,'
    space.write_text(space.read_text().replace("BASE = {", f"BASE = {{\n    {fields}"))
    job = 20000 + os.getpid() % 10000
    flags = ["--space", str(space), "--data", "folder", "--data-root", str(tiny_data), "--scheduler", "none"]
    flags += ["--weights", str(tiny_weights), "--gpus-per-trial", "0", "--name", "study"]
    script = submit(job, flags)
    study = tmp_path / "results" / "study"
    deadline = time.monotonic() + TIMEOUT
    while not list(study.glob("trials/*/outcome.json")):
        log = (tmp_path / f"{job}.log").read_text()
        assert script.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.1)
    # Slurm signals the batch script alone: --signal=B:TERM.
    os.kill(script.pid, signal.SIGTERM)
    assert script.wait(TIMEOUT) == 143
    log = (tmp_path / f"{job}.log").read_text()
    assert "SIGTERM: stopping the workers" in " ".join(log.split())
    assert "--resume" in log
    ended = set(study.glob("trials/*/outcome.json"))
    times = {path: path.stat().st_mtime_ns for path in ended}

    script = submit(job + 1, ["--resume", "--name", "study", "--gpus-per-trial", "0"])
    assert script.wait(TIMEOUT) == 0, (tmp_path / f"{job + 1}.log").read_text()
    trials, _ = load(study)
    assert (trials["status"] == "completed").all()
    assert {path: path.stat().st_mtime_ns for path in ended} == times, "nothing ran again"
