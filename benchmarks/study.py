"""Ray's overhead: wall-clock time of a study against the sum of its trainings, divided by the concurrency.

Runs `wd_grid` on the embedded data, without early stopping, one trial per core, with trials of a minute or
more. A short run before it draws the data and trains the pre-trained weights, which later studies reuse.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Claim, Comparison
from segstrat.parallel import cpu_cores
from study.frame import load

WALL, TRAININGS = "study, wall clock", "its trainings / concurrency"


def run(*, quick: bool) -> list[Comparison]:
    concurrent = 1 if quick else cpu_cores()
    with tempfile.TemporaryDirectory(prefix="segstrat-benchmark-") as folder:
        storage = Path(folder)
        run_study(storage, "warm-up", budget=0.01, concurrent=concurrent)
        name = "warm-up"
        wall = 0.0
        if not quick:
            name = "timed"
            wall = run_study(storage, name, budget=1.25, concurrent=concurrent)
        trials, _ = load(storage / name)
        if not (trials["status"] == "completed").all():
            raise RuntimeError(f"not every trial completed: {trials['status'].value_counts().to_dict()}")
        trainings = float(trials["seconds"].sum()) / concurrent
    return [
        Comparison(
            "overhead of the study",
            {WALL: [wall or trainings], TRAININGS: [trainings]},
            unit="study",
            reference=TRAININGS,
            claims=[Claim(WALL, TRAININGS, 1 / 1.10)],
            notes=[
                f"{len(trials)} trials of {trials['seconds'].mean():.0f} s each, {concurrent} at a time, "
                "including the start of Ray and the report"
            ],
        )
    ]


def run_study(storage: Path, name: str, *, budget: float, concurrent: int) -> float:
    """Runs a study; returns its wall-clock seconds."""
    command = [
        *(sys.executable, "study/run.py", "--space", "wd_grid", "--seeds", "0", "--scheduler", "none"),
        *("--budget", str(budget), "--storage", str(storage), "--name", name),
        *("--cpus-per-trial", "1", "--max-concurrent", str(concurrent)),
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
